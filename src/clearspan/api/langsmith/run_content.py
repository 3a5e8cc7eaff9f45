"""What the wire record of a span says as a run: inputs, outputs, error, events and what else only it holds.

A run that came by LangSmith's API gives its own JSON back, digit by digit. A span of another dialect is told in the
same words: an object as it is, a list of chat messages under `messages`, anything else under `input` or `output`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.api.langsmith.inputs import Json, render_time
from clearspan.ingest import content
from clearspan.ingest.detail import DecodedSpan, decode_span
from clearspan.ingest.messages import Message, parse_json
from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, CODEC_RESPAN_SPAN, decode_record
from clearspan.ingest.run_detail import run_messages
from clearspan.ingest.run_document import RawFields, object_fields, run_fields
from clearspan.ingest.run_promotion import KIND_OF_RUN_TYPE, RUN_TYPE_OF_KIND, error_text
from clearspan.model.span import Span, SpanContext
from clearspan.store.port import SpanDetail

PREVIEW_CHARS: Final = 150
_EMPTY: Final = msgspec.Raw(b"{}")
_NULL: Final = b"null"
_CONTENT: Final = (*content.INPUT_KEYS, *content.OUTPUT_KEYS, content.SYSTEM_INSTRUCTIONS)
_CONTENT_STARTS: Final = (*content.FLATTENED_INPUTS, *content.FLATTENED_OUTPUTS)
_decode_exact = msgspec.json.Decoder(float_hook=Decimal).decode


class Usage(NamedTuple):
    """What a run states of tokens and cost beyond its row; costs in US dollars, exact. None and empty: not stated."""

    prompt_cost: Decimal | None = None
    completion_cost: Decimal | None = None
    prompt_token_details: Mapping[str, int] = {}
    completion_token_details: Mapping[str, int] = {}
    prompt_cost_details: Mapping[str, Decimal] = {}
    completion_cost_details: Mapping[str, Decimal] = {}


class RunContent(NamedTuple):
    """A span's record as a run. Values are JSON-like or `msgspec.Raw`."""

    name: str
    run_type: str
    inputs: Any
    outputs: Any
    extra: Any
    events: Any
    serialized: Any
    error: str | None
    dotted_order: str | None  # as the client sent it
    usage: Usage
    record: bytes

    @property
    def inputs_preview(self) -> str | None:
        """The beginning of what went in, as text."""
        return _preview(self.inputs)

    @property
    def outputs_preview(self) -> str | None:
        """The beginning of what came out, as text."""
        return _preview(self.outputs)

    @property
    def metadata(self) -> Any:
        """The metadata within `extra`."""
        if isinstance(self.extra, msgspec.Raw):
            fields = object_fields(self.extra) or {}
            return fields.get("metadata") or {}
        return self.extra.get("metadata", {})

    def messages(self) -> list[Message]:
        """The conversation of a call, asked and answered."""
        decoded = decode_span(self.record)
        return [*decoded.input_messages, *decoded.output_messages]


def read_content(detail: SpanDetail) -> RunContent:
    """What a span's record says. Cost: about 10 µs for a run, 50 µs for a span of another dialect.

    Raises:
        StoreDamaged: the record cannot be read.
    """
    wire = decode_record(detail.record)
    if wire.codec == CODEC_LANGSMITH_RUN:
        return _of_run(run_fields(wire.raw), detail)
    return _of_span(decode_span(detail.record), detail, is_respan=wire.codec == CODEC_RESPAN_SPAN)


def usd_text(amount: Decimal | None) -> str | None:
    """Dollars as the decimal text that clients parse: 1E-7 is "0.0000001"."""
    if amount is None:
        return None
    return f"{amount.normalize():f}" if amount else "0"


def _of_run(fields: RawFields, detail: SpanDetail) -> RunContent:
    said: Json = {name: msgspec.json.decode(fields[name]) for name in _PLAIN if name in fields}
    dotted = said.get("dotted_order")
    run_type = said.get("run_type")
    name = said.get("name")
    error = error_text(said)
    if error is None and detail.span.status == "error":
        error = detail.span.error_class or "error"
    return RunContent(
        name=name if isinstance(name, str) else detail.span.name,
        run_type=run_type if isinstance(run_type, str) and run_type in KIND_OF_RUN_TYPE else "chain",
        inputs=fields.get("inputs", _EMPTY),
        outputs=fields.get("outputs"),
        extra=fields.get("extra", _EMPTY),
        events=fields.get("events", []),
        serialized=fields.get("serialized"),
        error=error,
        dotted_order=dotted if isinstance(dotted, str) and dotted else None,
        usage=_usage_of(fields, detail.span),
        record=detail.record,
    )


_PLAIN: Final[tuple[str, ...]] = ("name", "run_type", "error", "dotted_order")


def _usage_of(fields: RawFields, span: Span) -> Usage:
    """The usage that a run states, where clients put it: in its outputs, else in its metadata."""
    extra = object_fields(fields.get("extra")) or {}
    for holder in (fields.get("outputs"), extra.get("metadata")):
        raw = bytes(holder) if holder is not None else b""
        if b'"usage_metadata"' not in raw:
            continue
        stated = (object_fields(raw) or {}).get("usage_metadata")
        usage = _decode_exact(stated) if stated is not None else None
        if isinstance(usage, dict):
            return Usage(
                _money(usage.get("input_cost")),
                _money(usage.get("output_cost")),
                _counts(usage.get("input_token_details")),
                _counts(usage.get("output_token_details")),
                _amounts(usage.get("input_cost_details")),
                _amounts(usage.get("output_cost_details")),
            )
    return _usage_of_row(span)


def _usage_of_row(span: Span) -> Usage:
    prompt = {"cache_read": span.cached_tokens, "cache_creation": span.cache_creation_tokens}
    completion = {"reasoning": span.reasoning_tokens}
    return Usage(
        prompt_token_details={key: count for key, count in prompt.items() if count is not None},
        completion_token_details={key: count for key, count in completion.items() if count is not None},
    )


def _counts(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {key: each for key, each in value.items() if isinstance(each, int) and not isinstance(each, bool)}


def _amounts(value: Any) -> dict[str, Decimal]:
    if not isinstance(value, dict):
        return {}
    return {key: found for key, each in value.items() if (found := _money(each)) is not None}


def _money(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and abs(amount.adjusted()) < 30 else None


def _of_span(decoded: DecodedSpan, detail: SpanDetail, *, is_respan: bool) -> RunContent:
    span = detail.span
    error = decoded.error_message
    if span.status == "error":
        # LangSmith tells a failed run by its error alone.
        error = error or span.error_class or "error"
    return RunContent(
        name=span.entity_name or span.name,
        run_type=RUN_TYPE_OF_KIND.get(span.kind, "chain"),
        inputs=_as_object(decoded.input, "input") or {},
        outputs=_as_object(decoded.output, "output"),
        extra=_extra(decoded, span, detail.context, is_respan=is_respan),
        events=[
            {"name": event.name, "time": render_time(event.time_ns), "kwargs": event.attributes}
            for event in decoded.events
        ],
        serialized=None,
        error=error if span.status == "error" else None,
        dotted_order=None,
        usage=_usage_of_row(span),
        record=detail.record,
    )


def _as_object(text: str | None, name: str) -> Json | None:
    if text is None:
        return None
    value = parse_json(text)
    if isinstance(value, dict):
        return value
    is_chat = isinstance(value, list) and value and all(isinstance(each, dict) and "role" in each for each in value)
    return {"messages" if is_chat else name: value}


def _extra(decoded: DecodedSpan, span: Span, context: SpanContext, *, is_respan: bool) -> Json:
    """Metadata under LangSmith's keys; of an OTLP span its resource and the attributes that are not content, too."""
    metadata: Json = {key: value for key, value in context.metadata if not key.startswith("_")}
    named = {
        "ls_provider": span.provider,
        "ls_model_name": span.model or span.response_model,
        "user_id": context.customer_identifier,
        "session_id": context.session_id,
        "thread_id": context.thread_id,
    }
    metadata |= {key: value for key, value in named.items() if value is not None and key not in metadata}
    if is_respan:
        return {"metadata": metadata, "runtime": {}}
    attributes = {
        key: value
        for key, value in decoded.attributes.items()
        if key not in _CONTENT and not key.startswith(_CONTENT_STARTS)
    }
    return {"metadata": metadata, "runtime": decoded.resource, "attributes": attributes}


def _preview(value: Any) -> str | None:
    """The one text that a value holds, or its JSON, cut."""
    if isinstance(value, msgspec.Raw):
        value = None if bytes(value) == _NULL else msgspec.json.decode(value)
    if value is None or value == {}:
        return None
    chat = run_messages(value, "user") if isinstance(value, dict) else []
    texts = [each["content"] for each in chat if isinstance(each.get("content"), str)]
    if texts:
        text = texts[-1]
    else:
        only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value
        text = only if isinstance(only, str) else msgspec.json.encode(only).decode()
    return text if len(text) <= PREVIEW_CHARS else f"{text[: PREVIEW_CHARS - 1]}…"
