"""The app over both stores, and the recorded requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clearspan.testing.wire import Wire, open_wire


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wire]:
    """The app over the embedded store; in long runs also over the one in memory, its equal by tests/conformance."""
    with ExitStack() as stack:
        yield open_wire(stack, tmp_path / "data", request.param)
