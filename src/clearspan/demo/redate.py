"""Move recorded traces to the present, so that a list of the last hour shows them.

Each trace moves as a whole: its spans, events and log records keep their distances, also over several requests.
Pure: the same requests and the same `now_ns` give the same bytes, so posting them twice stores nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clearspan.demo.dataset import DemoRequest

SPREAD_NS = 50 * 60 * 10**9
"""The oldest demo trace starts this long before now: inside the default window of an hour, with some time to look."""
LAST_END_NS = 20 * 10**9
"""No demo trace ends later than this before now."""

_JSON_TIMES = ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "observedTimeUnixNano")
_PROTO_TIMES = ("start_time_unix_nano", "end_time_unix_nano", "time_unix_nano", "observed_time_unix_nano")

Message = Any  # a protobuf message: the generated classes carry no types


def redate(requests: Sequence[DemoRequest], now_ns: int) -> list[DemoRequest]:
    """The requests with every trace moved into the `SPREAD_NS` before `now_ns`.

    The traces are spread in an order that mixes the sources, closer together towards now.
    """
    decoded = [_decode(request) for request in requests]
    bounds: dict[str, tuple[int, int]] = {}
    for body in decoded:
        for trace_id, start_ns, end_ns in _span_times(body):
            low, high = bounds.get(trace_id, (start_ns, end_ns))
            bounds[trace_id] = (min(low, start_ns), max(high, end_ns))
    shifts = _shifts(bounds, now_ns)
    for body in decoded:
        _apply(body, shifts)
    return [request._replace(body=_encode(body)) for request, body in zip(requests, decoded, strict=True)]


def trace_ids(requests: Iterable[DemoRequest]) -> set[str]:
    """Hex ids of every trace with a span in the requests."""
    return {trace_id for request in requests for trace_id, _, _ in _span_times(_decode(request))}


def _shifts(bounds: dict[str, tuple[int, int]], now_ns: int) -> dict[str, int]:
    """trace id → nanoseconds to add to every time of that trace."""
    mixed = sorted(bounds, key=lambda trace_id: hashlib.sha256(trace_id.encode()).digest())
    shifts = {}
    for place, trace_id in enumerate(mixed):
        start_ns, end_ns = bounds[trace_id]
        age_ns = round(SPREAD_NS * (1 - place / len(mixed)) ** 2)
        age_ns = max(age_ns, LAST_END_NS + end_ns - start_ns)
        shifts[trace_id] = now_ns - age_ns - start_ns
    return shifts


def _decode(request: DemoRequest) -> Any:
    """A dict for OTLP/JSON, a protobuf message otherwise."""
    if request.is_json:
        return json.loads(request.body)
    message = ExportLogsServiceRequest() if request.is_logs else ExportTraceServiceRequest()
    message.ParseFromString(request.body)
    return message


def _encode(body: Any) -> bytes:
    if isinstance(body, dict):
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return bytes(body.SerializeToString())


def _records(body: Any) -> Iterator[Any]:
    """Every span and log record of a decoded body."""
    if isinstance(body, dict):
        for resource in body.get("resourceSpans", []):
            for scope in resource.get("scopeSpans", []):
                yield from scope.get("spans", [])
    elif isinstance(body, ExportLogsServiceRequest):
        for resource in body.resource_logs:
            for scope in resource.scope_logs:
                yield from scope.log_records
    else:
        for resource in body.resource_spans:
            for scope in resource.scope_spans:
                yield from scope.spans


def _span_times(body: Any) -> Iterator[tuple[str, int, int]]:
    """(trace id, start, end) of every span."""
    if isinstance(body, ExportLogsServiceRequest):
        return
    for span in _records(body):
        if isinstance(span, dict):
            yield span["traceId"].lower(), int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        else:
            yield span.trace_id.hex(), span.start_time_unix_nano, span.end_time_unix_nano


def _apply(body: Any, shifts: dict[str, int]) -> None:
    for record in _records(body):
        if isinstance(record, dict):
            shift = shifts[record["traceId"].lower()]
            for part in (record, *record.get("events", [])):
                _shift_json(part, shift)
        else:
            # A log record outside any trace moves with none; it is refused or kept as the server sees fit.
            shift = shifts.get(record.trace_id.hex(), 0)
            events = getattr(record, "events", ())
            for part in (record, *events):
                _shift_message(part, shift)


def _shift_json(part: dict[str, Any], shift: int) -> None:
    for key in _JSON_TIMES:
        if int(part.get(key, 0)):
            part[key] = str(int(part[key]) + shift)


def _shift_message(part: Message, shift: int) -> None:
    known = part.DESCRIPTOR.fields_by_name
    for key in _PROTO_TIMES:
        if key in known and getattr(part, key):
            setattr(part, key, getattr(part, key) + shift)
