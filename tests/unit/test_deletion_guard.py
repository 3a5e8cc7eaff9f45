"""What is refused before anything happens."""

from __future__ import annotations

from typing import Any

import pytest

from clearspan.deletion import guard
from clearspan.deletion.policy import Policy
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.model.errors import ClearspanError, Conflict, InvalidFilter, Unguarded
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group, Not, SomeSpan
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator

SOME = Condition(BY_NAME["customer_identifier"], Operator.EQUALS, ("anna",))
NOTHING_ASKED = Group("AND", ())


def request(selection: ByFilter | ByIds, **fields: Any) -> DeletionRequest:
    return DeletionRequest(
        org_id=1, requested_by="key_1", dialect="native", scope=Scope((1,)), selection=selection, **fields
    )


def refusal(asked: DeletionRequest, matched: int | None = None, visible: int = 10**9) -> ClearspanError | None:
    """What the guards object; None: they let it pass."""
    try:
        guard.check_request(asked)
        if matched is not None:
            guard.check_matches(asked, matched, lambda: visible)
    except ClearspanError as error:
        return error
    return None


def code(asked: DeletionRequest, matched: int | None = None, visible: int = 10**9) -> str | None:
    error = refusal(asked, matched, visible)
    assert error is None or "othing was deleted" in error.message
    return None if error is None else error.code


@pytest.mark.parametrize(
    "where",
    [
        None,
        NOTHING_ASKED,
        Group("AND", (NOTHING_ASKED, Group("AND", (NOTHING_ASKED,)))),
        Group("OR", (SOME, NOTHING_ASKED)),
        Not(Group("OR", ())),
        Not(Not(NOTHING_ASKED)),
        SomeSpan(NOTHING_ASKED),
    ],
)
def test_a_filter_that_excludes_nothing_is_refused(where: Expr | None) -> None:
    error = refusal(request(ByFilter(where), delete_all=True))
    assert isinstance(error, InvalidFilter)
    assert error.code == "empty_filter"


def test_no_ids_are_refused() -> None:
    assert isinstance(refusal(request(ByIds(()))), InvalidFilter)


@pytest.mark.parametrize("window", [Window(), Window(1, None), Window(None, 1)])
def test_a_filter_needs_two_bounds_or_the_word_for_none(window: Window) -> None:
    error = refusal(request(ByFilter(SOME), window=window))
    assert isinstance(error, Unguarded)
    assert error.code == "unbounded_window"
    assert refusal(request(ByFilter(SOME), window=window, delete_all=True)) is None
    assert refusal(request(ByIds(("t",)), window=window)) is None


def test_a_bounded_filter_passes() -> None:
    assert refusal(request(ByFilter(SOME), window=Window(1, 2))) is None
    assert refusal(request(ByFilter(Group("OR", (SOME, Group("OR", ())))), window=Window(1, 2))) is None


def test_the_dialects_limit_is_all_or_nothing() -> None:
    asked = request(ByIds(("t",)), matches_max=1000)
    assert refusal(asked, 1000) is None
    error = refusal(asked, 1001)
    assert isinstance(error, Unguarded)
    assert "1,000" in error.message


def test_without_a_limit_of_its_own_a_request_has_ours() -> None:
    asked = request(ByIds(("t",)))
    assert guard.plan_limit(asked) == guard.PLAN_MAX
    assert refusal(asked, guard.PLAN_MAX) is None
    assert isinstance(refusal(asked, guard.PLAN_MAX + 1), Unguarded)
    assert guard.plan_limit(request(ByIds(("t",)), matches_max=10**9)) == guard.PLAN_MAX


def test_an_expected_count_must_be_met() -> None:
    asked = request(ByIds(("t",)), expected_count=3)
    assert refusal(asked, 3) is None
    for matched in (0, 2, 4):
        error = refusal(asked, matched)
        assert isinstance(error, Conflict)
        assert error.code == "expected_count_mismatch"
    assert isinstance(refusal(request(ByIds(("t",)), expected_count=0), 1), Conflict)


def test_a_policy_limits_traces_and_share() -> None:
    asked = request(ByIds(("t",)), policy=Policy(max_traces=10, max_share_ppm=250_000))
    assert guard.plan_limit(asked) == 10
    assert code(asked, 10, 40) is None
    assert code(asked, 11, 1000) == "key_limit_exceeded"
    assert code(asked, 10, 39) == "key_share_exceeded"
    assert code(asked, 0, 0) is None
    assert code(asked, 1, 0) == "key_share_exceeded"
    error = refusal(asked, 10, 39)
    assert isinstance(error, Unguarded)
    assert "25 %" in error.message


def test_the_share_is_not_counted_unless_it_is_limited() -> None:
    guard.check_matches(request(ByIds(("t",)), policy=Policy(max_traces=5)), 5, lambda: pytest.fail("counted"))


def test_a_policy_can_ask_for_a_reason_and_forbid_delete_all() -> None:
    strict = Policy(require_reason=True, forbid_delete_all=True)
    assert code(request(ByIds(("t",)), policy=strict)) == "reason_required"
    assert code(request(ByIds(("t",)), policy=strict, reason=" \n")) == "reason_required"
    assert code(request(ByIds(("t",)), policy=strict, reason="asked")) is None
    assert code(request(ByFilter(SOME), policy=strict, reason="asked", delete_all=True)) == "delete_all_forbidden"
    assert code(request(ByFilter(SOME), policy=strict, reason="asked", window=Window(1, 2))) is None


@pytest.mark.parametrize("strict", [{"strict_window": True}, {"policy": Policy(strict_window=True)}])
def test_in_strict_mode_no_window_is_filled_in(strict: dict[str, Any]) -> None:
    window = Window(1, 2)
    assert code(request(ByFilter(SOME), window=window, window_is_implicit=True, **strict)) == "implicit_window"
    assert code(request(ByFilter(SOME), window=window, end_is_implicit=True, **strict)) is None
    assert code(request(ByFilter(SOME), window=window, **strict)) is None
    assert code(request(ByFilter(SOME), window=window, window_is_implicit=True)) is None
    assert code(request(ByIds(("t",)), **strict)) is None


def test_a_time_to_wait_for_has_a_latest() -> None:
    limit = 1_767_225_600_000_000_000
    asked = {"not_before_max_ns": limit}
    assert code(request(ByIds(("t",)), **asked)) is None
    assert code(request(ByIds(("t",)), not_before_ns=limit, **asked)) is None
    assert code(request(ByIds(("t",)), not_before_ns=limit + 1)) is None, "whoever sets no limit has none"
    error = refusal(request(ByIds(("t",)), not_before_ns=limit + 1, **asked))
    assert isinstance(error, Unguarded)
    assert (error.code, error.fields) == ("not_before_too_late", ("not_before",))
    assert "2026-01-01T00:00:00Z" in error.message
    assert "not_before_days_max" in error.message


def test_refusals_hold_no_value_of_the_request() -> None:
    asked = request(ByFilter(SOME), reason="because of anna", window=Window())
    error = refusal(asked)
    assert error is not None
    assert "anna" not in error.message
