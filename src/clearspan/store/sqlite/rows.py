"""Model values ↔ rows of traces.db: column lists, and the JSON forms of contexts, metadata and tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from clearspan.model.span import LogRecord, Span, SpanContext
from clearspan.model.trace import TraceSummary
from clearspan.store.port import TraceRow

BLOCK_BITS = 20
"""block_id = trace_pk << BLOCK_BITS | block_no."""
BLOCK_NO_MAX = (1 << BLOCK_BITS) - 1

HOUR_NS = 3_600_000_000_000

SPAN_COLUMNS = ", ".join(Span._fields)
LOG_COLUMNS = ", ".join(LogRecord._fields)
_SPAN_BOOLS = (Span._fields.index("usage_repeats"), Span._fields.index("is_streaming"))

TRACE_COLUMNS = (
    "trace_pk, project_id, trace_id, start_ns, end_ns, duration_ns, received_ns, span_count, llm_call_count, "
    "error_count, unpriced_count, prompt_tokens, completion_tokens, total_tokens, cached_tokens, "
    "reasoning_tokens, cost_pico, environment, customer_identifier, session_id, thread_id, group_id, key_id, "
    "name, kind, model, root_span_id, metadata, tags"
)
TRACE_WIDTH = TRACE_COLUMNS.count(",") + 1


def block_range(trace_pk: int) -> tuple[int, int]:
    """First and last block_id a trace can have."""
    return trace_pk << BLOCK_BITS, (trace_pk << BLOCK_BITS) | BLOCK_NO_MAX


def trace_values(trace_pk: int, project_id: int, received_ns: int, s: TraceSummary) -> tuple[Any, ...]:
    """A summary as the values of TRACE_COLUMNS."""
    return (
        trace_pk, project_id, s.trace_id, s.start_ns, s.end_ns, s.end_ns - s.start_ns, received_ns, s.span_count,
        s.llm_call_count, s.error_count, s.unpriced_count, s.prompt_tokens, s.completion_tokens, s.total_tokens,
        s.cached_tokens, s.reasoning_tokens, s.cost_pico, s.environment, s.customer_identifier, s.session_id,
        s.thread_id, s.group_id, s.key_id, s.name, s.kind, s.model, s.root_span_id,
        _json_or_none(s.metadata), _json_or_none(s.tags),
    )  # fmt: skip


def trace_row(values: Sequence[Any], metadata_all: tuple[tuple[str, str], ...] = ()) -> TraceRow:
    """The values of TRACE_COLUMNS as a TraceRow.

    `metadata_all` is not stored with the row: what a list shows needs only `metadata`.
    """
    (
        trace_pk, project_id, trace_id, start_ns, end_ns, _, received_ns, span_count, llm_call_count, error_count,
        unpriced_count, prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens, cost_pico,
        environment, customer_identifier, session_id, thread_id, group_id, key_id, name, kind, model, root_span_id,
        metadata, tags,
    ) = values  # fmt: skip
    summary = TraceSummary(
        trace_id=trace_id,
        root_span_id=root_span_id,
        name=name,
        kind=kind,
        start_ns=start_ns,
        end_ns=end_ns,
        span_count=span_count,
        llm_call_count=llm_call_count,
        error_count=error_count,
        unpriced_count=unpriced_count,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=total_tokens,
        cached_tokens=cached_tokens,
        reasoning_tokens=reasoning_tokens,
        cost_pico=cost_pico,
        model=model,
        customer_identifier=customer_identifier,
        session_id=session_id,
        thread_id=thread_id,
        group_id=group_id,
        environment=environment,
        key_id=key_id,
        metadata=tuple((k, v) for k, v in orjson.loads(metadata)) if metadata else (),
        tags=tuple(orjson.loads(tags)) if tags else (),
        metadata_all=metadata_all,
    )
    return TraceRow(trace_pk, project_id, received_ns, summary)


def span_of(values: Sequence[Any]) -> Span:
    """The values of SPAN_COLUMNS as a Span: SQLite has no booleans, the model has."""
    fields = list(values)
    for at in _SPAN_BOOLS:
        if fields[at] is not None:
            fields[at] = bool(fields[at])
    return Span._make(fields)


def context_body(context: SpanContext) -> str:
    """A SpanContext as stored: a JSON array in field order."""
    return orjson.dumps(tuple(context)).decode()


def context_of(body: str) -> SpanContext:
    """What `context_body` wrote."""
    fields = orjson.loads(body)
    fields[-2] = tuple(fields[-2])
    fields[-1] = tuple((k, v) for k, v in fields[-1])
    return SpanContext._make(fields)


def _json_or_none(items: Sequence[Any]) -> str | None:
    return orjson.dumps(items).decode() if items else None
