"""AST → SQL for SQLite: the only place that builds a WHERE.

The text is made of this module's own words and the registry's columns; what a caller wrote is always a parameter.
So the text depends on nothing but fields, operators, and whether there is one value or several.

The result is a boolean expression over the alias `t` of table `trace`. It needs the connection's functions
`casefold` (operators.casefold, deterministic) and, for the field `text`, `text_match(trace_pk, operator, needle)`
(operators.text_matches over the trace's readable texts).

What an index can serve is left in a form it can serve: `t.column = ?`, `t.column IN (SELECT …)`, comparisons with
a plain column. Metadata equality comes in two forms that mean the same: as a set of trace_pks from the metadata
table, whose key starts with (project_id, key, value), for conditions that few traces meet; or as a probe for the one
trace at hand, for queries that walk traces in some other order. Other operators on metadata are always probes: their
sets (all traces with a key) were 70 to 1,000 times slower on one hour of a million traces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from clearspan.model.usage import PICO_PER_USD
from clearspan.query.ast import Condition, Expr, Value
from clearspan.query.fields import FieldType, Level
from clearspan.query.operators import NEGATIONS, PRESENCE, Operator, casefold
from clearspan.query.page import SortKey

SqlValue: TypeAlias = str | int | float | bytes
Projects: TypeAlias = tuple[int, ...] | None

_SCALE = {FieldType.INT: 1, FieldType.MONEY: PICO_PER_USD, FieldType.DURATION: 10**9}
_ORDER_SIGN = {Operator.LT: "<", Operator.LTE: "<=", Operator.GT: ">", Operator.GTE: ">="}
_ROUNDS_UP = frozenset({Operator.LT, Operator.GTE})  # x < 2.5 is x < 3 and x >= 2.5 is x >= 3, for whole x

_ENTERED = frozenset({Operator.EQUALS, Operator.IN})  # on metadata: a range of its index, often a narrow one

_NO_INTEGER = 0.5  # equal to no integer, unequal to every one
_BEYOND = 1e19  # outside 64 bits; SQLite compares integers and floats by value


class Compiled(NamedTuple):
    """A boolean SQL expression and its parameters, in order."""

    sql: str
    params: tuple[SqlValue, ...]


def compile_where(expr: Expr | None, *, project_ids: Sequence[int] | None) -> Compiled:
    """The SQL condition that holds for exactly the traces which `evaluate.matches` accepts.

    Args:
        expr: None compiles to `1`.
        project_ids: the projects whose traces are looked at: metadata equality enters its index as a set. None: it
            is probed trace by trace, as every other operator on metadata always is. Nothing else is restricted
            by them: the caller adds its own condition on `t.project_id`.
    Returns:
        An expression that may be NULL where the filter does not hold: good under AND, OR and WHERE, not under NOT.
    Cost: O(size of the tree).
    """
    if expr is None:
        return Compiled("1", ())
    params: list[SqlValue] = []
    return Compiled(_expr(expr, None if project_ids is None else tuple(project_ids), params), tuple(params))


def compile_order(sort: SortKey) -> str:
    """The ORDER BY terms of a sort: missing values last, ties by trace_pk in the direction of the sort."""
    direction = "DESC" if sort.descending else "ASC"
    # SQLite takes NULL for the smallest value: descending has it last anyway, and plain DESC can use an index.
    nulls = " NULLS LAST" if sort.field.nullable and not sort.descending else ""
    return f"{sort.field.sql} {direction}{nulls}, t.trace_pk {direction}"


def _expr(expr: Expr, projects: Projects, params: list[SqlValue]) -> str:
    if isinstance(expr, Condition):
        return _some_span([expr], params) if _is_span(expr) else _trace_condition(expr, projects, params)
    if expr.connector == "OR":
        return _joined(" OR ", "0", [_expr(child, projects, params) for child in expr.children])
    parts = [_expr(child, projects, params) for child in expr.children if not _is_span(child)]
    of_one_span = [child for child in expr.children if isinstance(child, Condition) and _is_span(child)]
    if of_one_span:
        parts.append(_some_span(of_one_span, params))
    return _joined(" AND ", "1", parts)


def _is_span(expr: Expr) -> bool:
    return isinstance(expr, Condition) and expr.field.level is Level.SPAN


def _joined(word: str, nothing: str, parts: list[str]) -> str:
    if len(parts) > 1:
        return f"({word.join(parts)})"
    return parts[0] if parts else nothing


def _some_span(wanted: list[Condition], params: list[SqlValue]) -> str:
    parts = " AND ".join([_on_value(condition, params) for condition in wanted])
    return f"EXISTS (SELECT 1 FROM span s WHERE s.trace_pk = t.trace_pk AND {parts})"  # noqa: S608


def _trace_condition(condition: Condition, projects: Projects, params: list[SqlValue]) -> str:
    match condition.field.type:
        case FieldType.METADATA:
            return _metadata(condition, projects, params)
        case FieldType.SEARCH:
            params.extend((condition.operator.value, _str(condition.values[0])))
            return f"text_match({condition.field.sql}, ?, ?)"
        case _:
            return _on_value(condition, params)


def _metadata(condition: Condition, projects: Projects, params: list[SqlValue]) -> str:
    """By key: a negation holds where the key is there and the positive form does not hold for any value."""
    field, operator, key = condition.field, condition.operator, str(condition.key)
    if operator not in _ENTERED:
        projects = None  # all traces with a key, or all its values: a set would be gathered anew for each query

    def has(test: Operator | None, *, negated: bool = False) -> str:
        no = "NOT " if negated else ""
        if projects is None:
            params.append(key)
            start = (
                f"{no}EXISTS (SELECT 1 FROM metadata m WHERE m.trace_pk = t.trace_pk AND m.project_id = t.project_id"  # noqa: S608
            )
        else:
            one = len(projects) == 1
            params.extend((projects[0] if one else json.dumps(projects), key))
            project = "= ?" if one else "IN (SELECT value FROM json_each(?))"
            start = f"t.trace_pk {no}IN (SELECT m.trace_pk FROM metadata m WHERE m.project_id {project}"  # noqa: S608
        also = f" AND {_on_value(Condition(field, test, condition.values), params)}" if test else ""
        return f"{start} AND m.key = ?{also})"

    match operator:
        case Operator.IS_NULL:
            return has(None, negated=True)
        case Operator.IS_NOT_NULL:
            return has(None)
        case Operator.EMPTY:
            return has(Operator.NOT_EMPTY, negated=True)
        case Operator() if operator in NEGATIONS:
            return f"({has(None)} AND {has(NEGATIONS[operator], negated=True)})"
        case _:
            return has(operator)


def _on_value(condition: Condition, params: list[SqlValue]) -> str:
    """The condition on one column. NULL columns give NULL or false, but for the presence tests."""
    positive = NEGATIONS.get(condition.operator)
    if positive is not None:
        return f"NOT ({_on_value(Condition(condition.field, positive, condition.values), params)})"
    column, type = condition.field.sql, condition.field.type
    if condition.operator in PRESENCE:
        return _presence(column, condition.operator, is_text=type in _TEXT_TYPES)
    if type in _TEXT_TYPES:
        return _on_text(column, condition.operator, [_str(value) for value in condition.values], params)
    numbers = [_column_number(type, condition.operator, value) for value in condition.values]
    if condition.operator in _ORDER_SIGN:
        params.append(numbers[0])
        return f"{column} {_ORDER_SIGN[condition.operator]} ?"
    if type is FieldType.SECONDS and len(numbers) > 1:
        # SQLite reads a float from JSON text to within a last digit, not exactly: bind them one by one.
        params.extend(numbers)
        return f"{column} IN ({', '.join('?' * len(numbers))})"
    return _equals(column, numbers, params)


_TEXT_TYPES = frozenset({FieldType.TEXT, FieldType.ID, FieldType.VERSION, FieldType.METADATA})


def _presence(column: str, operator: Operator, *, is_text: bool) -> str:
    match operator:
        case Operator.EMPTY if is_text:
            return f"({column} IS NULL OR {column} = '')"
        case Operator.NOT_EMPTY if is_text:
            return f"{column} <> ''"
        case Operator.EMPTY | Operator.IS_NULL:
            return f"{column} IS NULL"
        case _:
            return f"{column} IS NOT NULL"


def _on_text(column: str, operator: Operator, values: list[str], params: list[SqlValue]) -> str:
    match operator:
        case Operator.EQUALS | Operator.IN:
            return _equals(column, values, params)
        case Operator.LT | Operator.LTE | Operator.GT | Operator.GTE:
            params.append(values[0])
            return f"{column} {_ORDER_SIGN[operator]} ?"
        case Operator.CONTAINS:
            params.append(values[0])
            return f"instr({column}, ?) > 0"
        case Operator.ICONTAINS:
            params.append(str(casefold(values[0])))
            return f"instr(casefold({column}), ?) > 0"
        case Operator.IEXACT:
            params.append(str(casefold(values[0])))
            return f"casefold({column}) = ?"
        case Operator.STARTSWITH:
            params.append(values[0])
            return f"instr({column}, ?) = 1"
        case _:
            assert operator is Operator.ENDSWITH, operator
            # As bytes, because substr on text stops at a NUL character; a suffix in UTF-8 is a suffix in characters.
            # Not on an empty text, because substr of an empty blob is NULL, which a negation would not match.
            needle = values[0].encode()
            params.extend((len(needle), needle))
            end = f"substr(CAST({column} AS BLOB), length(CAST({column} AS BLOB)) - ? + 1)"
            return f"({column} <> '' AND {end} = ?)"


def _equals(column: str, values: Sequence[SqlValue], params: list[SqlValue]) -> str:
    if len(values) == 1:
        params.append(values[0])
        return f"{column} = ?"
    params.append(json.dumps(values, ensure_ascii=False))
    return f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608


def _column_number(type: FieldType, operator: Operator, value: Value) -> int | float:
    """A filter's number in the unit of its column, such that the plain comparison with the column is exact."""
    if type is FieldType.SECONDS:
        return float(value)
    if type is FieldType.BOOL:
        return int(value)
    exact = Fraction(Decimal(value)) * _SCALE.get(type, 1)  # times are already nanoseconds
    if operator in _ORDER_SIGN:
        whole = -(-exact // 1) if operator in _ROUNDS_UP else exact // 1
        if -(2**63) <= whole < 2**63:
            return whole
        return _BEYOND if whole > 0 else -_BEYOND
    return int(exact) if exact.denominator == 1 and -(2**63) <= exact < 2**63 else _NO_INTEGER


def _str(value: Value) -> str:
    assert isinstance(value, str), "a text field's values are text"
    return value
