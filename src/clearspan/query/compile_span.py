"""An expression about one span → SQL over the aliases `s` (span) and `t` (its trace).

As in compile_sql the text is made of our own words and a caller's are parameters. The connection needs `casefold` and
`like_text` (operators.like), `run_id` (model.runs.run_id_of), `text_match` for the field `text`, and for what lies in
the wire record:

    span_part(trace_pk, span_id, block_no, what)      text or NULL; what is text, input, output or error
    span_entries(trace_pk, span_id, block_no, what)   JSON array of [key, value]; what is inputs or outputs

`Not` is two-valued here: its child's NULL counts as false before it is turned round. Everything else may be NULL where
it does not hold, which is good under AND, OR, EXISTS and WHERE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clearspan.model.span import SpanContext
from clearspan.query.ast import Condition, Expr, Group, Not, RootSpan, SomeEntry, SomeSpan, conditions
from clearspan.query.compile_condition import HIDDEN_ANNOTATION, Sets, SqlValue, on_trace, on_value
from clearspan.query.fields import Collection, Level

_CONTEXT = "(SELECT c.body FROM context c WHERE c.trace_pk = s.trace_pk AND c.context_key = s.context_key)"


def _of_context(name: str) -> str:
    return f"json_each({_CONTEXT}, '$[{SpanContext._fields.index(name)}]') e"


_ENTRIES = {
    Collection.METADATA: _of_context("metadata"),
    Collection.TAGS: _of_context("tags"),
    Collection.INPUTS: "json_each(span_entries(s.trace_pk, s.span_id, s.block_no, 'inputs')) e",
    Collection.OUTPUTS: "json_each(span_entries(s.trace_pk, s.span_id, s.block_no, 'outputs')) e",
    Collection.ANNOTATIONS: "annotation a INDEXED BY annotation_by_trace",
}
_ABOUT_THE_SPAN = (
    f"NOT {HIDDEN_ANNOTATION} AND a.trace_pk = s.trace_pk AND ((a.target = 'span' AND a.span_id = s.span_id) "
    "OR (a.target = 'trace' AND s.span_id = t.root_span_id))"
)


class CompiledSpan(NamedTuple):
    """A boolean SQL expression over `s` and `t`, and its parameters in order."""

    sql: str
    params: tuple[SqlValue, ...]


def compile_span(expr: Expr | None, sets: Sets | None = None) -> CompiledSpan:
    """The SQL condition that holds for exactly the spans which `evaluate_span.span_matches` accepts.

    Args:
        expr: an expression about one span; None compiles to `1`.
        sets: which metadata keys are rare, and in which projects; None: every trace is asked by itself.
    Returns:
        An expression that may be NULL where it does not hold.
    Cost: O(size of the tree).
    """
    params: list[SqlValue] = []
    return CompiledSpan("1" if expr is None else span_sql(expr, params, sets), tuple(params))


def span_sql(expr: Expr, params: list[SqlValue], sets: Sets | None = None) -> str:
    """As `compile_span`, into a list of parameters. RootSpan and SomeSpan need only the alias `t` around them."""
    match expr:
        case Condition():
            return on_trace(expr, sets, params) if expr.field.level is Level.TRACE else on_value(expr, params)
        case Not():
            return f"({span_sql(expr.child, params, sets)}) IS NOT TRUE"
        case RootSpan() | SomeSpan():
            # The inner `s` stands before the outer one; `t` is the trace of both.
            root = " AND s.span_id = t.root_span_id" if isinstance(expr, RootSpan) else ""
            inner = span_sql(expr.child, params, sets)
            return f"EXISTS (SELECT 1 FROM span s WHERE s.trace_pk = t.trace_pk{root} AND {inner})"  # noqa: S608
        case SomeEntry():
            inner = span_sql(expr.child, params, sets)
            about = f"{_ABOUT_THE_SPAN} AND " if expr.collection is Collection.ANNOTATIONS else ""
            return f"EXISTS (SELECT 1 FROM {_ENTRIES[expr.collection]} WHERE {about}{inner})"  # noqa: S608
        case Group():
            return _group(expr, params, sets)


def joined(word: str, nothing: str, parts: Sequence[str]) -> str:
    """Parts with AND or OR between them, in brackets if there are several."""
    if len(parts) > 1:
        return f"({word.join(parts)})"
    return parts[0] if parts else nothing


def _group(group: Group, params: list[SqlValue], sets: Sets | None) -> str:
    """The children, those that read wire records last: SQLite stops at the first that decides."""
    children = sorted(group.children, key=reads_payload)
    parts = [span_sql(child, params, sets) for child in children]
    return joined(" AND ", "1", parts) if group.connector == "AND" else joined(" OR ", "0", parts)


def reads_payload(expr: Expr) -> bool:
    """Whether an expression asks for anything in wire records."""
    return any(condition.field.payload for condition in conditions(expr))
