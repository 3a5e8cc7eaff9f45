"""AST ↔ plain JSON-like values: for a deletion's stored request, for hashing, and for the way to another process.

A condition is `[field, operator, [values], key]`, a group `{"AND": [...]}` or `{"OR": [...]}`. Numbers go as
decimal text, so that nothing is rounded. Equal trees give equal values.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from clearspan.query.ast import Condition, Expr, Group, Value
from clearspan.query.fields import BY_NAME, Field, FieldType
from clearspan.query.operators import Operator

_DECIMAL = frozenset({FieldType.INT, FieldType.MONEY, FieldType.DURATION, FieldType.SECONDS})


def encode_expr(expr: Expr) -> Any:
    """A tree as lists, dicts, text, ints, bools and None."""
    if isinstance(expr, Condition):
        values = [str(value) if isinstance(value, Decimal) else value for value in expr.values]
        return [expr.field.name, expr.operator.value, values, expr.key]
    return {expr.connector: [encode_expr(child) for child in expr.children]}


def decode_expr(plain: Any) -> Expr:
    """The tree that `encode_expr` was given.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: not made by `encode_expr`.
    """
    if isinstance(plain, dict):
        ((connector, children),) = plain.items()
        if connector not in ("AND", "OR"):
            raise ValueError(f"no such connector: {connector!r}")
        return Group(connector, tuple([decode_expr(child) for child in children]))
    name, operator, values, key = plain
    field = BY_NAME[name]
    return Condition(field, Operator(operator), tuple([_value(field, value) for value in values]), key)


def _value(field: Field, value: Any) -> Value:
    wanted: type[Value] = str
    if field.type in _DECIMAL:
        return Decimal(value)
    if field.type in (FieldType.TIME, FieldType.BOOL):
        wanted = int
    if not isinstance(value, wanted):
        raise TypeError(f"{field.name} holds {wanted.__name__}, not {type(value).__name__}")
    return value
