"""Which LangSmith project each span of an OTLP request belongs to: told by attributes of the span itself.

A request whose spans all belong to one project, as every exporter's but a collector's, stays as it is, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clearspan.ingest.otlp_json import decode_json
from clearspan.ingest.wire import WireError
from clearspan.model.errors import InvalidPayload

NAME_ATTRIBUTE: Final = "langsmith.trace.session_name"
ID_ATTRIBUTE: Final = "langsmith.trace.session_id"

_COMMON: Final = b"langsmith.trace.session_"


class SessionKey(NamedTuple):
    """How a span names its project: by UUID, which counts first, or by name; neither: it does not."""

    uuid: str | None = None
    name: str | None = None


class ProjectPart(NamedTuple):
    """The spans of one project as a request of their own."""

    session: SessionKey
    body: bytes
    span_count: int


def split_protobuf(body: bytes) -> list[ProjectPart]:
    """An ExportTraceServiceRequest by project; one that cannot be read as a whole stays whole and names none.

    Cost: a search when no span names a project, else a parse of the body.
    """
    if _COMMON not in body:
        return [ProjectPart(SessionKey(), body, 0)]
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except WireError:
        return [ProjectPart(SessionKey(), body, 0)]
    parts: dict[SessionKey, ExportTraceServiceRequest] = {}
    counts: dict[SessionKey, int] = {}
    for group in request.resource_spans:
        for scope in group.scope_spans:
            targets: dict[SessionKey, Any] = {}
            for span in scope.spans:
                key = _key((each.key, each.value.string_value) for each in span.attributes)
                counts[key] = counts.get(key, 0) + 1
                target = targets.get(key)
                if target is None:
                    part = parts.setdefault(key, ExportTraceServiceRequest())
                    outer = part.resource_spans.add(resource=group.resource, schema_url=group.schema_url)
                    target = targets[key] = outer.scope_spans.add(scope=scope.scope, schema_url=scope.schema_url)
                target.spans.append(span)
    if len(counts) < 2:
        return [ProjectPart(next(iter(counts), SessionKey()), body, sum(counts.values()))]
    return [ProjectPart(key, part.SerializeToString(), counts[key]) for key, part in parts.items()]


def split_json(body: bytes) -> list[ProjectPart]:
    """As split_protobuf, for OTLP/JSON."""
    if _COMMON not in body:
        return [ProjectPart(SessionKey(), body, 0)]
    try:
        request = decode_json(body)
    except InvalidPayload:
        return [ProjectPart(SessionKey(), body, 0)]
    parts: dict[SessionKey, list[Any]] = {}
    counts: dict[SessionKey, int] = {}
    for group in _list(request, "resourceSpans", "resource_spans"):
        for scope in _list(group, "scopeSpans", "scope_spans"):
            spans_of: dict[SessionKey, list[Any]] = {}
            for span in _list(scope, "spans", "spans"):
                spans_of.setdefault(_key(_json_attributes(span)), []).append(span)
            for key, spans in spans_of.items():
                counts[key] = counts.get(key, 0) + len(spans)
                inner = {name: value for name, value in scope.items() if name != "spans"} | {"spans": spans}
                outer = {name: value for name, value in group.items() if name not in ("scopeSpans", "scope_spans")}
                parts.setdefault(key, []).append(outer | {"scopeSpans": [inner]})
    if len(counts) < 2:
        return [ProjectPart(next(iter(counts), SessionKey()), body, sum(counts.values()))]
    return [
        ProjectPart(key, json.dumps({"resourceSpans": groups}).encode(), counts[key]) for key, groups in parts.items()
    ]


def _key(attributes: Iterator[tuple[Any, Any]]) -> SessionKey:
    uuid = name = None
    for key, value in attributes:
        if key == NAME_ATTRIBUTE:
            name = value
        elif key == ID_ATTRIBUTE:
            uuid = value
    return SessionKey(_text(uuid), _text(name))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _list(value: Any, *names: str) -> list[Any]:
    if not isinstance(value, dict):
        return []
    found = next((value[name] for name in names if name in value), None)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _json_attributes(span: Any) -> Iterator[tuple[Any, Any]]:
    for each in _list(span, "attributes"):
        value = each.get("value")
        if isinstance(value, dict):
            yield each.get("key"), value.get("stringValue", value.get("string_value"))
