"""AST → answer in plain Python: the oracle that tests hold the SQL to, and the filter of stores without SQL.

Written to be obviously right, not fast. It shares no code with compile_sql and reads the values of spans and
summaries by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from clearspan.model.annotation import Annotation
from clearspan.model.span import Span, SpanContext
from clearspan.model.trace import TraceSummary
from clearspan.query import evaluate_span
from clearspan.query.ast import Condition, Expr, Not, RootSpan, SomeEntry, SomeSpan, Value
from clearspan.query.fields import Field, FieldType, Level
from clearspan.query.operators import NEGATIONS, Operator, text_matches
from clearspan.query.page import SortKey

Held: TypeAlias = str | int | bool | float | Fraction | None
"""What a trace or span has in a field, in the filter's unit: dollars and seconds exactly; None is missing."""


class TraceFacts(NamedTuple):
    """Everything a filter can ask of one trace."""

    summary: TraceSummary
    spans: Sequence[Span] = ()
    text: Sequence[str] = ()  # every readable text; only the field `text` looks here
    details: Sequence[SpanFacts] = ()  # of every span; only RootSpan, SomeSpan and SomeEntry look here
    scores: Sequence[tuple[str, float]] = ()  # (name, score) of each annotation with one, of the trace and its root


class SpanFacts(NamedTuple):
    """What an expression about one span can ask of it, beside its trace."""

    span: Span
    context: SpanContext = SpanContext()
    annotations: Sequence[Annotation] = ()  # about the span; of the root also about its trace
    payload: SpanPayload | None = None  # None: nothing in the expression asks for it


class SpanPayload(NamedTuple):
    """What the wire record of a span says."""

    text: str  # all readable text
    input: str | None
    output: str | None
    error: str | None
    inputs: Sequence[tuple[str, str]]  # leaf values by dotted key
    outputs: Sequence[tuple[str, str]]


def matches(expr: Expr | None, facts: TraceFacts) -> bool:
    """Whether a trace satisfies a filter; None is satisfied by every trace."""
    if expr is None:
        return True
    if isinstance(expr, Condition):
        return _some_span_holds([expr], facts.spans) if _of_span(expr) else trace_holds(expr, facts)
    if isinstance(expr, Not):
        return not matches(expr.child, facts)
    if isinstance(expr, RootSpan | SomeSpan | SomeEntry):
        return evaluate_span.some_span_matches(expr, facts)
    if expr.connector == "OR":
        return any(matches(child, facts) for child in expr.children)
    together = [child for child in expr.children if isinstance(child, Condition) and _of_span(child)]
    apart = [child for child in expr.children if not (isinstance(child, Condition) and _of_span(child))]
    if together and not _some_span_holds(together, facts.spans):
        return False
    return all(matches(child, facts) for child in apart)


def order_key(sort: SortKey, summary: TraceSummary, trace_pk: int) -> tuple[bool, Fraction, int]:
    """A key that puts rows in the order of `sort` when sorted ascending: missing last, ties by trace_pk."""
    value = trace_value(sort.field, summary)
    sign = -1 if sort.descending else 1
    number = Fraction(0) if value is None else Fraction(value)
    return value is None, sign * number, sign * trace_pk


def trace_value(field: Field, summary: TraceSummary) -> Held:
    """What a trace has in a trace-level field other than `metadata` and `text`."""
    return _OF_TRACE[field.name](summary)


def span_value(field: Field, span: Span) -> Held:
    """What a span has in a span-level field."""
    return _OF_SPAN[field.name](span)


def _of_span(condition: Condition) -> bool:
    return condition.field.level is Level.SPAN


def _some_span_holds(together: Sequence[Condition], spans: Sequence[Span]) -> bool:
    return any(all(holds(wanted, span_value(wanted.field, span)) for wanted in together) for span in spans)


def trace_holds(condition: Condition, facts: TraceFacts) -> bool:
    """Whether a trace-level condition holds."""
    if condition.field.type is FieldType.SEARCH:
        return text_matches(condition.operator, str(condition.values[0]), facts.text)
    if condition.field.type is FieldType.METADATA:
        held = [value for key, value in facts.summary.metadata_all if key == condition.key]
        return _metadata_holds(condition, held)
    if condition.field.type is FieldType.SCORE:
        return _scores_hold(condition, [score for name, score in facts.scores if name == condition.key])
    return holds(condition, trace_value(condition.field, facts.summary))


def _metadata_holds(condition: Condition, held: list[str]) -> bool:
    match condition.operator:
        case Operator.IS_NULL:
            return not held
        case Operator.IS_NOT_NULL:
            return bool(held)
        case Operator.EMPTY:
            return not any(held)
        case Operator.NOT_EMPTY:
            return any(held)
    positive = NEGATIONS.get(condition.operator)
    if positive is not None:
        return bool(held) and not any(_positive_holds(positive, value, condition.values) for value in held)
    return any(_positive_holds(condition.operator, value, condition.values) for value in held)


def _scores_hold(condition: Condition, held: list[float]) -> bool:
    positive = NEGATIONS.get(condition.operator)
    if positive is not None:
        wanted = [_in_kind(condition.field.type, value) for value in condition.values]
        return bool(held) and not any(_positive_holds(positive, score, wanted) for score in held)
    return any(holds(condition, score) for score in held) if held else holds(condition, None)


def holds(condition: Condition, held: Held) -> bool:
    """Whether a condition holds for the value that its field has; None is a missing one."""
    match condition.operator:
        case Operator.IS_NULL:
            return held is None
        case Operator.IS_NOT_NULL:
            return held is not None
        case Operator.EMPTY:
            return held is None or held == ""
        case Operator.NOT_EMPTY:
            return not (held is None or held == "")
    if held is None:
        return False
    wanted = [_in_kind(condition.field.type, value) for value in condition.values]
    positive = NEGATIONS.get(condition.operator)
    if positive is not None:
        return not _positive_holds(positive, held, wanted)
    return _positive_holds(condition.operator, held, wanted)


def _in_kind(type: FieldType, value: Value) -> str | int | bool | float | Fraction:
    """A filter's number in the kind of number its field holds: floats against floats, all else exactly."""
    if not isinstance(value, Decimal):
        return value
    return float(value) if type in (FieldType.SECONDS, FieldType.SCORE) else Fraction(value)


def _positive_holds(operator: Operator, held: Held, wanted: Sequence[Held | Value]) -> bool:
    if operator in (Operator.EQUALS, Operator.IN):
        return any(held == value for value in wanted)
    (one,) = wanted
    if isinstance(held, str) and isinstance(one, str):
        return _TEXT_TESTS[operator](held, one)
    assert not isinstance(held, str | None)
    assert not isinstance(one, str | None)
    match operator:
        case Operator.LT:
            return held < one
        case Operator.LTE:
            return held <= one
        case Operator.GT:
            return held > one
        case _:
            assert operator is Operator.GTE, operator
            return held >= one


_TEXT_TESTS: Mapping[Operator, Callable[[str, str], bool]] = {
    Operator.LT: lambda held, one: held < one,
    Operator.LTE: lambda held, one: held <= one,
    Operator.GT: lambda held, one: held > one,
    Operator.GTE: lambda held, one: held >= one,
    Operator.CONTAINS: lambda held, one: one in held,
    Operator.ICONTAINS: lambda held, one: one.casefold() in held.casefold(),
    Operator.IEXACT: lambda held, one: held.casefold() == one.casefold(),
    Operator.STARTSWITH: str.startswith,
    Operator.ENDSWITH: str.endswith,
    Operator.LIKE: lambda held, one: (
        re.fullmatch(".*".join(map(re.escape, one.split("%"))), held, re.DOTALL) is not None
    ),
}


def _usd(pico: int | None) -> Fraction | None:
    return None if pico is None else Fraction(pico, 10**12)


def _seconds(start_ns: int, end_ns: int) -> Fraction:
    return Fraction(end_ns - start_ns, 10**9)


def _tokens_per_second(span: Span) -> float | None:
    lasted_ns = span.end_ns - span.start_ns
    if span.completion_tokens is None or lasted_ns == 0:
        return None
    return span.completion_tokens * 1e9 / lasted_ns


_OF_TRACE: Mapping[str, Callable[[TraceSummary], Held]] = {
    "trace_unique_id": lambda trace: trace.trace_id,
    "name": lambda trace: trace.name,
    "customer_identifier": lambda trace: trace.customer_identifier,
    "environment": lambda trace: trace.environment,
    "organization_key_id": lambda trace: trace.key_id,
    "trace_group_identifier": lambda trace: trace.group_id,
    "session_identifier": lambda trace: trace.session_id,
    "thread_identifier": lambda trace: trace.thread_id,
    "root_span_unique_id": lambda trace: trace.root_span_id,
    "start_time": lambda trace: trace.start_ns,
    "end_time": lambda trace: trace.end_ns,
    "duration": lambda trace: _seconds(trace.start_ns, trace.end_ns),
    "span_count": lambda trace: trace.span_count,
    "llm_call_count": lambda trace: trace.llm_call_count,
    "error_count": lambda trace: trace.error_count,
    "unpriced_count": lambda trace: trace.unpriced_count,
    "total_cost": lambda trace: _usd(trace.cost_pico),
    "total_prompt_tokens": lambda trace: trace.prompt_tokens,
    "total_completion_tokens": lambda trace: trace.completion_tokens,
    "total_tokens": lambda trace: trace.total_tokens,
}

_OF_SPAN: Mapping[str, Callable[[Span], Held]] = {
    "span_unique_id": lambda span: span.span_id,
    "span_name": lambda span: span.name,
    "span_workflow_name": lambda span: span.workflow_name,
    "span_path": lambda span: span.path,
    "span_parent_id": lambda span: span.parent_id,
    "model": lambda span: span.model,
    "provider_id": lambda span: span.provider,
    "deployment_name": lambda span: span.deployment_name,
    "prompt_id": lambda span: span.prompt_id,
    "prompt_name": lambda span: span.prompt_name,
    "prompt_version_number": lambda span: span.prompt_version,
    "log_type": lambda span: span.kind,
    "log_method": lambda span: span.log_method,
    "status": lambda span: "error" if span.status == "error" else "success",
    "status_code": lambda span: span.status_code,
    "error_class": lambda span: span.error_class,
    "error_fingerprint": lambda span: span.error_fingerprint,
    "cost": lambda span: _usd(span.cost_pico),
    "latency": lambda span: _seconds(span.start_ns, span.end_ns),
    "time_to_first_token": lambda span: span.ttft_s,
    "tokens_per_second": _tokens_per_second,
    "routing_time": lambda span: span.routing_time_s,
    "prompt_tokens": lambda span: span.prompt_tokens,
    "completion_tokens": lambda span: span.completion_tokens,
    "prompt_cache_hit_tokens": lambda span: span.cached_tokens,
    "prompt_cache_creation_tokens": lambda span: span.cache_creation_tokens,
    "stream": lambda span: span.is_streaming,
}
