"""The filter's syntax tree: immutable, dialect-free, already checked.

Values are in the form of their field's type (see values.py): text as `str`, numbers, dollars and seconds as
`Decimal`, times as Unix nanoseconds (`int`), truth values as `bool`. `values.make_condition` is the way to build
a condition from what a caller wrote; a tree built by hand must keep to the same forms.

How span-level conditions bind. All span-level conditions that are direct children of one AND group hold on the
*same* span; so does a lone condition on some span. Children of an OR group, and conditions in another group
(nested or not), each look for a span of their own. Trace-level and metadata conditions never bind to a span.

Expressions about one span. The same nodes also say things about a single span: there every span-level condition is
about that span, however deep it stands, and a trace-level condition is about its trace. `RootSpan` and `SomeSpan` turn
to the root and to any span of the same trace; `SomeEntry` to one entry of what the span carries many of. A filter of
traces becomes one about a span inside `RootSpan`, `SomeSpan` and `SomeEntry`; a `SomeEntry` outside of them is on
some span of the trace. Which of the two an expression is follows from where it is used (compile_where, compile_span).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from clearspan.query.fields import Collection, Field
from clearspan.query.operators import Operator

Value: TypeAlias = str | Decimal | int | bool
Connector: TypeAlias = Literal["AND", "OR"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One field against zero (presence tests), one or several (equality) values."""

    field: Field
    operator: Operator
    values: tuple[Value, ...] = ()
    key: str | None = None  # of `metadata__<key>` or `scores__<name>`; None for every other field


@dataclass(frozen=True, slots=True)
class Group:
    """All (AND) or any (OR) of the children. AND of nothing is true, OR of nothing is false."""

    connector: Connector
    children: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Whatever the child does not hold for, missing values included: two-valued."""

    child: Expr


@dataclass(frozen=True, slots=True)
class RootSpan:
    """The child, an expression about one span, holds for the root span; never for a trace without spans."""

    child: Expr


@dataclass(frozen=True, slots=True)
class SomeSpan:
    """The child, an expression about one span, holds for at least one span of the trace."""

    child: Expr


@dataclass(frozen=True, slots=True)
class SomeEntry:
    """The child, an expression about one entry, holds for at least one entry of a collection of the span.

    The child names fields of that collection only, and all of them mean the same entry.
    """

    collection: Collection
    child: Expr


Expr: TypeAlias = Condition | Group | Not | RootSpan | SomeSpan | SomeEntry


def conditions(expr: Expr) -> Iterator[Condition]:
    """Every condition of a tree, left to right."""
    if isinstance(expr, Condition):
        yield expr
    else:
        for child in children_of(expr):
            yield from conditions(child)


def children_of(expr: Expr) -> tuple[Expr, ...]:
    """What stands directly inside a node."""
    if isinstance(expr, Condition):
        return ()
    return expr.children if isinstance(expr, Group) else (expr.child,)


def conjuncts(expr: Expr) -> Iterator[Expr]:
    """Parts that must all hold: the children of nested AND groups, else the expression itself.

    For planning only (an index or a search may narrow by each of them). Never rebuild a tree from them: which
    span-level conditions share a span depends on the groups they stood in.
    """
    if isinstance(expr, Group) and expr.connector == "AND":
        for child in expr.children:
            yield from conjuncts(child)
    else:
        yield expr
