"""OTLP/JSON → raw protobuf records, so that everything behind has one form to know.

What real senders write is taken: hex ids of either case, 64-bit numbers as text or as numbers, enums as
numbers or by name, keys in camelCase or as in the .proto, fields in any order, no scope, keys nobody knows.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.payload import Shared
from clearspan.ingest.surrogates import without_lone_surrogates
from clearspan.model.errors import InvalidPayload, PayloadTooLarge

_decode = msgspec.json.Decoder().decode
_JsonObject = dict[str, Any]
_FLOAT_NAMES: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NOTHING_SHARED: Final = Shared(b"", b"", "")


def split_traces(body: bytes, limits: IngestLimits) -> Iterator[tuple[Shared, list[bytes | InvalidPayload], bool]]:
    """The scopes of an ExportTraceServiceRequest in JSON; a span that cannot be read is the error that says
    why.

    Raises:
        InvalidPayload: not JSON, or not in the shape of a request.
        PayloadTooLarge: more resource and scope groups than `limits.groups`.
    """
    return _split(body, limits, "resourceSpans", "scopeSpans", "spans", _span)


def split_logs(body: bytes, limits: IngestLimits) -> Iterator[tuple[Shared, list[bytes | InvalidPayload], bool]]:
    """As split_traces, for an ExportLogsServiceRequest."""
    return _split(body, limits, "resourceLogs", "scopeLogs", "logRecords", _log)


def decode_json(body: bytes) -> Any:
    """Any JSON document, integers exact, U+FFFD for lone surrogates.

    Raises:
        InvalidPayload: not JSON, not UTF-8, nested beyond what the machine's stack takes.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        mended = without_lone_surrogates(body)
        if mended is not body:
            return decode_json(mended)
        raise InvalidPayload(f"the body is not JSON: {str(error) or type(error).__name__}") from error


def _split(
    body: bytes,
    limits: IngestLimits,
    resources_key: str,
    scopes_key: str,
    records_key: str,
    build: Callable[[_JsonObject, int], bytes],
) -> Iterator[tuple[Shared, list[bytes | InvalidPayload], bool]]:
    document = _object(decode_json(body), "the body")
    _check_groups(document, resources_key, scopes_key, limits)
    for group in _objects(document, resources_key):
        resource = _attempt_shared(Resource, group.get("resource"), "resource", limits.depth)
        schema_url = _text(group, "schemaUrl")
        for scope in _objects(group, scopes_key):
            records = _list(scope, records_key)
            info = _attempt_shared(InstrumentationScope, scope.get("scope"), "scope", limits.depth)
            url = _text(scope, "schemaUrl") or schema_url
            if isinstance(resource, InvalidPayload):
                yield _NOTHING_SHARED, [resource] * len(records), True
            elif isinstance(info, InvalidPayload):
                yield _NOTHING_SHARED, [info] * len(records), True
            else:
                yield Shared(resource, info, url), [_attempt(build, each, limits.depth) for each in records], True


def _check_groups(document: _JsonObject, resources_key: str, scopes_key: str, limits: IngestLimits) -> None:
    groups = _list(document, resources_key)
    count = len(groups)
    if count <= limits.groups:
        count += sum(len(_list(_object(group, f"an item of {resources_key}"), scopes_key)) for group in groups)
    if count > limits.groups:
        raise PayloadTooLarge(f"more than {limits.groups} resource and scope groups")


def _attempt_shared(message_class: Any, record: Any, what: str, depth: int) -> bytes | InvalidPayload:
    """A Resource or InstrumentationScope as protobuf bytes, or why none of its records can be stored."""
    if record is not None:
        _object(record, what)
    try:
        return _message(message_class, record, depth)
    except (InvalidPayload, ValueError, TypeError, OverflowError):
        return InvalidPayload(f"its {what} cannot be read")


def _attempt(build: Callable[[_JsonObject, int], bytes], record: Any, depth: int) -> bytes | InvalidPayload:
    try:
        return build(_object(record, "a record"), depth)
    except InvalidPayload as error:
        return error
    except (ValueError, TypeError, OverflowError) as error:
        return InvalidPayload(f"a field has a wrong type or is out of range: {error}")


def _span(record: _JsonObject, depth: int) -> bytes:
    """One span as protobuf bytes."""
    span = Span(
        trace_id=_id(record, "traceId"),
        span_id=_id(record, "spanId"),
        parent_span_id=_id(record, "parentSpanId"),
        trace_state=_text(record, "traceState"),
        flags=_integer(record, "flags"),
        name=_text(record, "name"),
        kind=_enum(record, "kind", Span.SpanKind, "SPAN_KIND_"),
        start_time_unix_nano=_integer(record, "startTimeUnixNano"),
        end_time_unix_nano=_integer(record, "endTimeUnixNano"),
        dropped_attributes_count=_integer(record, "droppedAttributesCount"),
        dropped_events_count=_integer(record, "droppedEventsCount"),
        dropped_links_count=_integer(record, "droppedLinksCount"),
    )
    _add_attributes(span.attributes, record, depth)
    for event in _objects(record, "events"):
        added = span.events.add(
            time_unix_nano=_integer(event, "timeUnixNano"),
            name=_text(event, "name"),
            dropped_attributes_count=_integer(event, "droppedAttributesCount"),
        )
        _add_attributes(added.attributes, event, depth)
    for link in _objects(record, "links"):
        added = span.links.add(
            trace_id=_id(link, "traceId"),
            span_id=_id(link, "spanId"),
            trace_state=_text(link, "traceState"),
            flags=_integer(link, "flags"),
            dropped_attributes_count=_integer(link, "droppedAttributesCount"),
        )
        _add_attributes(added.attributes, link, depth)
    status = record.get("status")
    if status is not None:
        status = _object(status, "status")
        span.status.CopyFrom(
            Status(message=_text(status, "message"), code=_enum(status, "code", Status.StatusCode, "STATUS_CODE_"))
        )
    return bytes(span.SerializeToString(deterministic=True))


def _log(record: _JsonObject, depth: int) -> bytes:
    """One log record as protobuf bytes."""
    log = LogRecord(
        time_unix_nano=_integer(record, "timeUnixNano"),
        observed_time_unix_nano=_integer(record, "observedTimeUnixNano"),
        severity_number=_enum(record, "severityNumber", SeverityNumber, "SEVERITY_NUMBER_"),
        severity_text=_text(record, "severityText"),
        dropped_attributes_count=_integer(record, "droppedAttributesCount"),
        flags=_integer(record, "flags"),
        trace_id=_id(record, "traceId"),
        span_id=_id(record, "spanId"),
        event_name=_text(record, "eventName"),
    )
    if record.get("body") is not None:
        _fill_value(log.body, record["body"], depth)
    _add_attributes(log.attributes, record, depth)
    return bytes(log.SerializeToString(deterministic=True))


def _message(message_class: Any, record: Any, depth: int) -> bytes:
    """A Resource or InstrumentationScope as protobuf bytes; b"" for none."""
    if record is None:
        return b""
    record = _object(record, "resource or scope")
    message = message_class()
    if message_class is InstrumentationScope:
        message.name, message.version = _text(record, "name"), _text(record, "version")
    _add_attributes(message.attributes, record, depth)
    message.dropped_attributes_count = _integer(record, "droppedAttributesCount")
    return bytes(message.SerializeToString(deterministic=True))


def _add_attributes(attributes: Any, record: _JsonObject, depth: int) -> None:
    for pair in _objects(record, "attributes"):
        value = pair.get("value")
        added = attributes.add(key=_text(pair, "key"))
        if value is not None:
            _fill_value(added.value, value, depth)


def _fill_value(target: Any, value: Any, depth: int) -> None:
    """Sets a protobuf AnyValue from its JSON form; `depth` levels of lists and maps are left."""
    value = _object(value, "an attribute's value")
    if depth < 0:
        raise InvalidPayload("values nested too deep")
    for key, item in value.items():
        kind = _VALUE_KINDS.get(key)
        if kind is None or item is None:
            continue
        if kind == "array_value":
            target.array_value.SetInParent()
            for each in _list(_object(item, key), "values"):
                _fill_value(target.array_value.values.add(), each if each is not None else {}, depth - 1)
        elif kind == "kvlist_value":
            target.kvlist_value.SetInParent()
            for pair in _objects(_object(item, key), "values"):
                added = target.kvlist_value.values.add(key=_text(pair, "key"))
                if pair.get("value") is not None:
                    _fill_value(added.value, pair["value"], depth - 1)
        else:
            setattr(target, kind, _scalar(kind, item))


def _scalar(kind: str, item: Any) -> Any:
    if kind == "int_value":
        return _whole(item, kind)
    if kind == "double_value":
        return _FLOAT_NAMES[item] if item in _FLOAT_NAMES else float(item)
    if kind == "bytes_value":
        return _base64(item)
    if not isinstance(item, bool if kind == "bool_value" else str):
        raise InvalidPayload(f"{kind} of another type")
    return item


_VALUE_KINDS: Final[dict[str, str]] = {
    spelling: field.name
    for field in AnyValue.DESCRIPTOR.fields
    for spelling in (field.name, field.json_name)
    if field.name in ("string_value", "bool_value", "int_value", "double_value", "bytes_value")
    or field.name in ("array_value", "kvlist_value")
}


def _snake(key: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in key)


_SNAKE: Final[dict[str, str]] = {}


def _get(record: _JsonObject, key: str) -> Any:
    """A field under its JSON name or, as lenient proto3 JSON has it, under its name in the .proto."""
    value = record.get(key)
    if value is not None:
        return value
    snake = _SNAKE.get(key) or _SNAKE.setdefault(key, _snake(key))
    return record.get(snake)


def _object(value: Any, what: str) -> _JsonObject:
    if not isinstance(value, dict):
        raise InvalidPayload(f"{what} is not a JSON object")
    return value


def _list(record: _JsonObject, key: str) -> list[Any]:
    value = _get(record, key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidPayload(f"{key} is not a list")
    return value


def _objects(record: _JsonObject, key: str) -> Iterator[_JsonObject]:
    return (_object(each, f"an item of {key}") for each in _list(record, key))


def _text(record: _JsonObject, key: str) -> str:
    value = _get(record, key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidPayload(f"{key} is not text")
    return value


def _integer(record: _JsonObject, key: str) -> int:
    value = _get(record, key)
    return 0 if value is None else _whole(value, key)


def _whole(value: Any, what: str) -> int:
    """A whole number given as number or as decimal text."""
    if isinstance(value, str) and len(value) <= 24:
        try:
            return int(value)
        except ValueError:
            raise InvalidPayload(f"{what} is not a whole number") from None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidPayload(f"{what} is not a whole number")


def _enum(record: _JsonObject, key: str, enum: Any, prefix: str) -> Any:
    """An enum value given as number or by name, with or without its prefix; 0, unspecified, for an
    undefined one."""
    value = _get(record, key)
    if value is None:
        return 0
    if isinstance(value, str) and not value.isdigit():
        name = value if value.startswith(prefix) else prefix + value
        return enum.Value(name) if name in enum.keys() else 0  # noqa: SIM118 (a protobuf enum is no dict)
    number = _whole(value, key)
    return number if number in enum.values() else 0


def _id(record: _JsonObject, key: str) -> bytes:
    value = _text(record, key)
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise InvalidPayload(f"{key} is not hexadecimal") from None


def _base64(value: Any) -> bytes:
    """Standard or URL-safe base64, padded or not: proto3 JSON allows all four."""
    if not isinstance(value, str):
        raise InvalidPayload("bytesValue is not text")
    plain = value.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPayload("bytesValue is not base64") from None
