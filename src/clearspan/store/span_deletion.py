"""Spans as lines of a deletion's manifest: `port.DeletionStore` takes them wherever it takes traces.

A line whose trace id is a name of this module stands for one span. The hide cuts the span out of its trace: with its
log records, attachments and annotations it becomes a hidden trace of its own, under that name, and the trace it came
from is from then on what its other spans make it. So every read, purge, recount and hold minds a deleted span without
knowing of any: it is a hidden trace. Its tombstone is the one of that name, and refuses late copies of the span.
The last span of a trace takes the trace along, with what was said of the whole of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from clearspan.ingest.payload import decode_block, pack_block, pick_records
from clearspan.model.ids import normalise_id
from clearspan.model.span import TraceBatch

if TYPE_CHECKING:
    from clearspan.store.port import PlannedTrace

SLASH: Final = "/"
"""Between the two ids of a name; neither can hold one (model/ids.py)."""
SPANS_MAX: Final = 500
"""Most spans of one deletion: the hide, which cuts them out, is one transaction."""


class SpanName(NamedTuple):
    """Which span of which trace, in whatever project."""

    trace_id: str
    span_id: str


def render_name(trace_id: str, span_id: str) -> str:
    """The name of a span, in place of a trace id."""
    return f"{trace_id}{SLASH}{span_id}"


def normalise_name(text: str) -> str:
    """A trace's id, or a span's as TRACE/SPAN, in stored form. Raises ValueError, as model.ids.normalise_id."""
    return SLASH.join(normalise_id(each) for each in text.split(SLASH, 1))


def parse_name(trace_id: str) -> SpanName | None:
    """What `render_name` was given; None for the id of a trace."""
    before, slash, after = trace_id.partition(SLASH)
    return SpanName(before, after) if slash else None


def any_span(lines: Iterable[PlannedTrace]) -> bool:
    """Whether some line stands for a span."""
    return any(SLASH in line.trace_id for line in lines)


def parts_by_span(batch: TraceBatch) -> Counter[str]:
    """Which spans a batch speaks of, and in how many parts: themselves, their log records and attachments."""
    named = [span.span_id for span in batch.spans]
    named += [log.span_id for log in batch.logs if log.span_id is not None]
    return Counter([*named, *[each.span_id for each in batch.attachments]])


def without_spans(batch: TraceBatch, span_ids: Container[str]) -> TraceBatch:
    """A batch without some spans and all that is theirs, wire bytes included."""
    gone: set[str | int] = {span.span_id for span in batch.spans if span.span_id in span_ids}
    gone |= {log.log_hash for log in batch.logs if log.span_id in span_ids}
    block = batch.block
    if gone and block:
        kept = pick_records(decode_block(block), lambda record: record.id not in gone)
        block = pack_block(kept.records, kept.shared) if kept.records else b""
    return batch._replace(
        spans=tuple([span for span in batch.spans if span.span_id not in span_ids]),
        logs=tuple([log for log in batch.logs if log.span_id not in span_ids]),
        attachments=tuple([each for each in batch.attachments if each.span_id not in span_ids]),
        block=block,
    )


def size_of(batch: TraceBatch) -> int:
    """How many spans, log records and attachments a batch has."""
    return len(batch.spans) + len(batch.logs) + len(batch.attachments)
