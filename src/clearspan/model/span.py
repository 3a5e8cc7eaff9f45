"""What is stored of a span: a narrow row that filters and sums read, and the wire bytes it came in.

`Span`, `SpanContext` and `LogRecord` are named tuples, not dataclasses: they are made 20,000 times a second and go
to SQLite and between processes as they are.
"""

from __future__ import annotations

from typing import NamedTuple

LLM_KINDS = frozenset({"chat", "completion", "response", "generation", "embedding", "text"})
"""Kinds that count as a call to a model (contracts: `llm_call_count`)."""

KINDS = LLM_KINDS | {
    "workflow", "agent", "task", "tool", "chain", "retriever", "reranker", "guardrail", "evaluator", "prompt",
    "parser", "handoff", "function", "speech", "transcription", "score", "batch", "custom", "span", "other", "unknown",
}  # fmt: skip
"""The closed set of `Span.kind`. The wire's other words are mapped to it by ingest/semconv.py."""


class SpanContext(NamedTuple):
    """Who and what a span belongs to. Most spans of a trace share one: it is stored once per distinct value.

    Every field is None or empty when the wire did not say. `metadata` values are text (numbers and booleans in
    their JSON form), keys with a leading `_` included; nested values are flattened with dots.
    """

    customer_identifier: str | None = None
    customer_email: str | None = None
    customer_name: str | None = None
    session_id: str | None = None  # a conversation; group beats session beats thread (Respan's rule) when resolved
    thread_id: str | None = None
    group_id: str | None = None
    environment: str | None = None
    key_id: str | None = None  # public id of the API key that sent the span
    tags: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()  # sorted by key, keys unique


class Span(NamedTuple):
    """The narrow row of one span. None means: the wire did not say. Nothing here is ever a guess of 0."""

    span_id: str
    parent_id: str | None
    name: str  # as sent, at most 255 characters
    entity_name: str | None  # the name a person gave it, where the wire's name is generic (`task`, a template)
    workflow_name: str | None
    path: str | None
    kind: str  # one of KINDS
    log_method: str | None
    start_ns: int  # Unix, UTC
    end_ns: int  # never before start_ns: ingest moves an earlier end to the start; the start while status is pending
    status: str  # "unset" | "ok" | "error" | "pending": has begun, and no message has said that it ended
    status_code: int | None  # HTTP-like code of the call, where the wire gives one
    error_class: str | None
    error_fingerprint: str | None  # equal for errors of the same class and message shape
    model: str | None  # asked for
    response_model: str | None  # answered
    provider: str | None
    deployment_name: str | None
    prompt_id: str | None
    prompt_name: str | None
    prompt_version: str | None
    prompt_tokens: int | None  # cached tokens included
    completion_tokens: int | None  # reasoning tokens included
    total_tokens: int | None
    cached_tokens: int | None
    cache_creation_tokens: int | None
    reasoning_tokens: int | None
    usage_repeats: bool  # the wire says these tokens repeat what other spans carry: never counted in sums
    cost_pico: int | None  # pico-dollars; None: unknown
    cost_source: str | None  # "source" | "prices" | "operator"; None: unpriced
    ttft_s: float | None
    routing_time_s: float | None
    is_streaming: bool | None
    context_key: int  # hash of its SpanContext, signed 64 bit
    content_hash: int  # hash of the wire bytes with resource and scope, signed 64 bit: equal content, equal hash


class LogRecord(NamedTuple):
    """The narrow row of one OTLP log record that belongs to a trace."""

    log_hash: int  # hash of the wire bytes, signed 64 bit: the record's identity
    span_id: str | None
    time_ns: int
    event_name: str | None
    severity: int | None
    context_key: int


class Attachment(NamedTuple):
    """A file that came with a span. Of two of one span and name, the one with the larger (SHA-256, mime_type) stays."""

    span_id: str  # normal form; of a LangSmith run
    name: str
    mime_type: str
    data: bytes


class TraceBatch(NamedTuple):
    """What one request brought for one trace: the unit that ingest hands to the store.

    `block` holds exactly these spans and logs, losslessly (see ingest/payload.py). A trace of many or large spans
    comes as several batches.
    """

    project_id: int
    trace_id: str  # normal form, see ids.py; "" in a batch of nothing but attachments of runs of unknown traces
    spans: tuple[Span, ...]
    logs: tuple[LogRecord, ...]
    contexts: dict[int, SpanContext]  # context_key → context, for every key that spans and logs name
    block: bytes  # payload block, packed or compressed already; b"" without spans and logs
    attachments: tuple[Attachment, ...] = ()  # their spans may come in another batch, before or after
