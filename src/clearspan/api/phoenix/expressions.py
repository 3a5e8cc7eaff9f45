"""Conditions on spans in the words of Phoenix's query language: Python's syntax, read and never run.

`parse_condition` turns a text into a tree of the nodes below, or refuses it: what is not named here cannot be said.
`holds` walks such a tree over one span. There are three truth values, as in SQL: whatever is compared with a missing
value is unknown (None), and a span matches only what is True.
"""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from clearspan.api.phoenix.span_views import SpanView
from clearspan.ingest.openinference import nested
from clearspan.model.annotation import Annotation
from clearspan.model.clock import ns_from_datetime

CHARS_MAX: Final = 8_000
NODES_MAX: Final = 500
DEPTH_MAX: Final = 40
UNSUPPORTED: Final = {
    "trace_annotations": "of annotations those of the span can be asked for: annotations['name']",
    "cumulative_token_count": "sums over the spans below are not supported",
    "parent_span": "of a parent only `parent_span is None` and `is not None` can be asked",
}
"""Names that Phoenix knows and this server does not; an attribute of that name is written attributes['…']."""

ALIASES: Final = {"context.span_id": "span_id", "context.trace_id": "trace_id"}
FIELDS: Final[Mapping[str, Callable[[SpanView], Any]]] = {
    "span_id": lambda view: view.span_id,
    "trace_id": lambda view: view.trace_id,
    "parent_id": lambda view: view.row.detail.span.parent_id,
    "span_kind": lambda view: view.kind_asked,
    "name": lambda view: view.name,
    "status_code": lambda view: view.status_code,
    "status_message": lambda view: view.told.status_message,
    "latency_ms": lambda view: (view.row.detail.span.end_ns - view.row.detail.span.start_ns) / 1e6,
    "start_time": lambda view: view.row.detail.span.start_ns,
    "end_time": lambda view: view.row.detail.span.end_ns,
}
"""What a span has besides its attributes; times in Unix nanoseconds."""
TIMES: Final = frozenset({"start_time", "end_time"})
UPPER: Final = frozenset({"span_kind", "status_code"})
"""Compared with words in any case."""

ANNOTATIONS: Final = frozenset({"annotations", "evals"})
"""Two names of one thing, as in Phoenix."""
PARTS: Final = ("label", "score")

Scalar: TypeAlias = str | int | float | bool | None


class BadExpression(ValueError):
    """A text that is no condition; the message says why."""


@dataclass(frozen=True, slots=True)
class Const:
    """A value, or a list of values."""

    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """One of FIELDS."""

    name: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute, or the object of all that begin with its key and a dot."""

    key: str


@dataclass(frozen=True, slots=True)
class Said:
    """What annotations of one name say of the span; `part` None: that there are any."""

    name: str
    part: str | None


@dataclass(frozen=True, slots=True)
class Cast:
    """A value as `str`, `int` or `float`."""

    to: str
    child: Operand


@dataclass(frozen=True, slots=True)
class Comparison:
    """`==`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `not in`."""

    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class IsMissing:
    """`is None`."""

    child: Operand


@dataclass(frozen=True, slots=True)
class IsOrphan:
    """`parent_span is None`: no parent, or one that is not there."""


@dataclass(frozen=True, slots=True)
class Every:
    """`and`."""

    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """`or`."""

    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """`not`."""

    child: Node


Operand: TypeAlias = Const | Named | Attribute | Said | Cast
Node: TypeAlias = Comparison | IsMissing | IsOrphan | Every | Some | Negation

_OPERATORS: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_SWAPPED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_CASTS: Final = frozenset({"str", "int", "float"})


def parse_condition(text: str) -> Node:
    """The tree of a condition. Raises BadExpression."""
    if len(text) > CHARS_MAX:
        raise BadExpression(f"a condition has at most {CHARS_MAX} characters")
    return _Reader(text).node(_parsed(text), 0)


def parse_projection(text: str) -> Named | Attribute:
    """What a table shows in one column. Raises BadExpression."""
    if len(text) > CHARS_MAX:
        raise BadExpression(f"a name has at most {CHARS_MAX} characters")
    found = _Reader(text).operand(_parsed(text), 0)
    if not isinstance(found, Named | Attribute):
        raise BadExpression(f"{text[:100]!r} is no field and no attribute")
    return found


Chosen: TypeAlias = Mapping[str, Annotation | None]
"""One annotation of each name that a comparison names."""
NONE_CHOSEN: Final[Chosen] = {}


def value_of(operand: Operand, view: SpanView, chosen: Chosen = NONE_CHOSEN) -> Any:
    """What a span has there; None: nothing."""
    match operand:
        case Const():
            return operand.value
        case Named():
            return FIELDS[operand.name](view)
        case Attribute():
            return attribute_of(view, operand.key)
        case Said():
            said = chosen.get(operand.name)
            return said if said is None or operand.part is None else getattr(said, operand.part)
        case Cast():
            return _cast(operand.to, value_of(operand.child, view, chosen))


def attribute_of(view: SpanView, key: str) -> Any:
    """An attribute of a span: the value under a key, or the object or list that keys beginning with it make up."""
    attributes = view.told.attributes
    if key in attributes:
        return attributes[key]
    return nested(attributes, key)


def nothing_said(_view: SpanView, _name: str) -> Sequence[Annotation]:
    """Of a span that nobody has annotated."""
    return ()


def holds(
    node: Node,
    view: SpanView,
    is_orphan: Callable[[SpanView], bool],
    said: Callable[[SpanView, str], Sequence[Annotation]] = nothing_said,
) -> bool | None:
    """Whether a condition holds for a span; None: unknown.

    Args:
        is_orphan: whether a span has no parent that is there.
        said: the annotations of a name about the span itself. Of several one that meets a comparison is enough.
    """
    match node:
        case Every() | Some():
            # `and` is decided by the first False, `or` by the first True; otherwise one unknown makes all unknown.
            decides = isinstance(node, Some)
            found: bool | None = not decides
            for child in node.children:
                each = holds(child, view, is_orphan, said)
                if each is decides:
                    return decides
                found = None if each is None else found
            return found
        case Negation():
            inner = holds(node.child, view, is_orphan, said)
            return None if inner is None else not inner
        case IsMissing():
            return all(value_of(node.child, view, each) is None for each in _choices((node.child,), view, said))
        case IsOrphan():
            return is_orphan(view)
        case Comparison():
            told = {
                _compare(node.operator, value_of(node.left, view, each), value_of(node.right, view, each))
                for each in _choices((node.left, node.right), view, said)
            }
            return True if True in told else False if False in told else None


def _choices(
    operands: Sequence[Operand], view: SpanView, said: Callable[[SpanView, str], Sequence[Annotation]]
) -> Iterator[Chosen]:
    """Every choice of one annotation of each name that the operands name; None stands in where there is none."""
    names = sorted({name for operand in operands if (name := name_said(operand)) is not None})
    for chosen in itertools.product(*(said(view, name) or (None,) for name in names)):
        yield dict(zip(names, chosen, strict=True))


def name_said(operand: Operand) -> str | None:
    """The annotations that an operand is about."""
    while isinstance(operand, Cast):
        operand = operand.child
    return operand.name if isinstance(operand, Said) else None


def _parsed(text: str) -> ast.expr:
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadExpression(f"{text[:100]!r} is no valid expression") from None
    if sum(1 for _ in ast.walk(body)) > NODES_MAX:
        raise BadExpression(f"an expression has at most {NODES_MAX} parts")
    return body


class _Reader:
    """From Python's tree to ours."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()

    def node(self, found: ast.expr, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise BadExpression("the expression is nested too deep")
        match found:
            case ast.BoolOp():
                children = tuple([self.node(each, depth + 1) for each in found.values])
                return Every(children) if isinstance(found.op, ast.And) else Some(children)
            case ast.UnaryOp(op=ast.Not()):
                return Negation(self.node(found.operand, depth + 1))
            case ast.Compare():
                return self._comparisons(found, depth)
            case ast.Constant(value=bool()):
                return Comparison("==", Const(bool(found.value)), Const(True))
            case ast.Subscript():
                said = self._named(found)
                if isinstance(said, Said) and said.part is None:
                    return Negation(IsMissing(said))
        raise self._refusal(found, "a comparison, or several joined by and, or and not, is needed")

    def operand(self, found: ast.expr, depth: int) -> Operand:
        if depth > DEPTH_MAX:
            raise BadExpression("the expression is nested too deep")
        match found:
            case ast.Constant(value=str() | bool() | int() | float() | None):
                return Const(_bounded(found.value))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                if not isinstance(value, bool):
                    return Const(-_bounded(value))  # type: ignore[operator]
            case ast.List() | ast.Tuple():
                return self._constants(found, depth)
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in _CASTS:
                return Cast(name, self.operand(inner, depth + 1))
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return self._named(found)
        raise self._refusal(found, "a field, an attribute, a text or a number is needed")

    def _constants(self, found: ast.List | ast.Tuple, depth: int) -> Const:
        values: list[Scalar] = []
        for each in found.elts:
            inner = self.operand(each, depth + 1)
            if not isinstance(inner, Const) or isinstance(inner.value, tuple):
                raise self._refusal(each, "a list holds texts and numbers only")
            values.append(inner.value)
        return Const(tuple(values))

    def _comparisons(self, found: ast.Compare, depth: int) -> Node:
        made: list[Node] = []
        lefts = [found.left, *found.comparators[:-1]]
        for left, operator, right in zip(lefts, found.ops, found.comparators, strict=True):
            made.append(self._comparison(left, operator, right, depth + 1))
        return made[0] if len(made) == 1 else Every(tuple(made))

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr, depth: int) -> Node:
        is_none = isinstance(right, ast.Constant) and right.value is None
        if isinstance(operator, ast.Is | ast.IsNot) or (is_none and isinstance(operator, ast.Eq | ast.NotEq)):
            if not is_none:
                raise self._refusal(right, "`is` compares with None only")
            is_parent = isinstance(left, ast.Name) and left.id == "parent_span"
            missing: Node = IsOrphan() if is_parent else IsMissing(self.operand(left, depth))
            return missing if isinstance(operator, ast.Is | ast.Eq) else Negation(missing)
        if is_none:
            raise self._refusal(right, "None is compared by `is` and `is not`")
        word = _OPERATORS[type(operator)]
        one, other = self.operand(left, depth), self.operand(right, depth)
        for each, written in ((one, left), (other, right)):
            if isinstance(each, Said) and each.part is None:
                raise self._refusal(written, "compare its .label or its .score, or ask whether it `is None`")
        if word not in ("in", "not in"):
            if isinstance(one, Const) and not isinstance(other, Const):
                word, one, other = _SWAPPED[word], other, one
            if isinstance(other, Const) and isinstance(other.value, tuple):
                raise self._refusal(right, "a list is compared by `in` only")
        return Comparison(word, one, _fitting(one, other))

    def _named(self, found: ast.expr) -> Named | Attribute | Said:
        path = self._path(found)
        dotted = ".".join(path)
        name = ALIASES.get(dotted, dotted)
        if name in FIELDS:
            return Named(name)
        if path[0] in ANNOTATIONS:
            name, *part = path[1:] or [""]
            if name and (not part or (len(part) == 1 and part[0] in PARTS)):
                return Said(name, part[0] if part else None)
            raise self._refusal(found, f"of annotations can be asked {path[0]}['name'], its .label and its .score")
        if path[0] in UNSUPPORTED:
            raise self._refusal(found, UNSUPPORTED[path[0]])
        if path[0] == "attributes" and len(path) > 1:
            return Attribute(".".join(path[1:]))
        if len(path) > 1 or dotted == "metadata":
            return Attribute(dotted)
        raise self._refusal(found, f"there is no field of this name; an attribute is written attributes['{dotted}']")

    def _path(self, found: ast.expr) -> list[str]:
        match found:
            case ast.Name():
                # Python reads look-alikes of ASCII letters as these; what is written must be what is meant.
                if ast.get_source_segment(self._text, found) != found.id:
                    raise self._refusal(found, "a name is written in plain letters")
                return [found.id]
            case ast.Attribute():
                return [*self._path(found.value), found.attr]
            case ast.Subscript(slice=ast.Constant(value=str() | int() as key)) if not isinstance(key, bool):
                return [*self._path(found.value), str(key)]
            case ast.Subscript(slice=ast.List(elts=keys)):
                texts = [each.value for each in keys if isinstance(each, ast.Constant) and isinstance(each.value, str)]
                if len(texts) == len(keys) and texts:
                    return [*self._path(found.value), *texts]
        raise self._refusal(found, "only names, dots and keys in brackets lead to a value")

    def _refusal(self, found: ast.expr, why: str) -> BadExpression:
        said = ast.get_source_segment(self._text, found) or self._text
        return BadExpression(f"{said[:100]!r}: {why}")


def _bounded(value: Any) -> Scalar:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise BadExpression("the number is out of range")
    scalar: Scalar = value
    return scalar


def _fitting(field: Operand, value: Operand) -> Operand:
    """Constants in the form of the field that they are compared with."""
    if not isinstance(field, Named) or not isinstance(value, Const):
        return value
    change = _time_ns if field.name in TIMES else _upper if field.name in UPPER else None
    if change is None:
        return value
    if isinstance(value.value, tuple):
        return Const(tuple([change(each) for each in value.value]))
    return Const(change(value.value))


def _upper(value: Scalar) -> Scalar:
    return value.upper() if isinstance(value, str) else value


def _time_ns(value: Scalar) -> Scalar:
    if not isinstance(value, str):
        raise BadExpression("a time is compared with a text such as '2026-01-31T12:00:00Z'")
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise BadExpression(f"{value[:100]!r} is no time") from None
    return ns_from_datetime(at if at.tzinfo else at.replace(tzinfo=UTC))


def _cast(to: str, value: Any) -> Any:
    if value is None or isinstance(value, list | dict):
        return None
    if to == "str":
        return value if isinstance(value, str) else json.dumps(value)
    try:
        number = float(value)
        return int(number) if to == "int" else number
    except (ValueError, OverflowError):
        return None


def _compare(operator: str, left: Any, right: Any) -> bool | None:
    if operator in ("in", "not in"):
        found = _contained(left, right)
        return found if found is None or operator == "in" else not found
    if left is None or right is None:
        return None
    left, right = _aligned(left, right)
    if operator in ("==", "!="):
        is_equal: bool = _kind(left) is _kind(right) and left == right
        return is_equal is (operator == "==")
    if _kind(left) is not _kind(right) or _kind(left) not in (str, float):
        return None
    ordered: dict[str, Callable[[], bool]] = {
        "<": lambda: left < right, "<=": lambda: left <= right, ">": lambda: left > right, ">=": lambda: left >= right,
    }  # fmt: skip
    return ordered[operator]()


def _contained(value: Any, holder: Any) -> bool | None:
    """`value in holder`: one of a list, or within a text, whose case does not matter then."""
    if value is None or holder is None:
        return None
    if isinstance(holder, list | tuple):
        found = [_compare("==", each, value) for each in holder]
        return True if True in found else None if None in found else False
    if isinstance(holder, str) and isinstance(value, str):
        return value.casefold() in holder.casefold()
    return None


def _aligned(left: Any, right: Any) -> tuple[Any, Any]:
    """A number and a text that is one as two numbers."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str) and _kind(other) is float:
            number = _cast("float", one)
            if number is not None:
                return (number, right) if one is left else (left, number)
    return left, right


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
