"""AST ↔ plain JSON-like values: for a deletion's stored request, for hashing, and for the way to another process.

A condition is `[field, operator, [values], key]`, a group `{"AND": [...]}` or `{"OR": [...]}`, any other node an object
with one key: `{"NOT": child}`, `{"ROOT": child}`, `{"SOME": child}`, `{"ENTRY": [collection, child]}`. Numbers go as
decimal text, so that nothing is rounded. Equal trees give equal values.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from clearspan.query.ast import Condition, Expr, Group, Not, RootSpan, SomeEntry, SomeSpan, Value
from clearspan.query.fields import Collection, Field, FieldType, field_named
from clearspan.query.operators import Operator

_DECIMAL = frozenset({FieldType.INT, FieldType.MONEY, FieldType.DURATION, FieldType.SECONDS, FieldType.SCORE})
_NODE_OF: Mapping[str, type[Not] | type[RootSpan] | type[SomeSpan]] = {"NOT": Not, "ROOT": RootSpan, "SOME": SomeSpan}
_WORD_OF = {node: word for word, node in _NODE_OF.items()}


def encode_expr(expr: Expr) -> Any:
    """A tree as lists, dicts, text, ints, bools and None."""
    if isinstance(expr, Condition):
        values = [str(value) if isinstance(value, Decimal) else value for value in expr.values]
        return [expr.field.name, expr.operator.value, values, expr.key]
    if isinstance(expr, Group):
        return {expr.connector: [encode_expr(child) for child in expr.children]}
    if isinstance(expr, SomeEntry):
        return {"ENTRY": [expr.collection.value, encode_expr(expr.child)]}
    return {_WORD_OF[type(expr)]: encode_expr(expr.child)}


def decode_expr(plain: Any) -> Expr:
    """The tree that `encode_expr` was given.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: not made by `encode_expr`.
    """
    if isinstance(plain, dict):
        ((word, inside),) = plain.items()
        if word in ("AND", "OR"):
            return Group(word, tuple([decode_expr(child) for child in inside]))
        if word == "ENTRY":
            collection, child = inside
            return SomeEntry(Collection(collection), decode_expr(child))
        return _NODE_OF[word](decode_expr(inside))
    name, operator, values, key = plain
    field = field_named(name)
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
