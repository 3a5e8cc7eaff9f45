"""What must hold before anything may be deleted: small pure functions, shared by every dialect and rule.

A guard looks at the request alone (`BEFORE_PLAN`) or at the request and the number of matches (`AFTER_PLAN`), and
raises; the first objection wins. Nothing has been recorded or changed when one does. A policy of a key or project
is one more function of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable

from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.model.errors import Conflict, InvalidFilter, Unguarded
from clearspan.query.ast import Condition, Expr

RequestGuard = Callable[[DeletionRequest], None]
MatchGuard = Callable[[DeletionRequest, int], None]

PLAN_MAX = 1_000_000
"""No deletion lists more traces than this; larger ones are asked for in parts."""


def need_selection(request: DeletionRequest) -> None:
    """An empty filter would match everything, an empty id list nothing: neither is what anybody meant."""
    match request.selection:
        case ByFilter(where) if where is None or is_always_true(where):
            raise InvalidFilter(
                "A deletion needs a filter with at least one condition; nothing was deleted.",
                code="empty_filter",
                fields=("filters",),
            )
        case ByIds(()):
            raise InvalidFilter("A deletion by id needs at least one trace id; nothing was deleted.", code="empty_ids")


def need_bounds(request: DeletionRequest) -> None:
    """A filter needs a window with two ends, or the word that none is meant. Ids name their traces themselves."""
    window = request.window
    if isinstance(request.selection, ByIds) or request.delete_all:
        return
    if window.start_ns is None or window.end_ns is None:
        raise Unguarded(
            "A deletion by filter needs start_time and end_time, or delete_all; nothing was deleted.",
            code="unbounded_window",
            fields=("start_time", "end_time"),
        )


def within_limit(request: DeletionRequest, matched: int) -> None:
    """The dialect's limit on one request. All or nothing: never the first N."""
    limit = plan_limit(request)
    if matched > limit:
        raise Unguarded(
            f"More than {limit:,} traces match, the most that one request may delete. "
            "Narrow the filter or the time window; nothing was deleted.",
            code="too_many_matches",
        )


def as_expected(request: DeletionRequest, matched: int) -> None:
    """The caller's own precondition."""
    if request.expected_count is not None and matched != request.expected_count:
        raise Conflict(
            f"{request.expected_count} traces were expected to match and {matched} do; nothing was deleted.",
            code="expected_count_mismatch",
            fields=("expected_count",),
        )


BEFORE_PLAN: tuple[RequestGuard, ...] = (need_selection, need_bounds)
AFTER_PLAN: tuple[MatchGuard, ...] = (within_limit, as_expected)


def plan_limit(request: DeletionRequest) -> int:
    """How many matches are worth listing: one more than this is already too many."""
    return PLAN_MAX if request.matches_max is None else min(PLAN_MAX, request.matches_max)


def is_always_true(expr: Expr) -> bool:
    """Whether a filter's form alone says that it excludes nothing: groups without conditions, at any depth."""
    if isinstance(expr, Condition):
        return False
    decide = all if expr.connector == "AND" else any
    return decide(is_always_true(child) for child in expr.children)
