"""AST → SQL for SQLite: the only place that builds a WHERE.

The text is made of this module's own words and the registry's columns; what a caller wrote is always a parameter.
So the text depends on nothing but fields, operators, and whether there is one value or several.

The result is a boolean expression over the alias `t` of table `trace`. It needs the connection's functions
`casefold` (operators.casefold, deterministic) and, for the field `text`, `text_match(trace_pk, operator, needle)`
(operators.text_matches over the trace's readable texts); what looks into spans needs those of compile_span too.

What an index can serve is left in a form it can serve: `t.column = ?`, `t.column IN (SELECT …)`, comparisons with
a plain column. Metadata equality and scores come in two forms that mean the same: as a set of trace_pks out of an index
of theirs, for queries that enter by it; or as a probe for the one trace at hand, for queries that walk traces in some
other order. Operators on metadata other than equality are always probes: their sets (all traces with a key) were 70 to
1,000 times slower on one hour of a million traces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from clearspan.query.ast import Condition, Expr, Group, Not, RootSpan, SomeSpan
from clearspan.query.compile_condition import Sets, SqlValue, on_trace, on_value
from clearspan.query.compile_span import joined, span_sql
from clearspan.query.fields import FieldType, Level
from clearspan.query.page import SortKey


class Compiled(NamedTuple):
    """A boolean SQL expression and its parameters, in order."""

    sql: str
    params: tuple[SqlValue, ...]


def compile_where(
    expr: Expr | None,
    *,
    project_ids: Sequence[int] | None,
    entered: FieldType | None = FieldType.METADATA,
    rare_keys: Collection[str] = (),
) -> Compiled:
    """The SQL condition that holds for exactly the traces which `evaluate.matches` accepts.

    Args:
        expr: None compiles to `1`.
        project_ids: the projects whose traces are looked at: what is `entered` comes as sets. None: everything is
            probed trace by trace, as operators on metadata other than equality always are. Nothing else is
            restricted by them: the caller adds its own condition on `t.project_id`.
        entered: metadata or scores; None: neither.
        rare_keys: metadata keys that few traces of the projects have: whether one is there is then asked of a small
            set.
    Returns:
        An expression that may be NULL where the filter does not hold: good under AND, OR and WHERE, not under NOT.
    Cost: O(size of the tree).
    """
    if expr is None:
        return Compiled("1", ())
    params: list[SqlValue] = []
    sets = None if project_ids is None else Sets(entered, tuple(project_ids), rare_keys)
    return Compiled(_expr(expr, sets, params), tuple(params))


def compile_order(sort: SortKey) -> str:
    """The ORDER BY terms of a sort: missing values last, ties by trace_pk in the direction of the sort."""
    direction = "DESC" if sort.descending else "ASC"
    # SQLite takes NULL for the smallest value: descending has it last anyway, and plain DESC can use an index.
    nulls = " NULLS LAST" if sort.field.nullable and not sort.descending else ""
    return f"{sort.field.sql} {direction}{nulls}, t.trace_pk {direction}"


def _expr(expr: Expr, sets: Sets | None, params: list[SqlValue]) -> str:
    if isinstance(expr, Condition):
        return _some_span([expr], params) if _is_span(expr) else on_trace(expr, sets, params)
    if isinstance(expr, Not):
        return f"({_expr(expr.child, sets, params)}) IS NOT TRUE"
    if isinstance(expr, RootSpan):
        return span_sql(expr, params)
    if not isinstance(expr, Group):  # on some span: of SomeSpan what stands inside, of SomeEntry all of it
        return span_sql(expr if isinstance(expr, SomeSpan) else SomeSpan(expr), params)
    if expr.connector == "OR":
        return joined(" OR ", "0", [_expr(child, sets, params) for child in expr.children])
    parts = [_expr(child, sets, params) for child in expr.children if not _is_span(child)]
    of_one_span = [child for child in expr.children if isinstance(child, Condition) and _is_span(child)]
    if of_one_span:
        parts.append(_some_span(of_one_span, params))
    return joined(" AND ", "1", parts)


def _is_span(expr: Expr) -> bool:
    return isinstance(expr, Condition) and expr.field.level is Level.SPAN


def _some_span(wanted: list[Condition], params: list[SqlValue]) -> str:
    parts = " AND ".join([on_value(condition, params) for condition in wanted])
    return f"EXISTS (SELECT 1 FROM span s WHERE s.trace_pk = t.trace_pk AND {parts})"  # noqa: S608
