"""Spans as Phoenix tells them: its own form, and one like OTLP's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from clearspan.api.phoenix.conventions import render_time
from clearspan.api.phoenix.globalids import span_gid
from clearspan.ingest.detail import Event
from clearspan.ingest.openinference import KIND_KEY, UNKNOWN, OpenInferenceView, openinference_view
from clearspan.store.spans import SpanRow

Json = dict[str, Any]

KINDS: Final = (
    "LLM", "CHAIN", "TOOL", "RETRIEVER", "EMBEDDING", "AGENT", "RERANKER", "GUARDRAIL", "EVALUATOR", "PROMPT",
    "DECISION", UNKNOWN,
)  # fmt: skip
"""Kinds that a filter may ask for; a span of any other word counts as UNKNOWN."""
STATUS_CODES: Final = {"unset": "UNSET", "pending": "UNSET", "ok": "OK", "error": "ERROR"}
"""Status of a span (model.span) → Phoenix's."""
OTLP_STATUS: Final = {"UNSET": 0, "OK": 1, "ERROR": 2}
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True)
class SpanView:
    """A span with its record, read when somebody asks for what only the record tells."""

    row: SpanRow

    @cached_property
    def told(self) -> OpenInferenceView:
        """What the span says. Cost: about 140 µs, once."""
        detail = self.row.detail
        return openinference_view(detail.span, detail.context, detail.record)

    @property
    def trace_id(self) -> str:
        return self.row.trace.summary.trace_id

    @property
    def span_id(self) -> str:
        return self.row.detail.span.span_id

    @property
    def kind_asked(self) -> str:
        """The kind that filters compare."""
        word = self.told.kind.upper()
        return word if word in KINDS else UNKNOWN

    @property
    def status_code(self) -> str:
        return STATUS_CODES[self.row.detail.span.status]

    @cached_property
    def name(self) -> str:
        """As sent, at most 255 characters of it."""
        return self.row.detail.span.name


def render_span(view: SpanView) -> Json:
    """A span in Phoenix's own form."""
    span, told = view.row.detail.span, view.told
    return {
        "id": span_gid(view.row.trace.project_id, view.trace_id, view.span_id),
        "name": view.name,
        "context": {"trace_id": view.trace_id, "span_id": view.span_id},
        "span_kind": told.kind,
        "parent_id": span.parent_id,
        "start_time": render_time(span.start_ns),
        "end_time": render_time(span.end_ns),
        "status_code": view.status_code,
        "status_message": told.status_message,
        "attributes": told.attributes,
        "events": [_event(each, span.start_ns) for each in told.events],
    }


def _event(event: Event, start_ns: int) -> Json:
    # An event whose own time cannot be read happened within its span.
    return {
        "name": event.name,
        "timestamp": render_time(event.time_ns or start_ns),
        "attributes": event.attributes,
    }


def render_otlp_span(view: SpanView) -> Json:
    """A span in the form that Phoenix takes for OTLP's: snake case, each value with all its kinds."""
    span, told = view.row.detail.span, view.told
    attributes = told.attributes if told.kind == UNKNOWN else {**told.attributes, KIND_KEY: told.kind}
    return {
        "attributes": _pairs(attributes),
        "dropped_attributes_count": None,
        "dropped_events_count": None,
        "dropped_links_count": None,
        "end_time_unix_nano": span.end_ns,
        "events": [_otlp_event(each, span.start_ns) for each in told.events] or None,
        "flags": None,
        "kind": "SPAN_KIND_INTERNAL",
        "links": None,
        "name": view.name,
        "parent_span_id": span.parent_id,
        "span_id": view.span_id,
        "start_time_unix_nano": span.start_ns,
        "status": {"code": OTLP_STATUS[view.status_code], "message": told.status_message or None},
        "trace_id": view.trace_id,
        "trace_state": None,
    }


def _otlp_event(event: Event, start_ns: int) -> Json:
    return {
        "attributes": _pairs(event.attributes),
        "dropped_attributes_count": None,
        "name": event.name,
        "time_unix_nano": event.time_ns or start_ns,
    }


def _pairs(attributes: Mapping[str, Any]) -> list[Json]:
    return [{"key": key, "value": _any_value(value)} for key, value in attributes.items()]


def _any_value(value: Any) -> Json:
    made: Json = dict.fromkeys(
        ("array_value", "bool_value", "bytes_value", "double_value", "int_value", "kvlist_value", "string_value")
    )
    match value:
        case None:
            pass
        case bool():
            made["bool_value"] = value
        case int() if value in _INT64:
            made["int_value"] = value
        case int() | float():
            made["double_value"] = value
        case str():
            made["string_value"] = value
        case dict():
            made["kvlist_value"] = {"values": _pairs(value)}
        case Sequence():
            made["array_value"] = {"values": [_any_value(each) for each in value]}
    return made
