"""LangSmith runs as a client sends them, and the batches that ingest makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from clearspan.ingest.langsmith import RunSource, batch_runs, decode_runs
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_parts import RunOperation
from clearspan.model.span import Attachment, TraceBatch
from clearspan.testing.build import SECOND_NS, T0_NS


class Message(NamedTuple):
    """One message about a run."""

    is_update: bool
    number: int
    fields: Mapping[str, Any]


def run_id(number: int) -> str:
    """A run id: 32 hex digits."""
    return f"{number:032x}"


def create(number: int, *, trace: int, start_s: float = 0.0, **fields: Any) -> Message:
    """The message that begins a run, with the placeholders that the SDK sends."""
    said = {"name": f"run {number}", "run_type": "chain", "inputs": {}, "outputs": {}, "events": [], **fields}
    parent = {} if number == trace else {"parent_run_id": run_id(trace)}
    return Message(False, number, {"start_time": iso(start_s), "trace_id": run_id(trace), **parent, **said})


def update(number: int, *, trace: int, end_s: float = 1.0, **fields: Any) -> Message:
    """The message that ends a run."""
    return Message(True, number, {"end_time": iso(end_s), "trace_id": run_id(trace), **fields})


def iso(at_s: float) -> str:
    """A time of `at_s` seconds after T0_NS, as the SDK writes it."""
    return datetime.fromtimestamp(T0_NS // SECOND_NS + at_s, UTC).isoformat()


def run_batches(
    *messages: Message, at_s: float = 0.0, project_id: int = 1, prices: PriceBook | None = None
) -> list[TraceBatch]:
    """What one request of those messages becomes, received `at_s` seconds after T0_NS."""
    operations = [
        RunOperation(each.is_update, run_id(each.number), {k: json.dumps(v).encode() for k, v in each.fields.items()})
        for each in messages
    ]
    decoded = decode_runs(operations, RunSource(T0_NS + round(at_s * SECOND_NS), key_id="key_1"))
    assert not decoded.rejected, decoded.rejected
    return batch_runs(project_id, decoded.runs, prices).batches


def attachment_batch(trace_id: str, *attachments: Attachment, project_id: int = 1) -> TraceBatch:
    """Attachments that come without their runs; `trace_id` "" if nobody says which trace."""
    return TraceBatch(project_id, trace_id, (), (), {}, b"", attachments)
