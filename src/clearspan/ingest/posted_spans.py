"""Spans as Phoenix's clients post them → rows and blocks, as OTLP records: every dialect reads those.

Objects among the attributes become dotted keys, and lists of objects keys with positions, as OpenInference's exporters
write them; what it keeps as JSON text (`metadata`) is made that. Ids that are no ids of OTLP are kept in the row; the
record, which nothing reads ids from, holds a hash of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from clearspan.ingest.batch import Collector, DecodedRequest
from clearspan.ingest.metadata import json_text
from clearspan.ingest.openinference import JSON_KEYS, KIND_KEY, flatten
from clearspan.ingest.otlp import Decoder
from clearspan.ingest.payload import CODEC_OTLP_SPAN, NO_SHARED
from clearspan.ingest.promote import Promoter, Source
from clearspan.model.errors import InvalidPayload
from clearspan.model.ids import normalise_id
from clearspan.model.runs import is_otlp_id, is_run_id

_STATUS: Final = {"OK": Status.STATUS_CODE_OK, "ERROR": Status.STATUS_CODE_ERROR}
_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)
_METADATA: Final = "metadata"


class PostedEvent(NamedTuple):
    """Something that happened within a posted span."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


class PostedSpan(NamedTuple):
    """One span as it was posted."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str  # OpenInference's word, kept whatever it is
    start_ns: int
    end_ns: int
    status_code: str  # any case; what is neither OK nor ERROR is unset
    status_message: str
    attributes: Mapping[str, Any]
    events: Sequence[PostedEvent]


class RejectedSpan(NamedTuple):
    """A posted span that cannot be stored, with its ids as they were sent."""

    trace_id: str
    span_id: str
    reason: str


def decode_posted(spans: Iterable[PostedSpan], decoder: Decoder) -> tuple[DecodedRequest, list[RejectedSpan]]:
    """Posted spans as batches, and those that cannot be stored. Of two with one id the first counts.

    Cost: about 150 µs a span of ten attributes.
    """
    promoter = Promoter(decoder.origin, decoder.limits, decoder.prices)
    collector = Collector(decoder.origin.project_id, decoder.limits.reasons)
    source = promoter.source(NO_SHARED.resource, NO_SHARED.scope)
    rejected: list[RejectedSpan] = []
    seen: set[tuple[str, str]] = set()
    for posted in spans:
        try:
            named = _with_stored_ids(posted)
            if (named.trace_id, named.span_id) in seen:
                continue
            seen.add((named.trace_id, named.span_id))
            _add(named, promoter, source, collector)
        except (InvalidPayload, ValueError) as error:
            reason = error.message if isinstance(error, InvalidPayload) else str(error)
            collector.reject(f"span: {reason}")
            rejected.append(RejectedSpan(posted.trace_id, posted.span_id, reason))
    return collector.finish(promoter.contexts), rejected


def _with_stored_ids(posted: PostedSpan) -> PostedSpan:
    """The span with its ids as they are stored. Raises ValueError."""
    parent_id = normalise_id(posted.parent_id) if posted.parent_id else None
    return posted._replace(
        trace_id=normalise_id(posted.trace_id), span_id=normalise_id(posted.span_id), parent_id=parent_id
    )


def _add(posted: PostedSpan, promoter: Promoter, source: Source, collector: Collector) -> None:
    raw = _record(posted).SerializeToString(deterministic=True)
    _, row = promoter.span(raw, source)
    row = row._replace(span_id=posted.span_id, parent_id=posted.parent_id)
    collector.add_span(posted.trace_id, row, CODEC_OTLP_SPAN, NO_SHARED, raw)


def _record(posted: PostedSpan) -> WireSpan:
    span = WireSpan(
        trace_id=_wire_id(posted.trace_id, 16, is_run_id(posted.trace_id)),
        span_id=_wire_id(posted.span_id, 8, is_otlp_id(posted.span_id)),
        name=posted.name,
        start_time_unix_nano=_time(posted.start_ns),
        end_time_unix_nano=_time(posted.end_ns),
    )
    if posted.parent_id is not None:
        span.parent_span_id = _wire_id(posted.parent_id, 8, is_otlp_id(posted.parent_id))
    span.status.code = _STATUS.get(posted.status_code.upper(), Status.STATUS_CODE_UNSET)
    span.status.message = posted.status_message
    for key, value in _as_sent(posted).items():
        _set(span.attributes.add(key=key).value, value)
    for event in posted.events:
        made = span.events.add(name=event.name, time_unix_nano=_time(event.time_ns))
        for key, value in event.attributes.items():
            _set(made.attributes.add(key=key).value, value)
    return span


def _as_sent(posted: PostedSpan) -> dict[str, Any]:
    """The attributes as an exporter of OpenInference writes them."""
    whole = {key: value for key, value in posted.attributes.items() if key.endswith(JSON_KEYS)}
    made = dict(flatten({key: value for key, value in posted.attributes.items() if key not in whole}))
    made |= {key: json_text(value) if isinstance(value, dict | list) else value for key, value in whole.items()}
    # As a reader of ours is given it, and may post it again: one key for each value within.
    parts = [key for key in made if key.startswith(f"{_METADATA}.")]
    if parts and _METADATA not in made:
        made[_METADATA] = json_text({key.removeprefix(f"{_METADATA}."): made.pop(key) for key in parts})
    return made | {KIND_KEY: posted.kind}


def _wire_id(text: str, size: int, is_hex: bool) -> bytes:
    return bytes.fromhex(text) if is_hex else blake2b(text.encode(), digest_size=size).digest()


def _time(ns: int) -> int:
    if ns not in _UINT64:
        raise InvalidPayload("a time before 1970 or after the year 2262")
    return ns


def _set(target: AnyValue, value: Any) -> None:
    """Write a JSON value. Raises InvalidPayload for a number that OTLP cannot say."""
    match value:
        case None:
            pass
        case bool():
            target.bool_value = value
        case int():
            if value not in _INT64:
                raise InvalidPayload("a whole number of more than 64 bits")
            target.int_value = value
        case float():
            target.double_value = value
        case str():
            target.string_value = value
        case dict():
            target.kvlist_value.SetInParent()
            for key, each in value.items():
                _set(target.kvlist_value.values.add(key=key).value, each)
        case _:
            target.array_value.SetInParent()
            for each in value:
                _set(target.array_value.values.add(), each)
