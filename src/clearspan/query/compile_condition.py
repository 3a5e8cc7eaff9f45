"""One condition → SQL: what compile_sql and compile_span are made of. Values are always parameters."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from clearspan.model.usage import PICO_PER_USD
from clearspan.query.ast import Condition, Value
from clearspan.query.fields import FieldType
from clearspan.query.operators import NEGATIONS, PRESENCE, Operator, casefold

SqlValue: TypeAlias = str | int | float | bytes


class Sets(NamedTuple):
    """Which pseudo-field is entered as sets of trace_pks, and of which projects; all else is probed."""

    of: FieldType | None
    project_ids: tuple[int, ...]
    rare_keys: Collection[str] = ()  # of metadata: whether one is there is asked of the set of those that have it


_HIDDEN = "FROM hidden_annotation ha CROSS JOIN deletion hd ON hd.deletion_no = ha.deletion_no AND hd.phase IN (1, 3)"
HIDDEN_ANNOTATION = f"EXISTS (SELECT 1 {_HIDDEN} WHERE ha.annotation_no = a.annotation_no)"
"""Whether a deletion hides the annotation `a`; the marks of one in the making (phase 0) count for nothing."""
HIDDEN_OF_MANY = f"a.annotation_no IN (SELECT ha.annotation_no {_HIDDEN})"
"""The same for queries that read many annotations: what is hidden is gathered once, and is mostly nothing."""

_SCALE = {FieldType.INT: 1, FieldType.MONEY: PICO_PER_USD, FieldType.DURATION: 10**9}
_ORDER_SIGN = {Operator.LT: "<", Operator.LTE: "<=", Operator.GT: ">", Operator.GTE: ">="}
_ROUNDS_UP = frozenset({Operator.LT, Operator.GTE})  # x < 2.5 is x < 3 and x >= 2.5 is x >= 3, for whole x

_FLOATS = frozenset({FieldType.SECONDS, FieldType.SCORE})
_ENTERED = frozenset({Operator.EQUALS, Operator.IN})  # on metadata: a range of its index, often a narrow one

_MAY_BE_RARE = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})

_NO_INTEGER = 0.5  # equal to no integer, unequal to every one
_BEYOND = 1e19  # outside 64 bits; SQLite compares integers and floats by value


def on_trace(condition: Condition, sets: Sets | None, params: list[SqlValue]) -> str:
    """A trace-level condition over alias `t`; the parameters go to `params`."""
    projects = sets.project_ids if sets is not None and sets.of is condition.field.type else None
    match condition.field.type:
        case FieldType.METADATA:
            if sets is not None and condition.operator in _MAY_BE_RARE and condition.key in sets.rare_keys:
                projects = sets.project_ids
            elif condition.operator not in _ENTERED:
                projects = None  # all traces with a key, or all its values: a set would be gathered anew each time
            return _keyed(condition, _METADATA, projects, params)
        case FieldType.SCORE:
            return _keyed(condition, _SCORES, projects, params)
        case FieldType.SEARCH:
            params.extend((condition.operator.value, _str(condition.values[0])))
            return f"text_match({condition.field.sql}, ?, ?)"
        case _:
            return on_value(condition, params)


class _Rows(NamedTuple):
    """Where the values of a pseudo-field lie, one row each."""

    table: str
    alias: str
    key: str
    also: str = ""  # true of every row that counts
    also_in_set: str = ""  # the same where many rows are read
    also_in_probe: str = ""


_METADATA = _Rows("metadata m", "m", "m.key")
_SCORES = _Rows(
    "annotation a INDEXED BY annotation_by_score",
    "a",
    "a.name",
    # Said with these words, SQLite may use the partial index.
    " AND (a.target = 'trace' OR a.of_root = 1) AND a.score IS NOT NULL AND a.trace_pk IS NOT NULL "
    "AND a.waits_ns IS NULL",
    f" AND NOT {HIDDEN_OF_MANY}",
    f" AND NOT {HIDDEN_ANNOTATION}",
)


def _keyed(condition: Condition, rows: _Rows, projects: Sequence[int] | None, params: list[SqlValue]) -> str:
    """By key: a negation holds where the key is there and the positive form does not hold for any value."""
    field, operator, key = condition.field, condition.operator, str(condition.key)
    table, alias = rows.table, rows.alias

    def has(test: Operator | None, *, negated: bool = False) -> str:
        no = "NOT " if negated else ""
        if projects is None:
            params.append(key)
            start = (
                f"{no}EXISTS (SELECT 1 FROM {table} WHERE {alias}.trace_pk = t.trace_pk "  # noqa: S608
                f"AND {alias}.project_id = t.project_id"
            )
        else:
            one = len(projects) == 1
            params.extend((projects[0] if one else json.dumps(projects), key))
            project = "= ?" if one else "IN (SELECT value FROM json_each(?))"
            start = f"t.trace_pk {no}IN (SELECT {alias}.trace_pk FROM {table} WHERE {alias}.project_id {project}"  # noqa: S608
        value = f" AND {on_value(Condition(field, test, condition.values), params)}" if test else ""
        also = rows.also_in_probe if projects is None else rows.also_in_set
        return f"{start} AND {rows.key} = ?{value}{rows.also}{also})"

    is_text = field.type is FieldType.METADATA
    match operator:
        case Operator.IS_NULL:
            return has(None, negated=True)
        case Operator.IS_NOT_NULL:
            return has(None)
        case Operator.EMPTY | Operator.NOT_EMPTY if not is_text:
            return has(None, negated=operator is Operator.EMPTY)
        case Operator.EMPTY:
            return has(Operator.NOT_EMPTY, negated=True)
        case Operator() if operator in NEGATIONS:
            return f"({has(None)} AND {has(NEGATIONS[operator], negated=True)})"
        case _:
            return has(operator)


def on_value(condition: Condition, params: list[SqlValue]) -> str:
    """A condition on its field's own column. NULL columns give NULL or false, but for the presence tests."""
    positive = NEGATIONS.get(condition.operator)
    if positive is not None:
        return f"NOT ({on_value(Condition(condition.field, positive, condition.values), params)})"
    column, type = condition.field.sql, condition.field.type
    if condition.operator in PRESENCE:
        return _presence(column, condition.operator, is_text=type in _TEXT_TYPES)
    if type in _TEXT_TYPES:
        return _on_text(column, condition.operator, [_str(value) for value in condition.values], params)
    numbers = [_column_number(type, condition.operator, value) for value in condition.values]
    if condition.operator in _ORDER_SIGN:
        params.append(numbers[0])
        return f"{column} {_ORDER_SIGN[condition.operator]} ?"
    if type in _FLOATS and len(numbers) > 1:
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
        case Operator.LIKE:
            params.append(values[0])
            return f"like_text({column}, ?)"
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
    if type in _FLOATS:
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
