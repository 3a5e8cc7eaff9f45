"""Filtering and sorting what the Catalog holds, in Python: an organisation has hundreds of definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clearspan.model.errors import InvalidPage
from clearspan.query.ast import Condition, Expr, Group, Not


def satisfies(expr: Expr | None, holds: Callable[[Condition], bool]) -> bool:
    """Whether a filter is satisfied by what answers its conditions; None is satisfied by everything."""
    match expr:
        case None:
            return True
        case Condition():
            return holds(expr)
        case Not():
            return not satisfies(expr.child, holds)
        case Group():
            found = (satisfies(child, holds) for child in expr.children)
            return all(found) if expr.connector == "AND" else any(found)
    raise AssertionError("a definition has no spans")


def parse_sort_by(sort_by: str, allowed: Sequence[str]) -> tuple[str, bool]:
    """The name, and whether it is descending. Raises InvalidPage for a name that is not allowed."""
    name = sort_by.removeprefix("-")
    if name not in allowed:
        raise InvalidPage(
            f"cannot sort by `{sort_by[:100]}`; allowed, each with an optional leading `-`: {', '.join(allowed)}",
            fields=("sort_by",),
        )
    return name, sort_by.startswith("-")
