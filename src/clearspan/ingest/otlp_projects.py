"""Which project each part of an OTLP request belongs to: told by attributes, of a span or of its resource.

A request that belongs to one project as a whole, as every exporter's but a collector's, stays as it is, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from clearspan.ingest.limits import DEFAULT_LIMITS
from clearspan.ingest.otlp_json import decode_json
from clearspan.ingest.wire import RequestView, ResourceView, WireError, any_scalar, attribute_key, has_more_groups
from clearspan.model.errors import InvalidPayload


class Naming(NamedTuple):
    """The attributes by which a dialect names projects."""

    name: str
    uuid: str | None = None
    is_of_resource: bool = False  # else of each span

    @property
    def common(self) -> bytes:
        """What every body holds that names a project."""
        other = self.name if self.uuid is None else self.uuid
        length = next((n for n, pair in enumerate(zip(self.name, other, strict=False)) if pair[0] != pair[1]), None)
        return self.name[:length].encode()


LANGSMITH: Final = Naming("langsmith.trace.session_name", "langsmith.trace.session_id")
OPENINFERENCE: Final = Naming("openinference.project.name", is_of_resource=True)
"""What Phoenix's `register` sets."""


class ProjectKey(NamedTuple):
    """How a span names its project: by UUID, which counts first, or by name; neither: it does not."""

    uuid: str | None = None
    name: str | None = None


UNNAMED: Final = ProjectKey()


class ProjectPart(NamedTuple):
    """The spans or log records of one project as a request of their own."""

    key: ProjectKey
    body: bytes
    records: int  # how many; 0: not counted


def split_protobuf(body: bytes, naming: Naming, groups_max: int = DEFAULT_LIMITS.groups) -> list[ProjectPart]:
    """An export request of traces (by resource: also of logs) by project.

    One that cannot be read as a whole, or has more groups than it may, stays whole and names none: whoever decodes it
    says what is wrong with it.
    Cost: a search when nothing names a project; by resource, a split of the body into spans; by span, a parse of it.
    """
    whole = [ProjectPart(UNNAMED, body, 0)]
    if naming.common not in body:
        return whole
    try:
        if has_more_groups(body, groups_max):
            return whole
        parts = _by_resource(body, naming) if naming.is_of_resource else _by_span(body, naming)
    except WireError:
        return whole
    if len(parts) < 2:
        return [ProjectPart(key, body, count) for key, (_, count) in parts.items()] or whole
    return [ProjectPart(key, part.SerializeToString(), count) for key, (part, count) in parts.items()]


def split_json(body: bytes, naming: Naming, groups_max: int = DEFAULT_LIMITS.groups) -> list[ProjectPart]:
    """As split_protobuf, for OTLP/JSON."""
    whole = [ProjectPart(UNNAMED, body, 0)]
    if naming.common not in body:
        return whole
    try:
        request = decode_json(body)
    except InvalidPayload:
        return whole
    is_logs = isinstance(request, dict) and ("resourceLogs" in request or "resource_logs" in request)
    names = ("resourceLogs", "resource_logs") if is_logs else ("resourceSpans", "resource_spans")
    parts: dict[ProjectKey, list[Any]] = {}
    counts: dict[ProjectKey, int] = {}
    for group in _list(request, *names):
        for key, part, count in _json_parts(group, naming, is_logs=is_logs):
            parts.setdefault(key, []).append(part)
            counts[key] = counts.get(key, 0) + count
    if len(counts) < 2:
        return [ProjectPart(key, body, count) for key, count in counts.items()] or whole
    return [ProjectPart(key, json.dumps({names[0]: groups}).encode(), counts[key]) for key, groups in parts.items()]


def _by_resource(body: bytes, naming: Naming) -> dict[ProjectKey, tuple[Any, int]]:
    parts: dict[ProjectKey, tuple[Any, int]] = {}
    for group in RequestView.FromString(body).resources:
        key = _resource_key(group.resource, naming)
        part, count = parts.get(key) or (RequestView(), 0)
        part.resources.append(group)
        parts[key] = part, count + sum(len(scope.records) for scope in group.scopes)
    return parts


def _resource_key(resource: bytes, naming: Naming) -> ProjectKey:
    wanted, name = naming.name.encode(), None
    try:
        for raw in ResourceView.FromString(resource).attributes:
            key, at = attribute_key(raw)
            if key == wanted:
                name = any_scalar(raw, at)
            elif not key and (pair := KeyValue.FromString(raw)).key == naming.name:
                name = pair.value.string_value
    except (WireError, UnicodeDecodeError):
        return UNNAMED  # its spans are rejected, and told why, by whoever decodes them
    return ProjectKey(None, _text(name))


def _by_span(body: bytes, naming: Naming) -> dict[ProjectKey, tuple[Any, int]]:
    request = ExportTraceServiceRequest.FromString(body)
    parts: dict[ProjectKey, ExportTraceServiceRequest] = {}
    counts: dict[ProjectKey, int] = {}
    for group in request.resource_spans:
        for scope in group.scope_spans:
            targets: dict[ProjectKey, Any] = {}
            for span in scope.spans:
                key = _key(((each.key, each.value.string_value) for each in span.attributes), naming)
                counts[key] = counts.get(key, 0) + 1
                target = targets.get(key)
                if target is None:
                    part = parts.setdefault(key, ExportTraceServiceRequest())
                    outer = part.resource_spans.add(resource=group.resource, schema_url=group.schema_url)
                    target = targets[key] = outer.scope_spans.add(scope=scope.scope, schema_url=scope.schema_url)
                target.spans.append(span)
    return {key: (part, counts[key]) for key, part in parts.items()}


def _json_parts(
    group: Mapping[str, Any], naming: Naming, *, is_logs: bool
) -> Iterator[tuple[ProjectKey, Mapping[str, Any], int]]:
    """(project, a part of the group, how many records) of one resource's group."""
    scope_names = ("scopeLogs", "scope_logs") if is_logs else ("scopeSpans", "scope_spans")
    record_names = ("logRecords", "log_records") if is_logs else ("spans", "spans")
    if naming.is_of_resource:
        count = sum(len(_list(scope, *record_names)) for scope in _list(group, *scope_names))
        yield _key(_json_attributes(group.get("resource")), naming), group, count
        return
    outer = {name: value for name, value in group.items() if name not in scope_names}
    for scope in _list(group, *scope_names):
        spans_of: dict[ProjectKey, list[Any]] = {}
        for span in _list(scope, *record_names):
            spans_of.setdefault(_key(_json_attributes(span), naming), []).append(span)
        inner = {name: value for name, value in scope.items() if name not in record_names}
        for key, spans in spans_of.items():
            yield key, outer | {scope_names[0]: [inner | {record_names[0]: spans}]}, len(spans)


def _key(attributes: Iterable[tuple[Any, Any]], naming: Naming) -> ProjectKey:
    uuid = name = None
    for key, value in attributes:
        if key == naming.name:
            name = value
        elif key is not None and key == naming.uuid:
            uuid = value
    return ProjectKey(_text(uuid), _text(name))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _list(value: Any, *names: str) -> list[Any]:
    if not isinstance(value, dict):
        return []
    found = next((value[name] for name in names if name in value), None)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _json_attributes(holder: Any) -> Iterator[tuple[Any, Any]]:
    for each in _list(holder, "attributes"):
        value = each.get("value")
        if isinstance(value, dict):
            yield each.get("key"), value.get("stringValue", value.get("string_value"))
