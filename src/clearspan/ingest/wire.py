"""OTLP protobuf read by views: messages of our own that leave unread what ingest does not need.

The generated OTLP classes make a Python object for every attribute and value that is looked at; that costs
three times as much as all else. The views here declare the same field numbers but take sub-messages as
bytes: a body splits into the raw bytes of its spans in 0.3 µs a span, and an attribute is a `bytes` whose
key is a slice. The generated classes still parse every body once, for they check all of it: UTF-8, depth,
lengths.

A KeyValue is `0a <len> key 12 <len> value`, an AnyValue of text `0a <len> text`. The readers know that usual
layout and hand anything else (fields in another order, repeated, long forms) to the generated classes.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

_TEXTS_AS_BYTES: Final = frozenset({"gen_ai.prompt", "gen_ai.completion"})
_Field = descriptor_pb2.FieldDescriptorProto
_BYTES, _TEXT, _INT32 = _Field.TYPE_BYTES, _Field.TYPE_STRING, _Field.TYPE_INT32
_FIXED32, _FIXED64 = _Field.TYPE_FIXED32, _Field.TYPE_FIXED64

_VIEWS: Final[dict[str, tuple[tuple[str, int, Any, bool], ...]]] = {
    # name, field number, type (a text names another view), repeated
    "Request": (("resources", 1, "ResourceGroup", True),),  # of traces and of logs alike
    "ResourceGroup": (
        ("resource", 1, _BYTES, False),
        ("scopes", 2, "ScopeGroup", True),
        ("schema_url", 3, _BYTES, False),
    ),
    "ScopeGroup": (
        ("scope", 1, _BYTES, False),
        ("records", 2, _BYTES, True),
        ("schema_url", 3, _BYTES, False),
    ),
    "Resource": (("attributes", 1, _BYTES, True),),
    "Status": (("message", 2, _TEXT, False), ("code", 3, _INT32, False)),
    "Span": (
        ("trace_id", 1, _BYTES, False),
        ("span_id", 2, _BYTES, False),
        ("parent_span_id", 4, _BYTES, False),
        ("name", 5, _TEXT, False),
        ("start_ns", 7, _FIXED64, False),
        ("end_ns", 8, _FIXED64, False),
        ("attributes", 9, _BYTES, True),
        ("events", 11, _BYTES, True),
        ("status", 15, "Status", False),
    ),
    "SpanTexts": (("attributes", 9, _BYTES, True), ("links", 13, _BYTES, True)),
    "SpanId": (("span_id", 2, _BYTES, False),),  # no texts: readable in a span whose texts are not
    "LogSpanId": (("span_id", 10, _BYTES, False),),
    "Event": (("time_ns", 1, _FIXED64, False), ("name", 2, _TEXT, False), ("attributes", 3, _BYTES, True)),
    "Log": (
        ("time_ns", 1, _FIXED64, False),
        ("severity", 2, _INT32, False),
        ("body", 5, _BYTES, False),
        ("attributes", 6, _BYTES, True),
        ("flags", 8, _FIXED32, False),
        ("trace_id", 9, _BYTES, False),
        ("span_id", 10, _BYTES, False),
        ("observed_ns", 11, _FIXED64, False),
        ("event_name", 12, _TEXT, False),
    ),
}


def _build_views() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="clearspan/views.proto", package="clearspan.views", syntax="proto3")
    for name, fields in _VIEWS.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".clearspan.views.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"clearspan.views.{name}")) for name in _VIEWS
    }


_classes = _build_views()
RequestView: Any = _classes["Request"]
ResourceView: Any = _classes["Resource"]
SpanView: Any = _classes["Span"]
SpanTextsView: Any = _classes["SpanTexts"]
EventView: Any = _classes["Event"]
LogView: Any = _classes["Log"]
SpanIdView: Any = _classes["SpanId"]
LogSpanIdView: Any = _classes["LogSpanId"]

WireError = DecodeError
_double: Final = struct.Struct("<d").unpack_from
_FIXED_BYTES: Final = {1: 8, 5: 4}
_FIELDS_A_GROUP: Final = 4  # the group itself, its resource, its scope, its schema URL


def has_more_groups(body: bytes, limit: int) -> bool:
    """Whether a request has more than `limit` resource and scope groups, or far more fields beside them.

    A parsed group takes a hundred times its two bytes, so this looks at tags and lengths only, and stops at the limit.

    Args:
        body: an export request of traces or logs.
    Raises:
        WireError: tags or lengths that are none, or the `group` wire type, which OTLP does not have.
    Cost: 1 µs a group.
    """
    groups = fields = 0
    for number, start, end in _fields(body, 0, len(body)):
        fields += 1
        if number == 1:
            groups += 1
            for inner, _, _ in _fields(body, start, end):
                fields += 1
                groups += inner == 2
                if groups > limit or fields > limit * _FIELDS_A_GROUP:
                    return True
        if groups > limit or fields > limit * _FIELDS_A_GROUP:
            return True
    return False


def _fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field of a message; number 0 for one that is not length-delimited."""
    while at < end:
        tag, at = _varint(body, at, end)
        kind = tag & 7
        if kind == 0:
            _, stop = _varint(body, at, end)
        elif kind == 2:
            length, at = _varint(body, at, end)
            stop = at + length
        elif kind in _FIXED_BYTES:
            stop = at + _FIXED_BYTES[kind]
        else:
            raise WireError("a wire type that OTLP does not have")
        if stop > end:
            raise WireError("truncated")
        yield (tag >> 3 if kind == 2 else 0), at, stop
        at = stop


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for n, byte in enumerate(body[at : min(at + 10, end)]):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, at + n + 1
    raise WireError("truncated")


def attribute_key(attribute: bytes) -> tuple[bytes, int]:
    """A KeyValue's key and where in it the key ends; the empty key for one of over 127 bytes or in an odd layout."""
    if len(attribute) < 2 or attribute[0] != 0x0A or attribute[1] > 0x7F:
        return b"", 0
    end = 2 + attribute[1]
    return attribute[2:end], end


def any_scalar(attribute: bytes, at: int) -> str | int | float | bool | None:
    """The value of an attribute that is text, a number or a boolean; None for any other and for none.

    Args:
        attribute: a KeyValue.
        at: where its key ends. Values of up to 127 bytes in the usual layout are read in place; that is what most
            promoted attributes are. Anything else takes the long way, which costs a microsecond more.
    """
    rest = len(attribute) - at
    if 4 <= rest <= 129 and attribute[at] == 0x12 and attribute[at + 1] == rest - 2:
        tag = attribute[at + 2]
        if tag == 0x0A:
            if attribute[at + 3] == rest - 4:
                return attribute[at + 4 :].decode()
        elif tag == 0x18:
            first = attribute[at + 3]
            if rest == 4:
                return first
            if rest == 5:
                return first & 0x7F | attribute[at + 4] << 7
        elif tag == 0x21:
            if rest == 11:
                return float(_double(attribute, at + 3)[0])
        elif tag == 0x10 and rest == 4:
            return attribute[at + 3] != 0
    return _scalar_of(KeyValue.FromString(attribute).value)


def _scalar_of(value: Any) -> str | int | float | bool | None:
    which = value.WhichOneof("value")
    if which in ("string_value", "int_value", "double_value", "bool_value"):
        scalar: str | int | float | bool = getattr(value, which)
        return scalar
    return None


def any_value(attribute: bytes) -> Any:
    """The whole value of an attribute as JSON-like Python; see `json_like`."""
    return _value_of(KeyValue.FromString(attribute))


def _value_of(pair: Any) -> Any:
    # LangSmith's client up to 0.14 sends the JSON text of what went in and came out as bytes.
    if pair.key in _TEXTS_AS_BYTES and pair.value.WhichOneof("value") == "bytes_value":
        with suppress(UnicodeDecodeError):
            return pair.value.bytes_value.decode()
    return json_like(pair.value)


def json_like(value: Any) -> Any:
    """A generated AnyValue → None, bool, int, float, text, list or dict.

    Bytes become `{"bytesValue": base64}`; NaN and the infinities their names, for JSON has no other way.
    """
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [json_like(each) for each in value.array_value.values]
    if which == "kvlist_value":
        return {each.key: json_like(each.value) for each in value.kvlist_value.values}
    if which == "bytes_value":
        return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
    scalar = getattr(value, which)
    if which == "double_value" and not math.isfinite(scalar):
        return "NaN" if math.isnan(scalar) else "Infinity" if scalar > 0 else "-Infinity"
    return scalar


def attributes_of(attributes: Any) -> dict[str, Any]:
    """Repeated KeyValue bytes → a dict in wire order; of a repeated key the last value stands."""
    pairs = map(KeyValue.FromString, attributes)
    return {pair.key: _value_of(pair) for pair in pairs}
