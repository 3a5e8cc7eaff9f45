"""The table of states."""

from __future__ import annotations

import itertools

import pytest

from clearspan.deletion.state import FINAL, MOVES, DeletionState, check_move
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


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)))
def test_moves_outside_the_table_raise(before: DeletionState, after: DeletionState) -> None:
    if after in MOVES[before]:
        check_move(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"{before} to {after}"):
            check_move(before, after)
