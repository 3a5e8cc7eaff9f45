"""Raw OTLP spans and log records → the narrow rows of the model."""

from __future__ import annotations

import ast
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from clearspan.ingest import semconv
from clearspan.ingest.dispatch import (
    SLOTS,
    UNRANKED,
    Effects,
    WirePair,
    decode_pairs,
    decode_tags,
    parse_count,
    parse_money,
    read_attributes,
)
from clearspan.ingest.failure import error_fingerprint, is_hidden_failure, specific_class
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.metadata import canonical_pairs, parse_object
from clearspan.ingest.origin import Origin, source_salt
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.wire import EventView, LogView, ResourceView, SpanView, attributes_of
from clearspan.model.errors import InvalidPayload
from clearspan.model.span import LogRecord, Span, SpanContext

NAME_CHARS_MAX: Final = 255
_NS_MAX: Final = 2**63 - 1
_PICO_MAX: Final = 2**63 - 1
_STATUS: Final = ("unset", "ok", "error")

# Slots by name, once: attribute access on a module is slower than a global.
_KIND, _ENTITY, _WORKFLOW, _PATH = (SLOTS[n] for n in ("kind", "entity_name", "workflow_name", "path"))
_LOG_METHOD, _OPERATION, _FUNCTION, _MSG = (SLOTS[n] for n in ("log_method", "operation_id", "function_id", "message"))
_RUN_NAME, _TOOL, _TEMPLATE = SLOTS["run_name"], SLOTS["tool_name"], SLOTS["template_variables"]
_MODEL, _ANSWERED, _INVOCATION, _PROVIDER = (SLOTS[n] for n in ("model", "response_model", "invocation", "provider"))
_DEPLOYMENT, _PROMPT_ID, _PROMPT_NAME, _PROMPT_VERSION, _PROMPT = (
    SLOTS[n] for n in ("deployment_name", "prompt_id", "prompt_name", "prompt_version", "prompt")
)
_IN, _OUT, _TOTAL, _CACHED, _CREATED, _REASONING = (
    SLOTS[n]
    for n in (
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached_tokens",
        "cache_creation_tokens",
        "reasoning_tokens",
    )
)
_USAGE_JSON, _IN_DETAILS, _OUT_DETAILS = (SLOTS[n] for n in ("usage_json", "input_details", "output_details"))
_COST, _COST_IN, _COST_OUT = (SLOTS[n] for n in ("cost", "cost_prompt", "cost_completion"))
_TTFT_S, _TTFT_MS, _ROUTING, _STREAMING = (SLOTS[n] for n in ("ttft_s", "ttft_ms", "routing_time_s", "is_streaming"))
_STATUS_CODE, _ERROR_CLASS, _ERROR_MESSAGE = (SLOTS[n] for n in ("status_code", "error_class", "error_message"))
_TRACEABLE = SLOTS["is_traceable"]
_CUSTOMER, _EMAIL, _CUSTOMER_NAME = (SLOTS[n] for n in ("customer_identifier", "customer_email", "customer_name"))
_SESSION, _THREAD, _GROUP, _ENVIRONMENT, _TAGS = (
    SLOTS[n] for n in ("session_id", "thread_id", "group_id", "environment", "tags")
)
_AGGREGATED_IN: Final = len(semconv.BY_NAME["prompt_tokens"].keys) - 1
_AGGREGATED_OUT: Final = len(semconv.BY_NAME["completion_tokens"].keys) - 1

_INVOCATIONS_MAX: Final = 256

_FIRST_TOKEN_EVENTS: Final = frozenset({
    b"First Token Stream Event", b"gen_ai.content.completion.chunk", b"ai.stream.firstChunk",
})  # fmt: skip


class Source(NamedTuple):
    """What all records of one scope share."""

    seed: int  # of content hashes: stands for origin, resource and scope
    environment: str | None  # of the resource


class Promoter:
    """Promotes the records of one request; holds the contexts they name.

    One instance per request: spans of a request repeat their contexts, so each is canonicalised once, and
    nothing of one request's content stays in memory for the next.
    """

    def __init__(self, origin: Origin, limits: IngestLimits, prices: PriceBook | None) -> None:
        self.origin = origin
        self.limits = limits
        self.prices = prices
        self.contexts: dict[int, SpanContext] = {}
        self._context_keys: dict[tuple[Any, ...], int] = {}
        self._effects = Effects()
        self._trace_ids: dict[bytes, str] = {}
        self._invocations: dict[str, tuple[str | None, bool | None]] = {}
        # An event takes two bytes at least, and so does an attribute: a record up to this size breaks no limit.
        self._harmless_bytes = min(limits.attribute_bytes, 2 * limits.events_per_span, 2 * limits.attributes_per_span)

    def source(self, resource: bytes, scope: bytes) -> Source:
        """The shared part of a scope's records. `resource` must be a valid message."""
        slots, _, _ = read_attributes(ResourceView.FromString(resource).attributes, self._effects)
        return Source(hash_seed(source_salt(self.origin, resource, scope)), slots[_ENVIRONMENT])

    def span(self, raw: bytes, source: Source) -> tuple[str, Span]:
        """(trace_id, row) of one span.

        Args:
            raw: a valid Span message.
        Raises:
            InvalidPayload: with the reason why this span cannot be stored.
        """
        view = SpanView.FromString(raw)
        trace_id = self._trace_ids.get(view.trace_id) or self._trace_id(view.trace_id)
        span_id = hex_id(view.span_id, 8, "span id")
        if len(raw) > self._harmless_bytes:
            self._check_limits(view, raw)
        start_ns, end_ns = view.start_ns, view.end_ns
        if not 0 < start_ns <= end_ns <= _NS_MAX:
            start_ns, end_ns = _times(start_ns, end_ns)
        slots, ranks, pairs = read_attributes(view.attributes, self._effects)
        events = view.events
        first_token_ns, exception = _scan_events(events) if events else (None, None)
        status, error_class, fingerprint = _outcome(view.status, slots, ranks, exception)
        self._fill(slots)
        operation = slots[_OPERATION]
        repeats = False if slots[_IN] is None and slots[_OUT] is None else _repeats(slots, ranks)
        provider = _provider(slots[_PROVIDER], operation)
        model = slots[_MODEL] or slots[_ANSWERED]
        cost_pico, cost_source = self._cost(slots, repeats, provider, model, start_ns)
        name, parent = view.name, view.parent_span_id
        # Not Span(…): taking 35 arguments apart would cost as much as all the conversions here.
        return trace_id, Span._make((
            span_id,
            parent.hex() if parent.strip(b"\0") else None,
            name if len(name) <= NAME_CHARS_MAX else name[:NAME_CHARS_MAX],
            _entity_name(slots, name),
            slots[_WORKFLOW],
            slots[_PATH],
            slots[_KIND] or _unsaid_kind(slots),
            slots[_LOG_METHOD],
            start_ns,
            end_ns,
            status,
            slots[_STATUS_CODE],
            error_class,
            fingerprint,
            model,
            slots[_ANSWERED],
            provider,
            slots[_DEPLOYMENT],
            slots[_PROMPT_ID],
            slots[_PROMPT_NAME],
            slots[_PROMPT_VERSION],
            slots[_IN],
            slots[_OUT],
            slots[_TOTAL],
            slots[_CACHED],
            slots[_CREATED],
            slots[_REASONING],
            repeats,
            cost_pico,
            cost_source,
            _ttft(slots, start_ns, first_token_ns),
            slots[_ROUTING],
            _streaming(slots, operation),
            self._context_key(slots, pairs, source),
            signed_hash(raw, source.seed),
        ))  # fmt: skip

    def log(self, raw: bytes, source: Source) -> tuple[str, LogRecord]:
        """(trace_id, row) of one log record; raises as `span` does, also for a record outside any trace."""
        view = LogView.FromString(raw)
        trace_id = self._trace_id(view.trace_id)
        if len(raw) > self._harmless_bytes:
            self._check_limits(view, raw)
        slots, _, pairs = read_attributes(view.attributes, self._effects)
        row = LogRecord(
            log_hash=signed_hash(raw, source.seed),
            span_id=view.span_id.hex() if any(view.span_id) else None,
            time_ns=_in_range(view.time_ns or view.observed_ns),
            event_name=(view.event_name or _event_name(view.attributes))[:NAME_CHARS_MAX] or None,
            severity=view.severity or None,
            context_key=self._context_key(slots, pairs, source),
        )
        return trace_id, row

    def _trace_id(self, wire_id: bytes) -> str:
        text = self._trace_ids[wire_id] = hex_id(wire_id, 16, "trace id")
        return text

    def _fill(self, slots: list[Any]) -> None:
        """What the attributes that hold several things say, where the others say nothing."""
        if slots[_INVOCATION] is not None:
            self._fill_from_invocation(slots)
        if slots[_USAGE_JSON] is not None or slots[_IN_DETAILS] is not None or slots[_OUT_DETAILS] is not None:
            _fill_from_details(slots)
        if slots[_PROMPT] is not None:
            _fill_from_prompt(slots)

    def _fill_from_invocation(self, slots: list[Any]) -> None:
        """OpenInference keeps the request's settings as one JSON text; the calls of an agent repeat it."""
        text = slots[_INVOCATION]
        found = self._invocations.get(text)
        if found is None:
            found = _read_invocation(text)
            if len(self._invocations) < _INVOCATIONS_MAX:
                self._invocations[text] = found
        model, is_streaming = found
        if slots[_MODEL] is None:
            slots[_MODEL] = model
        if slots[_STREAMING] is None:
            slots[_STREAMING] = is_streaming

    def context_key(self, context: SpanContext) -> int:
        """Registers a context and returns its key."""
        key = context_key(context)
        self.contexts[key] = context
        return key

    def _context_key(self, slots: list[Any], pairs: list[WirePair], source: Source) -> int:
        parts = (
            slots[_CUSTOMER],
            slots[_EMAIL],
            slots[_CUSTOMER_NAME],
            slots[_GROUP] or slots[_SESSION] or slots[_THREAD],
            slots[_THREAD],
            slots[_GROUP],
            self.origin.environment or slots[_ENVIRONMENT] or source.environment,
            self.origin.key_id,
            slots[_TAGS],
            tuple(pairs),
        )
        key = self._context_keys.get(parts)
        if key is None:
            tags = decode_tags(slots[_TAGS]) if slots[_TAGS] is not None else ()
            key = self.context_key(SpanContext(*parts[:-2], tags, canonical_pairs(decode_pairs(pairs))))
            self._context_keys[parts] = key
        return key

    def _check_limits(self, view: Any, raw: bytes) -> None:
        limits = self.limits
        if len(view.attributes) > limits.attributes_per_span:
            raise InvalidPayload(f"more than {limits.attributes_per_span} attributes")
        events = getattr(view, "events", ())
        if len(events) > limits.events_per_span:
            raise InvalidPayload(f"more than {limits.events_per_span} events")
        if any(len(each) > limits.attribute_bytes for each in (*view.attributes, *events, *_body(view))):
            raise InvalidPayload(f"an attribute, event or body of more than {limits.attribute_bytes} bytes")

    def _cost(
        self, slots: list[Any], repeats: bool, provider: str | None, model: str | None, start_ns: int
    ) -> tuple[int | None, str | None]:
        """Pico-dollars and where they come from: the source's own figure, else a price list."""
        cost = slots[_COST]
        if cost is None and (slots[_COST_IN] is not None or slots[_COST_OUT] is not None):
            cost = min((slots[_COST_IN] or 0) + (slots[_COST_OUT] or 0), _PICO_MAX)
        if cost is not None:
            return cost, "source"
        if self.prices is None or repeats or model is None or (slots[_IN] is None and slots[_OUT] is None):
            return None, None
        return self.prices.price(
            provider,
            slots[_ANSWERED] or model,
            start_ns,
            prompt_tokens=slots[_IN] or 0,
            completion_tokens=slots[_OUT] or 0,
            cached_tokens=slots[_CACHED] or 0,
            cache_creation_tokens=slots[_CREATED] or 0,
            asked_model=model,
        )


_encode_context = msgspec.msgpack.Encoder().encode


def context_key(context: SpanContext) -> int:
    """The key under which a context is stored: equal contexts have equal ones."""
    digest = blake2b(_encode_context(context), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def hash_seed(salt: bytes) -> int:
    """The seed of content hashes from `source_salt`."""
    return int.from_bytes(salt[:8], "big")


def signed_hash(raw: bytes, seed: int) -> int:
    """64 bits of XXH3 over a record, seeded with what it shares with others, as SQLite's signed integer.

    It tells contents of one span apart, and who can send one can send the other: nothing is gained by a collision,
    so a cryptographic hash (5 µs a span) would be wasted.
    """
    value = xxh3_64_intdigest(raw, seed)
    return value - (1 << 64) if value >> 63 else value


def hex_id(value: bytes, size: int, what: str) -> str:
    """An OTLP id in lower-case hex.

    Raises:
        InvalidPayload: missing, of another size, or all zeros, which OTLP calls invalid.
    """
    if len(value) != size:
        raise InvalidPayload(f"missing {what}" if not value else f"{what} of {len(value)} bytes, not {size}")
    text = value.hex()
    if text.strip("0"):
        return text
    raise InvalidPayload(f"all-zero {what}")


def _times(start_ns: int, end_ns: int) -> tuple[int, int]:
    """Start and end with the rules for missing and reversed ones: a missing one is the other."""
    start = _in_range(start_ns or end_ns)
    return start, max(start, _in_range(end_ns))


def _in_range(ns: int) -> int:
    if ns > _NS_MAX:
        raise InvalidPayload("a time after the year 2262")
    return ns


def _body(view: Any) -> tuple[bytes, ...]:
    return (view.body,) if hasattr(view, "body") else ()


def _unsaid_kind(slots: list[Any]) -> str:
    """The kind of a span that has no word for it."""
    if slots[_TOOL] is not None:
        return "tool"
    return "prompt" if slots[_TEMPLATE] is not None else "span"


def _scan_events(events: Any) -> tuple[int | None, bytes | None]:
    """(time of the first token, the last exception event's bytes).

    Names are read in place: a stream of a thousand chunk events costs a millisecond this way and six
    through views.
    """
    first_token_ns: int | None = None
    exception: bytes | None = None
    for event in events:
        at = 9 if event[:1] == b"\x09" else 0  # field 1, the time, fixed64
        if len(event) < at + 2 or event[at] != 0x12:
            continue
        name = event[at + 2 : at + 2 + event[at + 1]]
        if name == b"exception":
            exception = event
        elif first_token_ns is None and at and name in _FIRST_TOKEN_EVENTS:
            first_token_ns = int.from_bytes(event[1:9], "little")
    return first_token_ns, exception


def _outcome(
    status: Any, slots: list[Any], ranks: list[int], exception: bytes | None
) -> tuple[str, str | None, str | None]:
    """(status, error class, fingerprint). An exception event alone is no failure: it may have been caught."""
    code = status.code
    wire = _STATUS[code] if 0 <= code <= 2 else "unset"
    if wire == "ok":
        if not is_hidden_failure(slots[_TRACEABLE], exception is not None):
            return wire, None, None
        wire = "error"
    says_error = slots[_ERROR_CLASS] or slots[_ERROR_MESSAGE]
    if wire == "unset" and (says_error or (ranks[_STATUS_CODE] == 0 and slots[_STATUS_CODE] >= 400)):
        wire = "error"
    if wire != "error":
        return wire, None, None
    details = attributes_of(EventView.FromString(exception).attributes) if exception is not None else {}
    message = _text(details.get("exception.message")) or status.message or slots[_ERROR_MESSAGE]
    error_class = specific_class(slots[_ERROR_CLASS] or _text(details.get("exception.type")), message)
    return wire, error_class, error_fingerprint(error_class, message)


def _text(value: object) -> str | None:
    return value[: semconv.TEXT_CHARS_MAX] if isinstance(value, str) and value else None


def _entity_name(slots: list[Any], name: str) -> str | None:
    """What people call the span where its own name is generic: an unfilled template, a Vercel operation."""
    if slots[_ENTITY] is not None:
        return _text(slots[_ENTITY])
    if slots[_RUN_NAME] is not None and slots[_RUN_NAME] != name:
        return _text(slots[_RUN_NAME])
    if slots[_MSG] is not None and "{" in name:
        return _text(slots[_MSG])
    operation = slots[_OPERATION]
    if operation is not None and slots[_KIND] == "chain":
        return _text(slots[_FUNCTION])
    return None


def _provider(provider: str | None, operation: str | None) -> str | None:
    """Vercel writes `openai.chat` for OpenAI's chat API; LangSmith names itself on spans that call no
    model."""
    if provider is None or provider == "langchain":
        return None
    return provider.partition(".")[0] if operation is not None else provider


def _repeats(slots: list[Any], ranks: list[int]) -> bool:
    """Whether the tokens are said to be those of other spans: Vercel's outer operations, aggregated names
    only."""
    if slots[_OPERATION] is not None:
        return slots[_KIND] == "chain" and slots[_IN] is not None
    if ranks[_IN] != UNRANKED:
        return ranks[_IN] == _AGGREGATED_IN
    return ranks[_OUT] == _AGGREGATED_OUT


def _ttft(slots: list[Any], start_ns: int, first_token_ns: int | None) -> float | None:
    """Seconds to the first token: as said, else from the start to the first event that carries one."""
    if slots[_TTFT_S] is not None:
        return float(slots[_TTFT_S])
    if slots[_TTFT_MS] is not None:
        return float(slots[_TTFT_MS]) / 1000
    if first_token_ns is not None and first_token_ns >= start_ns:
        return (first_token_ns - start_ns) / 1e9
    return None


def _streaming(slots: list[Any], operation: str | None) -> bool | None:
    if slots[_STREAMING] is None and operation is not None and slots[_KIND] != "tool":
        return "stream" in operation.lower()
    flag: bool | None = slots[_STREAMING]
    return flag


def _read_invocation(text: str) -> tuple[str | None, bool | None]:
    """(model, whether it streams) of a request's settings."""
    asked = parse_object(text) or {}
    is_streaming = asked.get("stream")
    model = _text(asked.get("model") or asked.get("model_name"))
    return model, is_streaming if isinstance(is_streaming, bool) else None


def _fill_from_prompt(slots: list[Any]) -> None:
    """Respan's prompt reference is one JSON text."""
    prompt = parse_object(slots[_PROMPT])
    if prompt is None:
        return
    for slot, key in ((_PROMPT_ID, "prompt_id"), (_PROMPT_NAME, "prompt_name"), (_PROMPT_VERSION, "version")):
        if slots[slot] is None and isinstance(value := prompt.get(key), str | int):
            slots[slot] = str(value)[: semconv.TEXT_CHARS_MAX]


def _fill_from_details(slots: list[Any]) -> None:
    """LangSmith's tokens and costs: proper JSON in its metadata, else token details as the repr of a Python dict."""
    usage = parse_object(slots[_USAGE_JSON]) if slots[_USAGE_JSON] is not None else None
    usage = usage or {}
    inputs = usage.get("input_token_details") or _python_counts(slots[_IN_DETAILS])
    outputs = usage.get("output_token_details") or _python_counts(slots[_OUT_DETAILS])
    inputs = inputs if isinstance(inputs, dict) else {}
    outputs = outputs if isinstance(outputs, dict) else {}
    for slot, value in (
        (_IN, usage.get("input_tokens")),
        (_OUT, usage.get("output_tokens")),
        (_TOTAL, usage.get("total_tokens")),
        (_CACHED, inputs.get("cache_read")),
        (_CREATED, inputs.get("cache_creation")),
        (_REASONING, outputs.get("reasoning")),
    ):
        if slots[slot] is None:
            slots[slot] = parse_count(value)
    for slot, key in ((_COST, "total_cost"), (_COST_IN, "input_cost"), (_COST_OUT, "output_cost")):
        if slots[slot] is None:
            slots[slot] = parse_money(usage.get(key))


@lru_cache(maxsize=1024)
def _python_counts(text: str | None) -> dict[str, Any]:
    """`{'cache_read': 1024}` → dict; {} for anything that is not a small literal dict. Never evaluates."""
    if text is None or len(text) > 1000 or not text.startswith("{"):
        return {}
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _event_name(attributes: Any) -> str:
    """Older senders put the event's name into an attribute."""
    value = attributes_of(attributes).get("event.name")
    return value if isinstance(value, str) else ""
