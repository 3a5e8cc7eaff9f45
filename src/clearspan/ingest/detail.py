"""A stored record decoded for reading: everything the wire said, and what it means.

Records are `payload.record_bytes`. Nothing here is stored: when a family changes its names, reading changes
and the payload does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as WireLog
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from clearspan.ingest import content, respan
from clearspan.ingest.dispatch import parse_flag
from clearspan.ingest.failure import is_hidden_failure
from clearspan.ingest.messages import MESSAGE_EVENTS, Message, from_events, from_span_events, parse_messages
from clearspan.ingest.metadata import json_text
from clearspan.ingest.payload import (
    CODEC_LANGSMITH_RUN,
    CODEC_OTLP_LOG,
    CODEC_RESPAN_SPAN,
    WireRecord,
    decode_record,
)
from clearspan.ingest.run_detail import decoded_view, run_input_output, run_messages, run_texts, run_tools
from clearspan.ingest.run_promotion import error_text, given_times, run_status
from clearspan.ingest.text import readable
from clearspan.ingest.wire import ResourceView, SpanTextsView, SpanView, any_value, attributes_of, json_like
from clearspan.model.errors import InvalidPayload

_STATUS: Final = ("unset", "ok", "error")
_EVENT_MARKS: Final = tuple(name.encode() for name in MESSAGE_EVENTS)
_OPERATION_DETAILS: Final = "gen_ai.client.inference.operation.details"


class Event(NamedTuple):
    """Something that happened within a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


class Link(NamedTuple):
    """A span of any trace that this one points at."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class DecodedSpan(NamedTuple):
    """One span, whole. Values of attributes are JSON-like: see wire.json_like."""

    name: str
    span_kind: str  # OTLP's own: internal, client, server, …; "" when not OTLP
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    status: str  # as of the row: see model.span
    status_message: str | None
    error_message: str | None
    resource: dict[str, Any]
    scope_name: str
    scope_version: str
    schema_url: str
    input: str | None  # text as sent, anything else as JSON
    output: str | None
    input_messages: list[Message]
    output_messages: list[Message]
    tools: list[Any]  # definitions offered to the model


class DecodedLog(NamedTuple):
    """One log record, whole."""

    event_name: str
    time_ns: int
    severity_text: str
    body: Any
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope_name: str


def decode_span(record: bytes, log_records: Sequence[bytes] = ()) -> DecodedSpan:
    """The whole of a span.

    Args:
        record: of the span.
        log_records: of the log records that name the span, in any order: older OTel GenAI keeps messages
        there.
    Raises:
        StoreDamaged: the record cannot be read.
    """
    wire = decode_record(record)
    if wire.codec == CODEC_RESPAN_SPAN:
        return _decode_respan(wire)
    if wire.codec == CODEC_LANGSMITH_RUN:
        return _decode_run(wire)
    span = WireSpan.FromString(wire.raw)
    attributes = attributes_of(SpanView.FromString(wire.raw).attributes)
    events = tuple(Event(each.name, each.time_unix_nano, _plain(each.attributes)) for each in span.events)
    asked, answered = content.input_messages(attributes), content.output_messages(attributes)
    given_in, given_out = _from_attributes(attributes)
    if not asked or not answered or given_in is None or given_out is None:
        for told in (_from_span_events(events), _from_logs(log_records)):
            asked, answered = asked or told[0], answered or told[1]
            given_in = given_in or _messages_text(told[0])
            given_out = given_out or _messages_text(told[1])
    scope = InstrumentationScope.FromString(wire.scope)
    return DecodedSpan(
        name=span.name,
        span_kind=WireSpan.SpanKind.Name(span.kind)[len("SPAN_KIND_") :].lower() if 0 <= span.kind <= 5 else "",
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes,
        events=events,
        links=tuple(Link(each.trace_id.hex(), each.span_id.hex(), _plain(each.attributes)) for each in span.links),
        status=_otlp_status(span.status.code, attributes, events),
        status_message=span.status.message or None,
        error_message=_error_message(attributes, events, span.status.message),
        resource=attributes_of(ResourceView.FromString(wire.resource).attributes),
        scope_name=scope.name,
        scope_version=scope.version,
        schema_url=wire.schema_url,
        input=given_in,
        output=given_out,
        input_messages=asked,
        output_messages=answered,
        tools=content.tool_definitions(attributes),
    )


def decode_log(record: bytes) -> DecodedLog:
    """The whole of a log record."""
    wire = decode_record(record)
    log = WireLog.FromString(wire.raw)
    attributes = _plain(log.attributes)
    return DecodedLog(
        event_name=log.event_name or str(attributes.get("event.name") or ""),
        time_ns=log.time_unix_nano or log.observed_time_unix_nano,
        severity_text=log.severity_text,
        body=json_like(log.body),
        attributes=attributes,
        resource=attributes_of(ResourceView.FromString(wire.resource).attributes),
        scope_name=InstrumentationScope.FromString(wire.scope).name,
    )


def input_output(record: bytes, log_records: Sequence[bytes] = ()) -> tuple[str | None, str | None]:
    """What went into a span and what came out, as text, for list pages; decodes no more than that."""
    given_in, given_out, _ = input_output_links(record, log_records)
    return given_in, given_out


def input_output_links(record: bytes, log_records: Sequence[bytes] = ()) -> tuple[str | None, str | None, bool]:
    """As `input_output`, and whether the span has links, for the spans of a trace. Cost: about 10 µs."""
    wire = decode_record(record)
    if wire.codec == CODEC_RESPAN_SPAN:
        return *respan.input_output(wire.raw), False
    if wire.codec == CODEC_LANGSMITH_RUN:
        return *run_input_output(wire.raw), False
    span = SpanTextsView.FromString(wire.raw)
    attributes = list(span.attributes)
    keyed = _by_key(attributes)
    if keyed is None:
        given_in, given_out = _from_attributes(attributes_of(attributes))
    else:
        given_in, given_out = _first(_INPUTS, keyed), _first(_OUTPUTS, keyed)
        if (given_in is None or given_out is None) and any(key.startswith(_PIECES) for key in keyed):
            given_in, given_out = _from_attributes(attributes_of(attributes))
    if given_in is None or given_out is None:
        events = _message_events(wire.raw) if any(mark in wire.raw for mark in _EVENT_MARKS) else ()
        for asked, answered in (_from_span_events(events), _from_logs(log_records)):
            given_in, given_out = given_in or _messages_text(asked), given_out or _messages_text(answered)
    return given_in, given_out, bool(span.links)


def _by_key(attributes: Sequence[bytes]) -> dict[bytes, bytes] | None:
    """Attributes by key, read in place; None if some have an odd layout, a key of over 127 bytes or none."""
    try:
        keyed = {each[2 : 2 + each[1]]: each for each in attributes if each[0] == 0x0A and each[1] < 0x80}
    except IndexError:
        return None
    # Of a repeated key the last value stands, which either way of reading has.
    return keyed if len(keyed) == len(attributes) and b"" not in keyed else None


def searchable_text(record: bytes) -> str:
    """All the text of a record that a person may look for, one value a line: what a text search means.

    Escapes inside JSON texts are resolved, base64 is cut; keys of attributes and numbers are not text.
    """
    wire = decode_record(record)
    return text_of(wire.codec, wire.raw)


def text_of(codec: int, raw: bytes) -> str:
    """`searchable_text` of a record's raw bytes: its resource and scope are not text."""
    if codec == CODEC_RESPAN_SPAN:
        return "\n".join(readable(respan.parse_span(raw)))
    if codec == CODEC_LANGSMITH_RUN:
        return "\n".join(run_texts(raw))
    if codec == CODEC_OTLP_LOG:
        log = WireLog.FromString(raw)
        return "\n".join((*readable(json_like(log.body)), *_texts_of(log.attributes)))
    span = WireSpan.FromString(raw)
    lines = [span.name, *_texts_of(span.attributes)]
    for event in span.events:
        lines.extend(_texts_of(event.attributes))
    lines.extend(readable(span.status.message))
    return "\n".join(lines)


_INPUTS: Final = tuple(key.encode() for key in content.INPUT_KEYS)
_OUTPUTS: Final = tuple(key.encode() for key in content.OUTPUT_KEYS)
_PIECES: Final = tuple(
    key.encode() for key in (*content.FLATTENED_INPUTS, *content.FLATTENED_OUTPUTS, content.SYSTEM_INSTRUCTIONS)
)


def _first(keys: Sequence[bytes], keyed: Mapping[bytes, bytes]) -> str | None:
    for key in keys:
        if key in keyed:
            attribute = keyed[key]
            text = _long_text(attribute, 2 + len(key)) or content.value_text(any_value(attribute))
            if text:
                return text
    return None


def _long_text(attribute: bytes, at: int) -> str | None:
    """The text of 128 to 16,379 bytes that the value of an attribute in the usual layout is, read in place.

    Args:
        at: where its key ends.
    """
    rest = len(attribute) - at - 6  # 12, its length in two bytes, 0a, its length in two bytes
    if not 128 <= rest <= 0x3FFF - 3 or attribute[at] != 0x12 or attribute[at + 3] != 0x0A:
        return None
    outer, inner = rest + 3, rest
    if attribute[at + 1] != outer & 0x7F | 0x80 or attribute[at + 2] != outer >> 7:
        return None
    if attribute[at + 4] != inner & 0x7F | 0x80 or attribute[at + 5] != inner >> 7:
        return None
    return attribute[at + 6 :].decode()


def _from_attributes(attributes: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """As input_output, from decoded attributes."""
    given = []
    for keys, read in (
        (content.INPUT_KEYS, content.input_messages),
        (content.OUTPUT_KEYS, content.output_messages),
    ):
        text = next((text for key in keys if (text := content.value_text(attributes.get(key)))), None)
        given.append(text or _messages_text(read(attributes)))
    return given[0], given[1]


def _message_events(raw: bytes) -> list[Event]:
    span = WireSpan.FromString(raw)
    return [
        Event(each.name, each.time_unix_nano, _plain(each.attributes))
        for each in span.events
        if each.name in MESSAGE_EVENTS
    ]


def _from_span_events(events: Sequence[Event]) -> tuple[list[Message], list[Message]]:
    """(asked, answered) of a span's own events."""
    told = sorted((each for each in events if each.name in MESSAGE_EVENTS), key=lambda each: each.time_ns)
    return from_span_events((each.name, each.attributes) for each in told)


def _from_logs(log_records: Sequence[bytes]) -> tuple[list[Message], list[Message]]:
    """(asked, answered) of a span's log records: events with a message each, or one with all of them."""
    logs = sorted((decode_log(record) for record in log_records), key=lambda log: log.time_ns)
    asked, answered = from_events((log.event_name, log.body) for log in logs)
    for log in logs:
        if log.event_name == _OPERATION_DETAILS:
            asked = asked or parse_messages(log.attributes.get("gen_ai.input.messages"))
            answered = answered or parse_messages(log.attributes.get("gen_ai.output.messages"), "assistant")
    return asked, answered


def _messages_text(messages: list[Message]) -> str | None:
    return json_text(messages) if messages else None


def _otlp_status(code: int, attributes: Mapping[str, Any], events: Sequence[Event]) -> str:
    status = _STATUS[code] if 0 <= code <= 2 else "unset"
    is_traceable = parse_flag(attributes.get("langsmith.traceable"))
    has_failed = status == "ok" and is_hidden_failure(is_traceable, any(each.name == "exception" for each in events))
    return "error" if has_failed else status


def _error_message(attributes: Mapping[str, Any], events: Sequence[Event], status_message: str) -> str | None:
    for event in reversed(events):
        if event.name == "exception" and (message := event.attributes.get("exception.message")):
            return content.value_text(message)
    return status_message or content.value_text(attributes.get("error.message"))


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: json_like(each.value) for each in attributes}


def _texts_of(attributes: Any) -> list[str]:
    return [line for each in attributes for line in _texts_of_value(each.value)]


def _texts_of_value(value: AnyValue) -> list[str]:
    return list(readable(value.string_value or json_like(value)))


def _decode_respan(wire: WireRecord) -> DecodedSpan:
    span = respan.parse_span(wire.raw)
    start_ns, end_ns = respan.times(span)
    given_in, given_out = respan.input_output(wire.raw)
    error = content.value_text(span.get("error_message"))
    return DecodedSpan(
        name=content.value_text(span.get("span_name")) or "",
        span_kind="",
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=span,
        events=(),
        links=(),
        status=respan.status(span),
        status_message=None,
        error_message=error,
        resource={},
        scope_name="",
        scope_version="",
        schema_url="",
        input=given_in,
        output=given_out,
        input_messages=parse_messages(respan.asked(span)),
        output_messages=parse_messages(respan.answered(span), "assistant"),
        tools=span["tools"] if isinstance(span.get("tools"), list) else [],
    )


def _decode_run(wire: WireRecord) -> DecodedSpan:
    run = decoded_view(wire.raw)
    start_ns, end_ns = given_times(run)
    start_ns = start_ns if start_ns is not None else end_ns or 0
    given_in, given_out = run_input_output(wire.raw)
    extra = run["extra"] if isinstance(run.get("extra"), dict) else {}
    return DecodedSpan(
        name=content.value_text(run.get("name")) or "",
        span_kind="",
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns or 0),
        attributes=run,
        events=tuple(_run_events(run.get("events"))),
        links=(),
        status=run_status(run),
        status_message=None,
        error_message=error_text(run),
        resource=extra["runtime"] if isinstance(extra.get("runtime"), dict) else {},
        scope_name="",
        scope_version="",
        schema_url="",
        input=given_in,
        output=given_out,
        input_messages=run_messages(run.get("inputs"), "user"),
        output_messages=run_messages(run.get("outputs"), "assistant"),
        tools=run_tools(run),
    )


def _run_events(events: Any) -> Iterator[Event]:
    """A run's events; one whose time cannot be read has time 0, for what it says still counts."""
    for each in events if isinstance(events, list) else ():
        if not isinstance(each, dict):
            continue
        try:
            time_ns = respan.parse_time(each.get("time")) or 0
        except InvalidPayload:
            time_ns = 0
        attributes = {key: value for key, value in each.items() if key not in ("name", "time")}
        yield Event(content.value_text(each.get("name")) or "", time_ns, attributes)
