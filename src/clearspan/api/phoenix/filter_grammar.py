"""Phoenix's filter expressions: Python's syntax, read into the closed tree of query/ast.py and never run.

What may be named is a Vocabulary's matter (trace_filters, session_filters); what may be said of it stands here:
`and`, `or`, `not`, comparisons with constants (chained ones too), `in` a list, text `in` a field, `is None`, and
`any(… for x in …)` or `all(…)`, within which only the loop's own variable may be named. Everything else is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final

from clearspan.model.errors import InvalidFilter
from clearspan.query.ast import Expr, Group, Not
from clearspan.query.evaluate import holds
from clearspan.query.fields import Field, FieldType
from clearspan.query.operators import EQUALITY, NEGATIONS, Operator
from clearspan.query.values import make_condition

CHARS_MAX: Final = 4_000
NODES_MAX: Final = 400
DEPTH_MAX: Final = 30
ALWAYS: Final = Group("AND", ())
NEVER: Final = Group("OR", ())

Wrap = Callable[[Expr], Expr]
Words = Callable[[str, Sequence[object]], Sequence[object]]
"""(name as written, values of a filter) → the values that are stored. Raises InvalidFilter."""

_NUMBERS: Final = frozenset({FieldType.INT, FieldType.MONEY, FieldType.DURATION, FieldType.SECONDS})
_TEXTS: Final = frozenset({FieldType.TEXT, FieldType.ID, FieldType.METADATA})
_OPERATORS: Final[Mapping[type[ast.cmpop], Operator]] = {
    ast.Eq: Operator.EQUALS, ast.NotEq: Operator.NOT, ast.Lt: Operator.LT, ast.LtE: Operator.LTE,
    ast.Gt: Operator.GT, ast.GtE: Operator.GTE, ast.In: Operator.IN, ast.NotIn: Operator.NOT_IN,
}  # fmt: skip
_TURNED: Final = {
    Operator.LT: Operator.GT, Operator.LTE: Operator.GTE, Operator.GT: Operator.LT, Operator.GTE: Operator.LTE,
    Operator.EQUALS: Operator.EQUALS, Operator.NOT: Operator.NOT,
}  # fmt: skip


def identity(expr: Expr) -> Expr:
    """The expression as it is."""
    return expr


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that a filter may compare.

    Attributes:
        wrap: from a condition on the field to an expression about what is listed.
        also: what must hold beside it, of the same span or entry.
        shift: the filter's unit is 10 ** -shift of the field's: milliseconds of a duration are 3.
        is_zero: a missing value reads 0.
        words: how the filter's values are stored.
        is_there_only: it can be asked for its presence, and nothing else.
    """

    field: Field
    wrap: Wrap = identity
    also: tuple[Expr, ...] = ()
    shift: int = 0
    is_zero: bool = False
    words: Words | None = None
    is_there_only: bool = False

    def is_missing(self, name: str) -> Expr:
        """`is None`."""
        if self.is_zero:
            return NEVER
        return Not(self._wrapped(make_condition(name, self.field, Operator.IS_NOT_NULL, [])))

    def compare(self, name: str, operator: Operator, values: Sequence[object]) -> Expr:
        """A comparison; a missing value meets none. Raises InvalidFilter."""
        if self.is_there_only:
            raise refusal(name, "compare its .label or .score, or ask whether it `is None`")
        if self.field.type in _NUMBERS:
            values = [self._number(name, value) for value in values]
        elif self.words is not None:
            if operator not in EQUALITY:
                raise refusal(name, "only ==, !=, in and not in fit here")
            values = self.words(name, values)
            operator = Operator.NOT_IN if operator in NEGATIONS else Operator.IN
        made = make_condition(name, self.field, operator, values)
        if self.is_zero and holds(made, Fraction(0)):
            return Group("OR", (self.wrap(made), self.wrap(make_condition(name, self.field, Operator.IS_NULL, []))))
        return self._wrapped(made)

    def contains(self, name: str, text: object, *, negated: bool) -> Expr:
        """A text within it, whatever the case. Raises InvalidFilter."""
        if self.is_there_only or self.words is not None or self.field.type not in _TEXTS:
            raise refusal(name, "it is no text that may contain another")
        found: Expr = make_condition(name, self.field, Operator.ICONTAINS, [text])
        if negated:
            found = Group("AND", (make_condition(name, self.field, Operator.IS_NOT_NULL, []), Not(found)))
        return self._wrapped(found)

    def _wrapped(self, inner: Expr) -> Expr:
        return self.wrap(Group("AND", (*self.also, inner)) if self.also else inner)

    def _number(self, name: str, value: object) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refusal(name, "it is compared with a number")
        return Decimal(repr(value)).scaleb(-self.shift)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What may be named.

    Attributes:
        names: dotted name → what it means.
        keyed: the same for a name with a key in brackets; it gets the path, and gives None for what it does not know.
        collections: what `any` and `all` may go over → the names of one element, and how an expression about one
            becomes one that some element meets.
        refused: names that are known and cannot be asked for, and why.
    """

    names: Mapping[str, Subject]
    keyed: Callable[[tuple[str, ...]], Subject | None] = lambda _: None
    collections: Mapping[str, tuple[Vocabulary, Wrap]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def refusal(said: str, why: str) -> InvalidFilter:
    """An error that quotes what it is about."""
    return InvalidFilter(f"`{said[:100]}`: {why}", fields=("filter",))


def parse_filter(text: str, vocabulary: Vocabulary) -> Expr | None:
    """The tree of a filter; None for a blank one.

    Raises:
        InvalidFilter: it is no expression, or says what cannot be said here.
    Cost: about 10 µs a comparison.
    """
    text = text.strip()
    if not text:
        return None
    if len(text) > CHARS_MAX:
        raise InvalidFilter(f"A filter has at most {CHARS_MAX:,} characters.", fields=("filter",))
    try:
        body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InvalidFilter(str(error), fields=("filter",)) from None
    except (RecursionError, MemoryError):
        raise InvalidFilter("The filter is nested too deep.", fields=("filter",)) from None
    if sum(1 for _ in ast.walk(body)) > NODES_MAX:
        raise InvalidFilter(f"A filter has at most {NODES_MAX} parts.", fields=("filter",))
    return _Reader(text, vocabulary).expr(body, 0)


class _Reader:
    """From Python's tree to ours, in one vocabulary."""

    def __init__(self, text: str, vocabulary: Vocabulary, variable: str | None = None) -> None:
        """
        Args:
            variable: what names begin with inside a loop.
        """
        self._text = text
        self._vocabulary = vocabulary
        self._variable = variable

    def expr(self, found: ast.expr, depth: int) -> Expr:
        if depth > DEPTH_MAX:
            raise InvalidFilter("The filter is nested too deep.", fields=("filter",))
        match found:
            case ast.BoolOp():
                children = tuple([self.expr(each, depth + 1) for each in found.values])
                return Group("AND" if isinstance(found.op, ast.And) else "OR", children)
            case ast.UnaryOp(op=ast.Not()):
                return Not(self.expr(found.operand, depth + 1))
            case ast.Constant(value=bool()):
                return ALWAYS if found.value else NEVER
            case ast.Compare():
                return self._comparisons(found)
            case ast.Call(func=ast.Name(id="any" | "all" as word), args=[inner], keywords=[]):
                return self._quantified(word, inner, depth)
        raise self._refusal(found, "a comparison is needed, or several joined by and, or and not")

    def _quantified(self, word: str, found: ast.expr, depth: int) -> Expr:
        if not isinstance(found, ast.GeneratorExp | ast.ListComp) or len(found.generators) != 1:
            raise self._refusal(found, f"{word} goes over one collection: {word}(… for x in spans)")
        loop = found.generators[0]
        if loop.is_async or not isinstance(loop.target, ast.Name):
            raise self._refusal(found, f"{word} goes over one collection: {word}(… for x in spans)")
        name = ".".join(self._named(loop.iter))
        told = self._vocabulary.collections.get(name)
        if told is None:
            known = ", ".join(sorted(self._vocabulary.collections)) or "nothing"
            raise self._refusal(loop.iter, f"{word} cannot go over it; it can over: {known}")
        vocabulary, some = told
        inside = _Reader(self._text, vocabulary, loop.target.id)
        conditions = tuple([inside.expr(each, depth + 1) for each in loop.ifs])
        wanted = inside.expr(found.elt, depth + 1)
        if word == "any":
            return some(Group("AND", (*conditions, wanted)))
        return Not(some(Group("AND", (*conditions, Not(wanted)))))

    def _comparisons(self, found: ast.Compare) -> Expr:
        lefts = [found.left, *found.comparators[:-1]]
        made = [self._comparison(*each) for each in zip(lefts, found.ops, found.comparators, strict=True)]
        return made[0] if len(made) == 1 else Group("AND", tuple(made))

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Expr:
        is_none = isinstance(right, ast.Constant) and right.value is None
        if isinstance(operator, ast.Is | ast.IsNot) or (is_none and isinstance(operator, ast.Eq | ast.NotEq)):
            if not is_none:
                raise self._refusal(right, "`is` compares with None only")
            name, subject = self._subject(left)
            missing = subject.is_missing(name)
            return missing if isinstance(operator, ast.Is | ast.Eq) else Not(missing)
        word = _OPERATORS[type(operator)]
        if word in (Operator.IN, Operator.NOT_IN):
            if isinstance(left, ast.Constant):
                name, subject = self._subject(right)
                return subject.contains(name, left.value, negated=word is Operator.NOT_IN)
            name, subject = self._subject(left)
            return subject.compare(name, word, self._list(right))
        if _is_constant(left):
            left, word, right = right, _TURNED[word], left
        name, subject = self._subject(left)
        return subject.compare(name, word, [self._constant(right)])

    def _list(self, found: ast.expr) -> list[object]:
        if not isinstance(found, ast.List | ast.Tuple | ast.Set):
            raise self._refusal(found, "`in` needs a list of constants, or a text before it")
        if not found.elts:
            raise self._refusal(found, "the list is empty")
        return [self._constant(each) for each in found.elts]

    def _constant(self, found: ast.expr) -> object:
        match found:
            case ast.Constant(value=str() | bool() | int() | float()):
                return found.value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                if not isinstance(value, bool):
                    return -value
        raise self._refusal(found, "a text or a number is needed")

    def _subject(self, found: ast.expr) -> tuple[str, Subject]:
        """(as it was written, what it means)."""
        path = self._named(found)
        dotted = ".".join(path)
        subject = self._vocabulary.names.get(dotted) or self._vocabulary.keyed(path)
        if subject is None:
            for each in (dotted, path[0] if path else ""):
                if each in self._vocabulary.refused:
                    raise self._refusal(found, self._vocabulary.refused[each])
            raise self._refusal(found, f"unknown name; known are: {', '.join(self._vocabulary.names)}")
        return self._quoted(found), subject

    def _named(self, found: ast.expr) -> tuple[str, ...]:
        """The path of a name in this vocabulary: inside a loop without its variable."""
        path = self._path(found)
        if self._variable is None:
            return path
        if path[0] != self._variable:
            raise self._refusal(found, f"inside the loop only {self._variable} can be named")
        return path[1:]

    def _path(self, found: ast.expr) -> tuple[str, ...]:
        match found:
            case ast.Name():
                return (found.id,)
            case ast.Attribute():
                return (*self._path(found.value), found.attr)
            case ast.Subscript(slice=ast.Constant(value=str() as key)):
                return (*self._path(found.value), key)
        raise self._refusal(found, "a name is needed")

    def _refusal(self, found: ast.expr, why: str) -> InvalidFilter:
        return refusal(self._quoted(found), why)

    def _quoted(self, found: ast.expr) -> str:
        return ast.get_source_segment(self._text, found) or self._text


def _is_constant(found: ast.expr) -> bool:
    return isinstance(found, ast.Constant) or (
        isinstance(found, ast.UnaryOp) and isinstance(found.operand, ast.Constant)
    )
