"""What must hold before anything may be deleted: small pure functions, shared by every dialect and rule.

A guard looks at the request alone (`BEFORE_PLAN`) or at the request and the number of matches (`AFTER_PLAN`), and
raises; the first objection wins. Nothing has been recorded or changed when one does. The limits of the key that asks
(policy.py) are guards like the others.
"""

from __future__ import annotations

from collections.abc import Callable

from clearspan.deletion.annotations import says_nothing
from clearspan.deletion.policy import PPM
from clearspan.deletion.request import ByAnnotations, ByFilter, ByIds, BySpans, DeletionRequest
from clearspan.model.clock import datetime_from_ns
from clearspan.model.errors import Conflict, InvalidFilter, Unguarded
from clearspan.query.ast import Condition, Expr, Group, Not, children_of
from clearspan.store.port import DeletionKind
from clearspan.store.span_deletion import SPANS_MAX

RequestGuard = Callable[[DeletionRequest], None]
MatchGuard = Callable[[DeletionRequest, int, int], None]

PLAN_MAX = 1_000_000
"""No deletion lists more traces or annotations than this; larger ones are asked for in parts."""


SPAN_COPIES_MAX = 1_000
"""Nor one of spans more traces with copies of them than this: its hide is one transaction."""


def need_selection(request: DeletionRequest) -> None:
    """An empty filter would match everything, an empty id list nothing: neither is what anybody meant."""
    match request.selection:
        case ByFilter(where) if where is None or is_always_true(where):
            raise InvalidFilter(
                "A deletion needs a filter with at least one condition; nothing was deleted.",
                code="empty_filter",
                fields=("filters",),
            )
        case ByAnnotations() as selection if says_nothing(selection):
            raise InvalidFilter(
                "A deletion of annotations needs at least one condition; nothing was deleted.",
                code="empty_filter",
                fields=("annotations",),
            )
        case ByIds(()):
            raise InvalidFilter("A deletion by id needs at least one trace id; nothing was deleted.", code="empty_ids")
        case BySpans(()):
            raise InvalidFilter(
                "A deletion of spans needs at least one span id; nothing was deleted.", code="empty_ids"
            )


def need_bounds(request: DeletionRequest) -> None:
    """A filter needs a window with two ends, or the word that none is meant. Ids name their traces themselves."""
    window, selection = request.window, request.selection
    names_them = isinstance(selection, ByIds | BySpans)
    names_them = names_them or (isinstance(selection, ByAnnotations) and selection.names_them)
    if names_them or request.delete_all:
        return
    if window.start_ns is None or window.end_ns is None:
        raise Unguarded(
            "A deletion by filter needs start_time and end_time, or delete_all; nothing was deleted.",
            code="unbounded_window",
            fields=("start_time", "end_time"),
        )


def within_limit(request: DeletionRequest, matched: int, copies: int = 0) -> None:
    """The dialect's limit on one request. All or nothing: never the first N.

    Args:
        copies: how many of the matches are copies of others. The dialect's limit is on what its caller lists, and does
            not count them; every other limit does.
    """
    limit = plan_limit(request)
    if request.kind is DeletionKind.SPANS and copies > SPAN_COPIES_MAX:
        raise Unguarded(
            f"More than {SPAN_COPIES_MAX:,} traces hold copies of these spans, the most that may go with spans. "
            "Delete those first, or leave them (leave_copies); nothing was deleted.",
            code="too_many_matches",
        )
    if matched - copies > limit or matched > PLAN_MAX:
        limit = limit if matched - copies > limit else PLAN_MAX
        raise Unguarded(
            f"More than {limit:,} {request.kind} match, the most that one request may delete. "
            "Narrow the filter or the time window; nothing was deleted.",
            code="too_many_matches",
        )


def as_expected(request: DeletionRequest, matched: int, copies: int = 0) -> None:
    """The caller's own precondition: on every trace that would go."""
    if request.expected_count is not None and matched != request.expected_count:
        more = f", {copies} of them because they hold copies of the others" if copies else ""
        raise Conflict(
            f"{request.expected_count} {request.kind} were expected to match and {matched} do{more}; "
            "nothing was deleted.",
            code="expected_count_mismatch",
            fields=("expected_count",),
        )


def explicit_window(request: DeletionRequest) -> None:
    """In strict mode a window that a dialect fills in by itself is an error, not a surprise."""
    is_strict = request.strict_window or request.policy.strict_window
    if is_strict and request.window_is_implicit and not isinstance(request.selection, ByIds):
        raise Unguarded(
            "A deletion by filter needs a start_time here: no default stands in for it; nothing was deleted.",
            code="implicit_window",
            fields=("start_time",),
        )


def permitted_by_policy(request: DeletionRequest) -> None:
    """What the key's policy asks of every request, whatever it matches."""
    policy = request.policy
    if policy.require_reason and not (request.reason or "").strip():
        raise Unguarded(
            "This API key may delete only with a reason; nothing was deleted.",
            code="reason_required",
            fields=("reason",),
        )
    if policy.forbid_delete_all and request.delete_all:
        raise Unguarded(
            "This API key may not use delete_all; nothing was deleted.",
            code="delete_all_forbidden",
            fields=("delete_all",),
        )


def within_key_limit(request: DeletionRequest, matched: int, _copies: int = 0) -> None:
    """The most traces that one deletion of this key may match."""
    limit = request.policy.max_traces
    if limit is not None and matched > limit:
        raise Unguarded(
            f"More than {limit:,} {request.kind} match, the most that this API key may delete at once; "
            "nothing was deleted.",
            code="key_limit_exceeded",
        )


def within_key_share(request: DeletionRequest, matched: int, visible: int) -> None:
    """The largest part of what the caller can see that one deletion of this key may match.

    Args:
        visible: traces in the request's scope that reads show now.
    """
    share = request.policy.max_share_ppm
    if share is not None and matched * PPM > visible * share:
        raise Unguarded(
            f"{matched:,} of {visible:,} {request.kind} match; this API key may delete at most "
            f"{share / 10_000:g} % at once. Nothing was deleted.",
            code="key_share_exceeded",
        )


def within_patience(request: DeletionRequest) -> None:
    """Until `not_before` the traces are hidden and lie in the store all the same: a mistyped year must not mean that
    nobody sees them and nothing erases them for centuries."""
    asked, latest = request.not_before_ns, request.not_before_max_ns
    if asked is not None and latest is not None and asked > latest:
        limit = datetime_from_ns(latest).isoformat(timespec="seconds").replace("+00:00", "Z")
        raise Unguarded(
            f"not_before may be {limit} at the latest (setting not_before_days_max); nothing was deleted.",
            code="not_before_too_late",
            fields=("not_before",),
        )


BEFORE_PLAN: tuple[RequestGuard, ...] = (
    need_selection,
    need_bounds,
    explicit_window,
    within_patience,
    permitted_by_policy,
)
AFTER_PLAN: tuple[MatchGuard, ...] = (within_key_limit, within_limit, as_expected)


def check_request(request: DeletionRequest) -> None:
    """Every guard that needs the request alone. Raises InvalidFilter or Unguarded."""
    for guard in BEFORE_PLAN:
        guard(request)


def check_matches(request: DeletionRequest, matched: int, count_visible: Callable[[], int], copies: int = 0) -> None:
    """Every guard that needs the number of matches. Raises Unguarded or Conflict.

    Args:
        count_visible: asked only when the key's policy limits the share.
        copies: how many of the matches are there as copies of others (linked.py).
    """
    for guard in AFTER_PLAN:
        guard(request, matched, copies)
    if request.policy.max_share_ppm is not None:
        within_key_share(request, matched, count_visible())


def plan_limit(request: DeletionRequest) -> int:
    """How many matches are worth listing: one more than this is already too many."""
    kind_max = SPANS_MAX if request.kind is DeletionKind.SPANS else PLAN_MAX
    limits = (kind_max, request.matches_max, request.policy.max_traces)
    return min(limit for limit in limits if limit is not None)


def is_always_true(expr: Expr) -> bool:
    """Whether a filter's form alone says that it excludes nothing: groups without conditions, at any depth."""
    return _said_by_form(expr) is True


def _said_by_form(expr: Expr) -> bool | None:
    """What a filter answers whatever the trace; None: that depends."""
    if isinstance(expr, Condition):
        return None
    inside = [_said_by_form(child) for child in children_of(expr)]
    if isinstance(expr, Not):
        return None if inside[0] is None else not inside[0]
    decisive = isinstance(expr, Group) and expr.connector == "OR"
    if decisive in inside:
        return decisive
    return None if None in inside else not decisive
