"""The table of states."""

from __future__ import annotations

import itertools

import pytest

from clearspan.deletion.state import FINAL, FIRST, MOVES, DeletionState, check_move
from clearspan.model.errors import IllegalTransition

S = DeletionState


def test_every_state_is_in_the_table_and_reachable() -> None:
    assert set(MOVES) == set(S)
    reached = {S.PLANNED}
    while more := {after for state in reached for after in MOVES[state]} - reached:
        reached |= more
    assert reached == set(S)


def test_from_every_open_state_an_end_can_be_reached() -> None:
    for start in set(S) - FINAL:
        reached = {start}
        while more := {after for state in reached for after in MOVES[state]} - reached:
            reached |= more
        assert reached & FINAL


def test_verified_is_reached_from_purged_alone_and_never_left() -> None:
    assert [state for state in S if S.VERIFIED in MOVES[state]] == [S.PURGED]
    assert {S.VERIFIED, S.FAILED, S.CANCELLED} == FINAL


def test_of_the_ends_only_a_failed_one_can_be_left_and_only_to_be_tried_again() -> None:
    assert not MOVES[S.VERIFIED]
    assert not MOVES[S.CANCELLED]
    assert MOVES[S.FAILED] == {S.HIDDEN, S.PURGED}


def test_once_purged_nothing_is_cancelled() -> None:
    assert {state for state in S if S.CANCELLED in MOVES[state]} == {S.PLANNED, S.HIDDEN, S.BLOCKED}
    assert {S.PLANNED, S.BLOCKED} == FIRST


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)))
def test_moves_outside_the_table_raise(before: DeletionState, after: DeletionState) -> None:
    if after in MOVES[before]:
        check_move(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"{before} to {after}"):
            check_move(before, after)
