"""OTLP export requests, protobuf and JSON, traces and logs → rows and blocks.

A whole protobuf body is checked in one parse. When that fails, for one string that is not UTF-8 or one
value nested too deep, the records are checked one by one and only the bad ones are rejected: the parse says
nothing about where, and a client that loses 512 spans for one does not come back. A body that cannot be
split into records at all is truncated or no OTLP, and is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as WireLog
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from clearspan.ingest import otlp_json
from clearspan.ingest.batch import Collector, DecodedRequest
from clearspan.ingest.limits import DEFAULT_LIMITS, IngestLimits
from clearspan.ingest.origin import Origin
from clearspan.ingest.payload import CODEC_OTLP_LOG, CODEC_OTLP_SPAN, Shared
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.promote import Promoter
from clearspan.ingest.wire import LogSpanIdView, LogView, RequestView, SpanIdView, WireError, has_more_groups
from clearspan.model.errors import InvalidPayload, PayloadTooLarge

_NO_TRACE: Final = b"\0" * 16
_UNREADABLE: Final = "the body is not an OTLP protobuf request, or is truncated"


class Decoder(NamedTuple):
    """Everything a decode needs beside the body; one for each request, cheap to make."""

    origin: Origin
    limits: IngestLimits = DEFAULT_LIMITS
    prices: PriceBook | None = None
    received_ns: int | None = None  # the time of a legacy span that states none; None: such a span is rejected


def decode_traces_protobuf(body: bytes, decoder: Decoder) -> DecodedRequest:
    """An ExportTraceServiceRequest, unpacked. 30 to 45 µs a span of 2 KB; see bench/micro_ingest.py.

    Raises:
        InvalidPayload: the body cannot be split into spans.
        PayloadTooLarge: more resource and scope groups than `limits.groups`.
    """
    return _decode(_split(body, ExportTraceServiceRequest, decoder.limits), decoder, logs=False)


def decode_traces_json(body: bytes, decoder: Decoder) -> DecodedRequest:
    """An ExportTraceServiceRequest in OTLP/JSON.

    Raises:
        InvalidPayload: not JSON, or not in the shape of a request.
    """
    return _decode(otlp_json.split_traces(body, decoder.limits), decoder, logs=False)


def decode_logs_protobuf(body: bytes, decoder: Decoder) -> DecodedRequest:
    """An ExportLogsServiceRequest. Records of no trace are left out: Clearspan stores traces.

    Raises:
        InvalidPayload: the body cannot be split into records.
    """
    return _decode(_split(body, ExportLogsServiceRequest, decoder.limits), decoder, logs=True)


def decode_logs_json(body: bytes, decoder: Decoder) -> DecodedRequest:
    """An ExportLogsServiceRequest in OTLP/JSON; otherwise as decode_logs_protobuf."""
    return _decode(otlp_json.split_logs(body, decoder.limits), decoder, logs=True)


Group = tuple[Shared, list[bytes | InvalidPayload], bool]
"""What one scope brought: its shared part, its raw records or why one is none, and whether all are
checked."""


def _split(body: bytes, request_class: Any, limits: IngestLimits) -> Iterator[Group]:
    try:
        if has_more_groups(body, limits.groups):
            raise PayloadTooLarge(f"more than {limits.groups} resource and scope groups")
    except WireError as error:
        raise InvalidPayload(_UNREADABLE) from error
    try:
        request_class.FromString(body)
        checked = True
    except WireError:
        checked = False
    try:
        request = RequestView.FromString(body)
    except WireError as error:
        raise InvalidPayload(_UNREADABLE) from error
    for group in request.resources:
        for scope in group.scopes:
            schema_url = (scope.schema_url or group.schema_url).decode("utf-8", "replace")
            yield Shared(group.resource, scope.scope, schema_url), scope.records, checked


def _decode(groups: Iterator[Group], decoder: Decoder, *, logs: bool) -> DecodedRequest:
    promoter = Promoter(decoder.origin, decoder.limits, decoder.prices)
    collector = Collector(decoder.origin.project_id, decoder.limits.reasons)
    message_class = WireLog if logs else WireSpan
    for shared, records, checked in groups:
        if not checked:
            fault = _fault_of_shared(shared)
            if fault is not None:
                collector.reject(fault, len(records))
                continue
        source = promoter.source(shared.resource, shared.scope)
        for record in records:
            try:
                raw = record if checked and type(record) is bytes else _checked(record, checked, message_class)
                if not logs:
                    trace_id, span = promoter.span(raw, source)
                    collector.add_span(trace_id, span, CODEC_OTLP_SPAN, shared, raw)
                elif not _is_outside_traces(raw):
                    trace_id, log = promoter.log(raw, source)
                    collector.add_log(trace_id, log, CODEC_OTLP_LOG, shared, raw)
            except InvalidPayload as error:
                collector.reject(_reason(record, error, logs=logs))
    return collector.finish(promoter.contexts)


def _checked(record: bytes | InvalidPayload, checked: bool, message_class: Any) -> bytes:
    """The raw record, after the check that the whole body did not pass."""
    if isinstance(record, InvalidPayload):
        raise record
    if not checked:
        try:
            message_class.FromString(record)
        except WireError as error:
            raise InvalidPayload("text that is not UTF-8, values nested too deep, or damaged bytes") from error
    return record


def _fault_of_shared(shared: Shared) -> str | None:
    for what, message_class, raw in (
        ("resource", Resource, shared.resource),
        ("scope", InstrumentationScope, shared.scope),
    ):
        try:
            message_class.FromString(raw)
        except WireError:
            return f"its {what} cannot be read"
    return None


def _is_outside_traces(raw: bytes) -> bool:
    trace_id = LogView.FromString(raw).trace_id
    return trace_id in (b"", _NO_TRACE)


def _reason(record: bytes | InvalidPayload, error: InvalidPayload, *, logs: bool) -> str:
    """Names the record by its id if that can still be read; never by its content."""
    what = "log record" if logs else "span"
    if isinstance(record, bytes):
        try:
            span_id = (LogSpanIdView if logs else SpanIdView).FromString(record).span_id
        except WireError:
            return f"{what}: {error.message}"
        return f"{what} {span_id.hex()[:32] or 'without id'}: {error.message}"
    return f"{what}: {error.message}"
