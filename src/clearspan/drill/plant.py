"""What the drill sends: traces with a needle in every field a client can write, over every wire the server takes.

Bodies are made here and nowhere stored, so that the same ones can be sent again after the deletion.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from clearspan.drill.needles import SPAN_ID_BYTES, TRACE_ID_BYTES, Maker
from clearspan.model.clock import datetime_from_ns

WIRES = ("otlp-protobuf", "otlp-json", "respan-json")
SECOND_NS = 1_000_000_000
TRACES_A_REQUEST = 20
RESPAN_INGEST = "/api/v1/traces/ingest"
_PROTOBUF, _JSON = "application/x-protobuf", "application/json"

Json = dict[str, Any]
IdText = Callable[[bytes], str]


class Post(NamedTuple):
    """One request of a client."""

    path: str
    content_type: str
    body: bytes
    records: int  # spans or log records in it


@dataclass(frozen=True, slots=True)
class PlantedTrace:
    """One trace with needles in it."""

    number: int
    wire: str
    trace_id: str  # as every interface shows it
    customer: str
    spans: list[Json] = field(repr=False)  # one entry of the wire's own list
    logs: list[Json] = field(repr=False)


class Shared(NamedTuple):
    """The metadata pair that all traces of one kind carry; itself made of needles. A filter finds them by it."""

    key: str
    value: str


def shared_pair(maker: Maker) -> Shared:
    return Shared(maker.word(-1, "metadata key (shared)"), maker.text(-1, "metadata value (shared)"))


def plant(maker: Maker, shared: Shared, count: int, now_ns: int) -> list[PlantedTrace]:
    """Traces of the last minutes, the wires in turn."""
    makers = {"otlp-protobuf": _otlp_trace, "otlp-json": _otlp_trace, "respan-json": _respan_trace}
    planted = []
    for number in range(count):
        wire = WIRES[number % len(WIRES)]
        start_ns = now_ns - (600 + number) * SECOND_NS
        planted.append(makers[wire](maker, shared, number, wire, start_ns))
    return planted


def late_spans(maker: Maker, planted: Sequence[PlantedTrace], now_ns: int) -> list[PlantedTrace]:
    """A new span for each planted trace, with new needles: what a client that had queued it would send too late."""
    late = []
    maker.when = "late: "
    for trace in planted:
        span = trace.spans[0]
        if trace.wire == "respan-json":
            fresh = _respan_span(maker, trace.number, trace.trace_id, now_ns)
            late.append(PlantedTrace(trace.number, trace.wire, trace.trace_id, trace.customer, [fresh], []))
            continue
        wire_span = _span_head(maker, trace.number, bytes.fromhex(trace.trace_id), _id_text(trace.wire), now_ns)
        scopes = [{"scope": span["scopeSpans"][0]["scope"], "spans": [wire_span]}]
        resource_spans = [{"resource": span["resource"], "scopeSpans": scopes}]
        late.append(PlantedTrace(trace.number, trace.wire, trace.trace_id, trace.customer, resource_spans, []))
    return late


def posts(planted: Sequence[PlantedTrace]) -> Iterator[Post]:
    """The requests that carry them."""
    for wire in WIRES:
        mine = [trace for trace in planted if trace.wire == wire]
        for at in range(0, len(mine), TRACES_A_REQUEST):
            some = mine[at : at + TRACES_A_REQUEST]
            spans, logs = (
                [each for trace in some for each in trace.spans],
                [log for trace in some for log in trace.logs],
            )
            if wire == "respan-json":
                yield Post(RESPAN_INGEST, _JSON, json.dumps(spans).encode(), len(spans))
                continue
            yield _export("/v1/traces", wire, {"resourceSpans": spans}, ExportTraceServiceRequest)
            if logs:
                yield _export("/v1/logs", wire, {"resourceLogs": logs}, ExportLogsServiceRequest)


def refused_records(post: Post, body: bytes) -> int:
    """How many of a request's records its answer says were not taken."""
    if post.content_type == _PROTOBUF:
        # The log service's answer has the same shape: field 1 holds a count and a reason.
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    said = json.loads(body or b"{}")
    if post.path == RESPAN_INGEST:
        return post.records - int(said["message"].split()[2])  # "Successfully ingested N spans…"
    partial = said.get("partialSuccess") or {}
    return int(partial.get("rejectedSpans") or partial.get("rejectedLogRecords") or 0)


def _export(path: str, wire: str, said: Json, message: Callable[[], Any]) -> Post:
    records = sum(_records(scope) for group in next(iter(said.values())) for scope in _scopes(group))
    if wire == "otlp-json":
        return Post(path, _JSON, json.dumps(said).encode(), records)  # CJK escaped: \uXXXX
    return Post(path, _PROTOBUF, ParseDict(said, message()).SerializeToString(), records)


def _scopes(group: Json) -> list[Json]:
    found: list[Json] = group.get("scopeSpans") or group["scopeLogs"]
    return found


def _records(scope: Json) -> int:
    return len(scope.get("spans") or scope["logRecords"])


def _id_text(wire: str) -> IdText:
    """OTLP's own JSON writes ids in hex; the JSON that protobuf's tools read writes all bytes in base64."""
    return bytes.hex if wire == "otlp-json" else lambda value: base64.b64encode(value).decode()


def _otlp_trace(maker: Maker, shared: Shared, number: int, wire: str, start_ns: int) -> PlantedTrace:
    text, id_text = _texts(maker, number), _id_text(wire)
    trace_id = maker.id(number, "trace id", TRACE_ID_BYTES)
    customer = text("customer id")
    resource = {
        "attributes": [
            _pair("service.name", text("resource attribute")),
            _pair(maker.word(number, "resource attribute key"), text("resource attribute")),
            _pair("deployment.environment.name", text("environment of the resource")),
        ]
    }
    scope = {"name": text("scope name"), "version": text("scope version"), "attributes": [_pair("s", text("scope"))]}
    root = _span_head(maker, number, trace_id, id_text, start_ns)
    root["attributes"] += _identity(maker, number, customer, shared) + _call(maker, number)
    root["events"] = [
        {"timeUnixNano": str(start_ns), "name": text("event name"), "attributes": [_pair("e", text("event attribute"))]}
    ]
    root["links"] = [_link(maker, number, id_text)]
    child = _span_head(maker, number, trace_id, id_text, start_ns + SECOND_NS)
    child |= {"parentSpanId": root["spanId"], "status": {"code": 2, "message": text("status message")}}
    child["attributes"].append(_pair("user.id", customer))
    child["events"] = [_exception(maker, number, start_ns + SECOND_NS)]
    spans = {
        "resource": resource,
        "scopeSpans": [{"scope": scope, "spans": [root, child], "schemaUrl": text("schema address")}],
    }
    logs = _log(maker, number, root, start_ns)
    return PlantedTrace(number, wire, trace_id.hex(), customer, [spans], [logs])


def _span_head(maker: Maker, number: int, trace_id: bytes, id_text: IdText, start_ns: int) -> Json:
    """A span with ids, name, state and an attribute of each type that can hold a needle."""
    return {
        "traceId": id_text(trace_id),
        "spanId": id_text(maker.id(number, "span id", SPAN_ID_BYTES)),
        "name": maker.text(number, "span name"),
        "kind": 3,
        "traceState": f"v={maker.word(number, 'trace state')}",
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + SECOND_NS),
        "attributes": [
            _pair(maker.word(number, "attribute key"), maker.text(number, "attribute text")),
            {
                "key": "n.bytes",
                "value": {"bytesValue": base64.b64encode(maker.raw(number, "attribute bytes")).decode()},
            },
            {"key": "n.list", "value": {"arrayValue": {"values": [{"stringValue": maker.text(number, "list item")}]}}},
            {
                "key": "n.map",
                "value": {
                    "kvlistValue": {"values": [_pair(maker.word(number, "map key"), maker.text(number, "map value"))]}
                },
            },
        ],
    }


def _identity(maker: Maker, number: int, customer: str, shared: Shared) -> list[Json]:
    """Whose trace it is."""
    text = _texts(maker, number)
    tags = {"arrayValue": {"values": [{"stringValue": text("tag")}]}}
    return [
        _pair("user.id", customer),
        _pair("user.email", text("customer e-mail")),
        _pair("user.name", text("customer name")),
        _pair("session.id", text("session")),
        _pair("respan.threads.thread_identifier", text("thread")),
        _pair("respan.trace.trace_group_identifier", text("group")),
        _pair("respan.environment", text("environment")),
        {"key": "tag.tags", "value": tags},
        _pair(f"respan.metadata.{maker.word(number, 'metadata key')}", text("metadata value")),
        _pair(f"respan.metadata.{shared.key}", shared.value),
    ]


def _call(maker: Maker, number: int) -> list[Json]:
    """What was asked of a model and what it said."""
    text = _texts(maker, number)
    call = {"type": "tool_call", "id": text("tool call id"), "name": text("tool"), "arguments": {"q": text("argument")}}
    asked = [{"role": "user", "parts": [{"type": "text", "content": text("input")}]}]
    said = [{"role": "assistant", "parts": [{"type": "text", "content": text("output")}, call]}]
    return [
        _pair("gen_ai.operation.name", "chat"),
        _pair("gen_ai.request.model", text("model")),
        _pair("gen_ai.response.model", text("model of the answer")),
        _pair("gen_ai.provider.name", text("provider")),
        _pair("gen_ai.prompt.name", text("prompt name")),
        _pair("respan.prompt.prompt_id", text("prompt id")),
        _pair("deployment_name", text("deployment")),
        _pair("traceloop.workflow.name", text("workflow")),
        _pair("traceloop.entity.name", text("entity")),
        _pair("traceloop.entity.path", text("path")),
        _pair("gen_ai.system_instructions", json.dumps([{"type": "text", "content": text("system prompt")}])),
        # JSON within JSON within a body: CJK is escaped in it, and escaped again around it.
        _pair("gen_ai.input.messages", json.dumps(asked)),
        _pair("gen_ai.output.messages", json.dumps(said, ensure_ascii=False)),
    ]


def _exception(maker: Maker, number: int, at_ns: int) -> Json:
    told = [
        _pair("exception.type", maker.text(number, "error class")),
        _pair("exception.message", maker.text(number, "error text")),
        _pair("exception.stacktrace", f"File x, line 1\n{maker.text(number, 'stack')}"),
    ]
    return {"timeUnixNano": str(at_ns), "name": "exception", "attributes": told}


def _link(maker: Maker, number: int, id_text: IdText) -> Json:
    return {
        "traceId": id_text(maker.id(number, "linked trace id", TRACE_ID_BYTES)),
        "spanId": id_text(maker.id(number, "linked span id", SPAN_ID_BYTES)),
        "attributes": [_pair("l", maker.text(number, "link attribute"))],
    }


def _log(maker: Maker, number: int, span: Json, at_ns: int) -> Json:
    """Two log records of a span: a text, and a map."""
    text = _texts(maker, number)
    body = {"kvlistValue": {"values": [_pair(maker.word(number, "log body key"), text("log body"))]}}
    both = {"timeUnixNano": str(at_ns), "traceId": span["traceId"], "spanId": span["spanId"]}
    records = [
        both | {"severityText": text("severity"), "body": {"stringValue": text("log body")}},
        both | {"eventName": text("log event"), "body": body, "attributes": [_pair("a", text("log attribute"))]},
    ]
    resource = {"attributes": [_pair("service.name", text("resource of a log"))]}
    return {"resource": resource, "scopeLogs": [{"scope": {"name": text("scope of a log")}, "logRecords": records}]}


def _respan_trace(maker: Maker, shared: Shared, number: int, wire: str, start_ns: int) -> PlantedTrace:
    text = _texts(maker, number)
    trace_id = maker.word(number, "trace id")
    root = _respan_span(maker, number, trace_id, start_ns)
    customer = text("customer id")
    root |= {
        "customer_identifier": customer,
        "customer_email": text("customer e-mail"),
        "customer_name": text("customer name"),
        "session_identifier": text("session"),
        "thread_identifier": text("thread"),
        "trace_group_identifier": text("group"),
        "environment": text("environment"),
        "tags": [text("tag")],
        "metadata": {maker.word(number, "metadata key"): text("metadata value"), shared.key: shared.value},
        "properties": {"p": {"inner": text("property")}},
        "custom_identifier": text("custom identifier"),
        "model": text("model"),
        "provider_id": text("provider"),
        "deployment_name": text("deployment"),
        "prompt_id": text("prompt id"),
        "prompt_name": text("prompt name"),
        "span_workflow_name": text("workflow"),
        "span_path": text("path"),
        "log_method": text("log method"),
        "full_request": {"messages": [{"role": "user", "content": text("full request")}]},
        "full_response": {"choices": [text("full response")]},
    }
    child = _respan_span(maker, number, trace_id, start_ns + SECOND_NS)
    child |= {
        "span_parent_id": root["span_unique_id"],
        "customer_identifier": customer,
        "status": "error",
        "error_class": text("error class"),
        "error_message": text("error text"),
        "warnings": text("warning"),
    }
    return PlantedTrace(number, wire, trace_id, customer, [root, child], [])


def _respan_span(maker: Maker, number: int, trace_id: str, start_ns: int) -> Json:
    return {
        "trace_unique_id": trace_id,
        "span_unique_id": maker.word(number, "span id"),
        "span_name": maker.text(number, "span name"),
        "log_type": "chat",
        "start_time": datetime_from_ns(start_ns).isoformat(),
        "timestamp": datetime_from_ns(start_ns + SECOND_NS).isoformat(),
        "input": json.dumps([{"role": "user", "content": maker.text(number, "input")}]),
        "output": maker.text(number, "output"),
        maker.word(number, "attribute key"): maker.text(number, "attribute text"),
    }


def _texts(maker: Maker, number: int) -> Callable[[str], str]:
    """Field → a new needle of that trace as text."""
    return partial(maker.text, number)


def _pair(key: str, value: str) -> Json:
    return {"key": key, "value": {"stringValue": value}}
