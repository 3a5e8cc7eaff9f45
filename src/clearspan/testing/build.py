"""Short ways to make model values: a span, its context, a batch whose block holds what its rows say.

Everything is derived from the arguments, so equal arguments give equal bytes and hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as WireLog

from clearspan.ingest.payload import CODEC_OTLP_LOG, CODEC_RESPAN_SPAN, BlockRecord, pack_block
from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.span import LogRecord, Span, SpanContext, TraceBatch

T0_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
SECOND_NS = 1_000_000_000
NO_CONTEXT = SpanContext()

_UNSAID: dict[str, Any] = dict.fromkeys(Span._fields)


class Built(NamedTuple):
    """A row and what it was made from: batches are put together of these."""

    row: Span | LogRecord
    context: SpanContext
    raw: bytes


def hash64(data: bytes) -> int:
    """Signed 64-bit hash, as ingest gives to contexts and contents."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def context_key(context: SpanContext) -> int:
    """A key for a context; equal contexts share one."""
    return hash64(json.dumps(context).encode())


def make_span(
    span_id: str,
    *,
    parent: str | None = None,
    start_s: float = 0.0,
    duration_s: float = 1.0,
    context: SpanContext = NO_CONTEXT,
    text: str = "",
    **fields: Any,
) -> Built:
    """A span that started `start_s` seconds after T0_NS.

    Args:
        text: what the wire record holds as input; it changes the content hash and nothing else.
        fields: any other field of Span.
    """
    start_ns = T0_NS + round(start_s * SECOND_NS)
    said = {
        "parent_id": parent,
        "name": f"span {span_id}",
        "kind": "span",
        "start_ns": start_ns,
        "end_ns": start_ns + round(duration_s * SECOND_NS),
        "status": "ok",
        "usage_repeats": False,
        **fields,
        "span_id": span_id,
        "context_key": context_key(context),
    }
    raw = json.dumps({**said, "input": text}, sort_keys=True).encode()
    row = Span(**{**_UNSAID, **said, "content_hash": hash64(raw)})
    return Built(row, context, raw)


def make_log(
    span_id: str | None, *, at_s: float = 0.0, text: str = "", context: SpanContext = NO_CONTEXT, **fields: Any
) -> Built:
    """A log record `at_s` seconds after T0_NS; its hash, and so its identity, comes from all arguments."""
    said = {"time_ns": T0_NS + round(at_s * SECOND_NS), "event_name": "event", "severity": 9, **fields}
    said |= {"span_id": span_id, "context_key": context_key(context)}
    wire = WireLog(time_unix_nano=max(said["time_ns"], 0), body=AnyValue(string_value=text))
    wire.attributes.add(key="row", value=AnyValue(string_value=json.dumps(said, sort_keys=True)))
    raw = wire.SerializeToString(deterministic=True)
    return Built(LogRecord(log_hash=hash64(raw), **said), context, raw)


def make_batch(trace_id: str, items: Iterable[Built], *, project_id: int = 1) -> TraceBatch:
    """One TraceBatch of spans and logs, with the block that holds their wire bytes."""
    built = list(items)
    spans = tuple(item.row for item in built if isinstance(item.row, Span))
    logs = tuple(item.row for item in built if isinstance(item.row, LogRecord))
    return TraceBatch(
        project_id=project_id,
        trace_id=trace_id,
        spans=spans,
        logs=logs,
        contexts={context_key(item.context): item.context for item in built},
        block=pack_block(_record(item) for item in built),
    )


def make_trace(trace_id: str, *, span_count: int = 2, project_id: int = 1, **fields: Any) -> TraceBatch:
    """A small whole trace: a root and children one second apart; `fields` go to every span."""
    ids = [f"{trace_id}.{n}" for n in range(span_count)]
    spans = [
        make_span(span_id, parent=ids[0] if n else None, **{"start_s": float(n), **fields})
        for n, span_id in enumerate(ids)
    ]
    return make_batch(trace_id, spans, project_id=project_id)


def split_batch(batch: TraceBatch, items: Sequence[Built]) -> list[TraceBatch]:
    """The same trace as one batch an item, as if each had come in a request of its own."""
    return [make_batch(batch.trace_id, [item], project_id=batch.project_id) for item in items]


def with_metadata(pairs: Mapping[str, str], **fields: Any) -> SpanContext:
    """A context with metadata, sorted as the model wants it."""
    return SpanContext(metadata=tuple(sorted(pairs.items())), **fields)


def _record(item: Built) -> BlockRecord:
    if isinstance(item.row, Span):
        return BlockRecord(CODEC_RESPAN_SPAN, 0, item.row.span_id, item.raw)
    return BlockRecord(CODEC_OTLP_LOG, 0, item.row.log_hash, item.raw)


def make_annotation(
    name: str = "quality",
    *,
    number: int = 0,
    target: AnnotationTarget = AnnotationTarget.SPAN,
    at_s: float = 0.0,
    **fields: Any,
) -> Annotation:
    """An annotation that was made `at_s` seconds after T0_NS.

    Args:
        number: makes its id.
    """
    at_ns = T0_NS + round(at_s * SECOND_NS)
    said = dict.fromkeys(Annotation._fields) | {
        "annotation_id": f"{number:032x}",
        "target": target,
        "name": name,
        "identifier": "",
        "kind": AnnotatorKind.HUMAN,
        "source": "api",
        "created_ns": at_ns,
        "updated_ns": at_ns,
    }
    return Annotation(**{**said, **fields})
