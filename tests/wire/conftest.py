"""The app over both stores, and the recorded requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clearspan.testing.wire import Wire, open_wire


@pytest.fixture(params=["memory", "sqlite"])
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wire]:
    """The app over each store in turn."""
    with ExitStack() as stack:
        yield open_wire(stack, tmp_path / "data", request.param)
