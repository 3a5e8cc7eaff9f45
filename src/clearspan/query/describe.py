"""AST → words: a sentence for people, and the filter's shape without anybody's data."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from clearspan.model.clock import datetime_from_ns
from clearspan.model.trace import Window
from clearspan.query.ast import Condition, Expr, Group, Not, RootSpan, SomeEntry, SomeSpan, Value
from clearspan.query.fields import PREFIX_OF, Collection, FieldType, Level
from clearspan.query.operators import EQUALITY, Operator

_VALUES_MAX = 5
_TEXT_MAX = 80

_WORDS = {
    Operator.EQUALS: "is",
    Operator.IN: "is",
    Operator.NOT: "is not",
    Operator.NOT_IN: "is not",
    Operator.LT: "<",
    Operator.LTE: "≤",
    Operator.GT: ">",
    Operator.GTE: "≥",
    Operator.CONTAINS: "contains",
    Operator.NOT_CONTAINS: "does not contain",
    Operator.ICONTAINS: "contains, in any case,",
    Operator.STARTSWITH: "starts with",
    Operator.NOT_STARTSWITH: "does not start with",
    Operator.ENDSWITH: "ends with",
    Operator.NOT_ENDSWITH: "does not end with",
    Operator.IEXACT: "is, in any case,",
    Operator.EMPTY: "is empty",
    Operator.NOT_EMPTY: "is not empty",
    Operator.IS_NULL: "is missing",
    Operator.IS_NOT_NULL: "is present",
    Operator.FULL_TEXT_SEARCH: "has the words",
    Operator.LIKE: "is like",
}
_UNITS = {FieldType.MONEY: " USD", FieldType.DURATION: " s"}


def describe(expr: Expr | None, window: Window | None = None, *, of_span: bool = False) -> str:
    """What a filter selects, as a phrase after "traces where": it holds values, so it is personal data.

    Example: `customer_identifier is "a" and on a span (model is "m" and latency > 2 s); started from
    2026-05-12T00:00:00Z to before 2026-05-14T00:00:00Z`. Long texts and lists are cut.

    Args:
        of_span: the expression is about one span: a phrase after "spans where".
    """
    anything = "any span" if of_span else "any trace"
    what = anything if expr is None else _render(expr, _told, _Words(" and ", " or ", "on a span ", of_span=of_span))
    when = _describe_window(window) if window is not None else ""
    return f"{what}; {when}" if when else what


def describe_shape(expr: Expr | None) -> str:
    """Fields, operators, nesting and how many values, without values and keys: no personal data.

    Example: `customer_identifier equals(1) AND (error_count gt(1) OR metadata contains(1))`.
    """
    return "any trace" if expr is None else _render(expr, _shape, _Words(" AND ", " OR ", "span "))


class _Words(NamedTuple):
    both: str
    either: str
    on_span: str
    of_span: bool = False  # inside an expression about one span, where nothing looks for a span of its own


_NEGATED = "not "
_TURNS = {RootSpan: "the root span has ", SomeSpan: "some span has "}
_ENTRY = {
    Collection.METADATA: "metadata with ",
    Collection.TAGS: "a tag with ",
    Collection.ANNOTATIONS: "an annotation with ",
    Collection.INPUTS: "an input value with ",
    Collection.OUTPUTS: "an output value with ",
}


def _render(expr: Expr, word: Callable[[Condition], str], joins: _Words, top: bool = True) -> str:
    """Words of a tree; the conditions of an AND group that bind to one span stand together."""
    both, either, on_span, of_span = joins
    if isinstance(expr, Condition):
        return f"{on_span}{word(expr)}" if expr.field.level is Level.SPAN and not of_span else word(expr)
    if isinstance(expr, Not):
        return f"{_NEGATED}({_render(expr.child, word, joins)})"
    if isinstance(expr, SomeEntry):
        where = "" if of_span else on_span
        return f"{where}{_ENTRY[expr.collection]}({_render(expr.child, word, joins)})"
    if not isinstance(expr, Group):
        return f"{_TURNS[type(expr)]}({_render(expr.child, word, joins._replace(of_span=True))})"
    if not expr.children:
        return "anything" if expr.connector == "AND" else "nothing"
    if expr.connector == "OR":
        parts, join = [_render(child, word, joins, False) for child in expr.children], either
    else:
        spans = [child for child in expr.children if isinstance(child, Condition) and child.field.level is Level.SPAN]
        spans = [] if of_span else spans
        rest = [child for child in expr.children if child not in spans]
        parts, join = [_render(child, word, joins, False) for child in rest], both
        if spans:
            told = both.join(word(child) for child in spans)
            parts.append(f"{on_span}({told})" if len(spans) > 1 else f"{on_span}{told}")
    text = join.join(parts)
    return text if top or len(parts) == 1 else f"({text})"


def _told(condition: Condition) -> str:
    name = condition.field.name if condition.key is None else f"{PREFIX_OF[condition.field.name]}{condition.key}"
    operator, values = condition.operator, condition.values
    words = _WORDS[operator]
    if not values:
        return f"{name} {words}"
    shown = ", ".join(_shown(condition.field.type, value) for value in values[:_VALUES_MAX])
    if len(values) > _VALUES_MAX:
        shown += f" and {len(values) - _VALUES_MAX} more"
    if len(values) > 1 and operator in EQUALITY:
        words = "is one of" if words == "is" else "is none of"
    return f"{name} {words} {shown}"


def _shape(condition: Condition) -> str:
    return f"{condition.field.name} {condition.operator}({len(condition.values)})"


def _shown(type: FieldType, value: Value) -> str:
    if isinstance(value, str):
        return json.dumps(value if len(value) <= _TEXT_MAX else f"{value[: _TEXT_MAX - 1]}…", ensure_ascii=False)
    if type is FieldType.TIME and isinstance(value, int):
        return _time(value)
    if isinstance(value, Decimal):
        plain = -20 <= value.adjusted() <= 20
        return f"{value:f}{_UNITS.get(type, '')}" if plain else f"{value:.10g}{_UNITS.get(type, '')}"
    return json.dumps(value)


def _describe_window(window: Window) -> str:
    start, end = window.start_ns, window.end_ns
    if start is None and end is None:
        return "started at any time"
    since = "" if start is None else f" from {_time(start)}"
    until = "" if end is None else f"{' to' if since else ''} before {_time(end)}"
    return f"started{since}{until}"


def _time(ns: int) -> str:
    """ISO 8601 with `Z`, whole seconds without a fraction; nanoseconds that a date cannot hold stay a number."""
    try:
        at = datetime_from_ns(ns)
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns"
    return at.isoformat().replace("+00:00", "Z")
