"""An expression about one span → answer in plain Python: the oracle of compile_span, for stores without SQL too."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from clearspan.model.annotation import Annotation
from clearspan.model.runs import run_id_of
from clearspan.query import evaluate
from clearspan.query.ast import Condition, Expr, Not, RootSpan, SomeEntry, SomeSpan
from clearspan.query.fields import Collection, Field, Level

if TYPE_CHECKING:
    from collections.abc import Callable

    from clearspan.query.evaluate import Held, SpanFacts, SpanPayload, TraceFacts


def span_matches(expr: Expr | None, facts: SpanFacts, trace: TraceFacts) -> bool:
    """Whether a span satisfies an expression about one span; None is satisfied by every span.

    Args:
        facts: of the span, with `payload` if the expression asks for it.
        trace: of its trace; `details` of every span if the expression turns to others.
    """
    if expr is None:
        return True
    match expr:
        case Condition():
            if expr.field.level is Level.TRACE:
                return evaluate.trace_holds(expr, trace)
            return evaluate.holds(expr, _value(expr.field, facts, trace))
        case Not():
            return not span_matches(expr.child, facts, trace)
        case RootSpan() | SomeSpan():
            return some_span_matches(expr, trace)
        case SomeEntry():
            return any(_entry_matches(expr.child, entry) for entry in _entries(expr.collection, facts))
        case _:
            found = (span_matches(child, facts, trace) for child in expr.children)
            return all(found) if expr.connector == "AND" else any(found)


def some_span_matches(expr: RootSpan | SomeSpan | SomeEntry, trace: TraceFacts) -> bool:
    """The same for a trace: whether its root, or any span of it, satisfies the expression."""
    child = expr if isinstance(expr, SomeEntry) else expr.child
    root_id = trace.summary.root_span_id
    return any(
        span_matches(child, each, trace)
        for each in trace.details
        if not isinstance(expr, RootSpan) or each.span.span_id == root_id
    )


def _entry_matches(expr: Expr, entry: Mapping[str, Held]) -> bool:
    match expr:
        case Condition():
            return evaluate.holds(expr, entry[expr.field.name])
        case Not():
            return not _entry_matches(expr.child, entry)
        case RootSpan() | SomeSpan() | SomeEntry():
            raise AssertionError("an entry has no spans and no entries")
        case _:
            found = (_entry_matches(child, entry) for child in expr.children)
            return all(found) if expr.connector == "AND" else any(found)


def _entries(collection: Collection, facts: SpanFacts) -> list[Mapping[str, Held]]:
    match collection:
        case Collection.METADATA:
            return [{"metadata_key": key, "metadata_value": value} for key, value in facts.context.metadata]
        case Collection.TAGS:
            return [{"tag": tag} for tag in facts.context.tags]
        case Collection.ANNOTATIONS:
            return [_of_annotation(each) for each in facts.annotations]
        case Collection.INPUTS:
            return [{"input_key": key, "input_value": value} for key, value in _payload(facts).inputs]
        case _:
            return [{"output_key": key, "output_value": value} for key, value in _payload(facts).outputs]


def _of_annotation(annotation: Annotation) -> Mapping[str, Held]:
    return {
        "annotation_name": annotation.name,
        "annotation_score": annotation.score,
        "annotation_label": annotation.label,
        "annotation_source": annotation.source,
        "annotation_target": annotation.target.value,
    }


def _payload(facts: SpanFacts) -> SpanPayload:
    assert facts.payload is not None, "the expression asks for the wire record"
    return facts.payload


def _value(field: Field, facts: SpanFacts, trace: TraceFacts) -> Held:
    own = _OF_SPAN.get(field.name)
    if own is not None:
        return own(facts)
    if field.name == "is_root":
        root_id = trace.summary.root_span_id
        return None if root_id is None else facts.span.span_id == root_id
    if field.name in ("run_id", "parent_run_id"):
        span_id = facts.span.span_id if field.name == "run_id" else facts.span.parent_id
        summary = trace.summary
        return None if span_id is None else run_id_of(summary.trace_id, span_id, span_id == summary.root_span_id)
    return evaluate.span_value(field, facts.span)


def _latency(facts: SpanFacts) -> Fraction | None:
    span = facts.span
    return None if span.status == "pending" else Fraction(span.end_ns - span.start_ns, 10**9)


def _thread_id(facts: SpanFacts) -> str | None:
    own = facts.context.thread_id
    return own if own is not None else facts.context.session_id


def _total_tokens(facts: SpanFacts) -> int | None:
    span = facts.span
    if span.total_tokens is not None:
        return span.total_tokens
    parts = [tokens for tokens in (span.prompt_tokens, span.completion_tokens) if tokens is not None]
    return sum(parts) if parts else None


_OF_SPAN: Mapping[str, Callable[[SpanFacts], Held]] = {
    "span_start_time": lambda facts: facts.span.start_ns,
    "span_end_time": lambda facts: None if facts.span.status == "pending" else facts.span.end_ns,
    "span_latency": _latency,
    "span_status": lambda facts: facts.span.status if facts.span.status in ("error", "pending") else "success",
    "span_total_tokens": _total_tokens,
    "span_thread_id": _thread_id,
    "span_text": lambda facts: _payload(facts).text,
    "span_input": lambda facts: _payload(facts).input,
    "span_output": lambda facts: _payload(facts).output,
    "span_error": lambda facts: _payload(facts).error,
}
