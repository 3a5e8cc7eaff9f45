"""Respan's legacy ingest: a JSON list of spans, or `{"data": [spans]}` → rows and blocks.

Names have aliases (contracts: respan.md 2.7); `ALIASES` lists them, the first that is there counts. What
stands inside `respan_params` or `customer_params` counts where the span itself says nothing. The record
kept is the span's own JSON text, byte for byte; only of a body that holds lone surrogates those are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from clearspan.ingest import semconv
from clearspan.ingest.batch import Collector, DecodedRequest
from clearspan.ingest.dispatch import parse_count, parse_flag, parse_money, parse_number, parse_tags
from clearspan.ingest.failure import error_fingerprint
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.metadata import Pair, canonical_pairs, flatten, parse_object, scalar_text, unknown_pair
from clearspan.ingest.origin import source_salt
from clearspan.ingest.otlp import Decoder
from clearspan.ingest.otlp_json import decode_json
from clearspan.ingest.payload import CODEC_RESPAN_SPAN, NO_SHARED
from clearspan.ingest.promote import NAME_CHARS_MAX, Promoter, hash_seed, signed_hash
from clearspan.ingest.surrogates import without_lone_surrogates
from clearspan.model.clock import ns_from_datetime
from clearspan.model.errors import InvalidPayload
from clearspan.model.ids import normalise_id
from clearspan.model.span import Span, SpanContext

JsonObject = dict[str, Any]

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "trace": ("trace_unique_id", "trace_id"),
    "span": ("span_unique_id", "span_id"),
    "parent": ("span_parent_id", "parent_id"),
    "name": ("span_name", "name"),
    "workflow": ("span_workflow_name", "workflow_name"),
    "path": ("span_path",),
    "kind": ("log_type",),
    "end": ("timestamp", "end_time"),
    "start": ("start_time",),
    "latency": ("latency", "generation_time"),
    "ttft": ("time_to_first_token", "ttft"),
    "prompt_messages": ("prompt_messages", "messages"),
    "provider": ("provider_id", "provider"),
    "error_class": ("error_class", "error_type"),
    "environment": ("environment",),
    "session": ("session_identifier", "session_id"),
    "thread": ("thread_identifier", "thread_id"),
    "group": ("trace_group_identifier",),
}

_PARAMS: Final = ("respan_params", "keywordsai_params")
_METADATA_NAMES: Final = ("custom_identifier", "group_identifier", "evaluation_identifier")
_KNOWN: Final = frozenset(name for names in ALIASES.values() for name in names) | {
    "input", "output", "completion_message", "completion_messages", "model", "usage", "cost", "status",
    "status_code", "error_message", "log_method", "customer_identifier", "customer_email", "customer_name",
    "customer_params", "metadata", "properties", "tags", "prompt_id", "prompt_name",
    "prompt_version_number", "deployment_name", "prompt_tokens", "completion_tokens", "total_tokens",
    "total_request_tokens", "prompt_cache_hit_tokens", "prompt_cache_creation_tokens", "reasoning_tokens",
    "routing_time", "stream", "encoding_format", "warnings", "disable_log", "disable_fallback",
    "temperature", "presence_penalty", "frequency_penalty", "max_tokens", "top_p", "tools", "tool_choice",
    "response_format", "full_request", "full_response", "span_links", "storage_object_key",
    "organization_id", "unique_organization_id", "organization_key_id", "is_test", "id", "unique_id",
    *_PARAMS, *_METADATA_NAMES,
}  # fmt: skip
_NS_PER_S: Final = 10**9
_NS_MAX: Final = 2**63 - 1
_NUMBER_MAX: Final = 1e300  # a time beyond is absurd in any unit; NaN and the infinities are not below it
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


class _Wrapped(msgspec.Struct):
    data: list[msgspec.Raw]


class _Content(msgspec.Struct):
    """The parts of a span that a list page shows, left as they are until one is chosen."""

    input: msgspec.Raw = msgspec.Raw(b"null")
    output: msgspec.Raw = msgspec.Raw(b"null")
    prompt_messages: msgspec.Raw = msgspec.Raw(b"null")
    messages: msgspec.Raw = msgspec.Raw(b"null")
    completion_message: msgspec.Raw = msgspec.Raw(b"null")
    completion_messages: msgspec.Raw = msgspec.Raw(b"null")


_wrapped = msgspec.json.Decoder(_Wrapped)
_content = msgspec.json.Decoder(_Content)


def decode_respan_json(body: bytes, decoder: Decoder) -> DecodedRequest:
    """Spans of one legacy ingest request; a span that cannot be stored is rejected alone, with the reason.

    Raises:
        InvalidPayload: not JSON, or neither a list nor an object with a list under `data`.
    """
    promoter = Promoter(decoder.origin, decoder.limits, decoder.prices)
    collector = Collector(decoder.origin.project_id, decoder.limits.reasons)
    seed = hash_seed(source_salt(decoder.origin, b"", b""))
    for position, raw in enumerate(_split(body)):
        try:
            trace_id, span = _promote(raw, promoter, seed, decoder)
        except InvalidPayload as error:
            collector.reject(f"span at index {position}: {error.message}")
        else:
            collector.add_span(trace_id, span, CODEC_RESPAN_SPAN, NO_SHARED, raw)
    return collector.finish(promoter.contexts)


def _split(body: bytes) -> list[bytes]:
    try:
        if body.lstrip()[:1] == b"[":
            return [bytes(each) for each in _raw_list.decode(body)]
        return [bytes(each) for each in _wrapped.decode(body).data]
    except msgspec.ValidationError as error:
        raise InvalidPayload('the body must be a list of spans or {"data": [spans]}') from error
    except (msgspec.DecodeError, RecursionError) as error:
        mended = without_lone_surrogates(body)
        if mended is not body:
            return _split(mended)
        raise InvalidPayload(f"the body is not JSON: {str(error) or type(error).__name__}") from error


def parse_span(raw: bytes) -> JsonObject:
    """The JSON object of one span, integers exact; InvalidPayload for anything else."""
    value = decode_json(raw)
    if not isinstance(value, dict):
        raise InvalidPayload("not a JSON object")
    return value


def input_output(raw: bytes) -> tuple[str | None, str | None]:
    """What went in and what came out, as text: text as it is, anything else as its JSON."""
    found = _content.decode(raw)
    given_in = (found.input, found.prompt_messages, found.messages)
    given_out = (found.output, found.completion_message, found.completion_messages)
    return _first_text(given_in), _first_text(given_out)


def _first_text(raws: tuple[msgspec.Raw, ...]) -> str | None:
    for raw in raws:
        text = bytes(raw)
        if text not in (b"null", b'""'):
            return msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()
    return None


def asked(span: JsonObject) -> Any:
    """Whatever holds the conversation before the call."""
    return _get(span, "prompt_messages") or span.get("input")


def answered(span: JsonObject) -> Any:
    """Whatever holds the answer."""
    return span.get("completion_message") or span.get("completion_messages") or span.get("output")


def status(span: JsonObject) -> str:
    """ok, error or unset, from `status`, else from the code and the error message."""
    word = str(span.get("status") or "").lower()
    if word in ("error", "failed", "failure"):
        return "error"
    code = parse_count(span.get("status_code"))
    if word in ("success", "ok", "completed"):
        return "ok"
    if span.get("error_message") or (code is not None and code >= 400):
        return "error"
    return "ok" if code is not None and code >= 100 else "unset"


def times(span: JsonObject, otherwise_ns: int = 0) -> tuple[int, int]:
    """Start and end in Unix nanoseconds; a missing one follows from the other and the latency.

    Raises:
        InvalidPayload: a time that cannot be read, or one outside 1970 to 2262.
    """
    start, end = parse_time(_get(span, "start")), parse_time(_get(span, "end"))
    latency = parse_number(_get(span, "latency"))
    length = round(latency * _NS_PER_S) if latency is not None and latency < 10**9 else 0
    if start is None:
        start = max(0, end - length) if end is not None else otherwise_ns
    if end is None:
        end = start + length
    return start, max(start, end)


def parse_time(value: Any) -> int | None:
    """An ISO 8601 text (naive: UTC) or a Unix number in s, ms, µs or ns, told apart by size → Unix
    nanoseconds."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            ns = ns_from_datetime(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            raise InvalidPayload("a time that is not ISO 8601") from None
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _NUMBER_MAX:
        scale = next((unit for bound, unit in ((1e11, 9), (1e14, 6), (1e17, 3)) if abs(value) < bound), 0)
        ns = round(Decimal(repr(value)) * 10**scale)  # a float's shortest decimal form is what was written
    else:
        raise InvalidPayload("a time that is neither text nor a number")
    if not 0 <= ns <= _NS_MAX:
        raise InvalidPayload("a time outside the years 1970 to 2262")
    return ns


def _promote(raw: bytes, promoter: Promoter, seed: int, decoder: Decoder) -> tuple[str, Span]:
    span = parse_span(raw)
    _check_limits(span, raw, decoder.limits)
    for name in _PARAMS:
        if isinstance(span.get(name), dict):
            span = {**span[name], **span}
    trace_id, span_id = _id(span, "trace"), _id(span, "span")
    if _get(span, "start") is None and _get(span, "end") is None and decoder.received_ns is None:
        raise InvalidPayload("neither start_time nor timestamp")
    start_ns, end_ns = times(span, decoder.received_ns or 0)
    usage = _usage(span)
    model, provider = _text(span.get("model")), _text(_get(span, "provider"))
    stated = parse_money(span.get("cost"))
    cost, cost_source = (stated, "source") if stated is not None else _priced(decoder, provider, model, start_ns, usage)
    outcome = status(span)
    error_class = _text(_get(span, "error_class")) if outcome == "error" else None
    kind_word = _text(_get(span, "kind"))
    return trace_id, Span(
        span_id=span_id,
        parent_id=_id(span, "parent") if _get(span, "parent") not in (None, "") else None,
        name=(_text(_get(span, "name")) or "")[:NAME_CHARS_MAX],
        entity_name=None,
        workflow_name=_text(_get(span, "workflow")),
        path=_text(_get(span, "path")),
        kind="span" if kind_word is None else semconv.parse_kind(kind_word) or "custom",
        log_method=_text(span.get("log_method")),
        start_ns=start_ns,
        end_ns=end_ns,
        status=outcome,
        status_code=parse_count(span.get("status_code")),
        error_class=error_class,
        error_fingerprint=(
            error_fingerprint(error_class, _text(span.get("error_message"))) if outcome == "error" else None
        ),
        model=model,
        response_model=None,
        provider=provider,
        deployment_name=_text(span.get("deployment_name")),
        prompt_id=_text(span.get("prompt_id")),
        prompt_name=_text(span.get("prompt_name")),
        prompt_version=_text(span.get("prompt_version_number")),
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
        cached_tokens=usage["cached_tokens"],
        cache_creation_tokens=usage["cache_creation_tokens"],
        reasoning_tokens=usage["reasoning_tokens"],
        usage_repeats=False,
        cost_pico=cost,
        cost_source=cost_source,
        ttft_s=parse_number(_get(span, "ttft")),
        routing_time_s=parse_number(span.get("routing_time")),
        is_streaming=parse_flag(span.get("stream")),
        context_key=promoter.context_key(_context(span, decoder)),
        content_hash=signed_hash(raw, seed),
    )


def _check_limits(span: JsonObject, raw: bytes, limits: IngestLimits) -> None:
    if len(span) > limits.attributes_per_span:
        raise InvalidPayload(f"more than {limits.attributes_per_span} fields")
    if len(raw) > limits.attribute_bytes and any(
        len(msgspec.json.encode(each)) > limits.attribute_bytes for each in span.values()
    ):
        raise InvalidPayload(f"a field of more than {limits.attribute_bytes} bytes")
    level: list[Any] = [span]
    for _ in range(limits.depth + 1):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return
    raise InvalidPayload("values nested too deep")


def _priced(
    decoder: Decoder, provider: str | None, model: str | None, start_ns: int, usage: Mapping[str, int | None]
) -> tuple[int | None, str | None]:
    if decoder.prices is None or model is None:
        return None, None
    if usage["prompt_tokens"] is None and usage["completion_tokens"] is None:
        return None, None
    return decoder.prices.price(
        provider,
        model,
        start_ns,
        prompt_tokens=usage["prompt_tokens"] or 0,
        completion_tokens=usage["completion_tokens"] or 0,
        cached_tokens=usage["cached_tokens"] or 0,
        cache_creation_tokens=usage["cache_creation_tokens"] or 0,
    )


def _usage(span: JsonObject) -> dict[str, int | None]:
    """Token counts from the span's own fields, else from its `usage` object (OpenAI's or Anthropic's
    names)."""
    usage = span["usage"] if isinstance(span.get("usage"), dict) else {}
    prompt = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    completion = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    prompt = prompt if isinstance(prompt, dict) else {}
    completion = completion if isinstance(completion, dict) else {}

    def count(*values: Any) -> int | None:
        return next((found for value in values if (found := parse_count(value)) is not None), None)

    return {
        "prompt_tokens": count(span.get("prompt_tokens"), usage.get("prompt_tokens"), usage.get("input_tokens")),
        "completion_tokens": count(
            span.get("completion_tokens"), usage.get("completion_tokens"), usage.get("output_tokens")
        ),
        "total_tokens": count(span.get("total_request_tokens"), span.get("total_tokens"), usage.get("total_tokens")),
        "cached_tokens": count(
            span.get("prompt_cache_hit_tokens"), prompt.get("cached_tokens"), usage.get("cache_read_input_tokens")
        ),
        "cache_creation_tokens": count(
            span.get("prompt_cache_creation_tokens"), usage.get("cache_creation_input_tokens")
        ),
        "reasoning_tokens": count(span.get("reasoning_tokens"), completion.get("reasoning_tokens")),
    }


def _context(span: JsonObject, decoder: Decoder) -> SpanContext:
    customer = span["customer_params"] if isinstance(span.get("customer_params"), dict) else {}
    group, thread = _text(_get(span, "group")), _text(_get(span, "thread"))
    return SpanContext(
        customer_identifier=_text(span.get("customer_identifier")) or _text(customer.get("customer_identifier")),
        customer_email=_text(span.get("customer_email")) or _text(customer.get("email")),
        customer_name=_text(span.get("customer_name")) or _text(customer.get("name")),
        session_id=group or _text(_get(span, "session")) or thread,
        thread_id=thread,
        group_id=group,
        environment=decoder.origin.environment or _text(_get(span, "environment")),
        key_id=decoder.origin.key_id,
        tags=parse_tags(span.get("tags")) or (),
        metadata=canonical_pairs(_pairs(span)),
    )


def _pairs(span: JsonObject) -> list[Pair]:
    pairs: list[Pair] = []
    for name in ("metadata", "properties"):
        value = span.get(name)
        found = parse_object(value) if isinstance(value, str) else value
        if isinstance(found, dict):
            pairs.extend(flatten(found))
    for name in _METADATA_NAMES:
        if (text := _text(span.get(name))) is not None:
            pairs.append((name, text))
    for key, value in span.items():
        if key not in _KNOWN and isinstance(value, str | int | float | bool) and (pair := unknown_pair(key, value)):
            pairs.append(pair)
    return pairs


def _get(span: JsonObject, field: str) -> Any:
    return next((span[name] for name in ALIASES[field] if span.get(name) is not None), None)


def _text(value: Any) -> str | None:
    """A scalar as text within TEXT_CHARS_MAX; None for nothing, "" and objects."""
    if not isinstance(value, str | int | float) or value == "":
        return None
    return scalar_text(value)[: semconv.TEXT_CHARS_MAX]


def _id(span: JsonObject, field: str) -> str:
    value = _get(span, field)
    name = ALIASES[field][0]
    if value is None or value == "":
        raise InvalidPayload(f"{name} is missing")
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InvalidPayload(f"{name} is not text")
    try:
        return normalise_id(str(value))
    except ValueError as error:
        raise InvalidPayload(f"{name}: {error}") from None
