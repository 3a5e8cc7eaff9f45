"""What a caller is told: never "deleted" of what is only hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clearspan.deletion.job import DeletionJob
from clearspan.deletion.result import DeletionResult, render_message, render_message_for_one, result_of
from clearspan.deletion.state import DeletionState
from clearspan.model.trace import Window

S = DeletionState
JOB = DeletionJob(
    deletion_id="del_1", org_id=1, requested_by="key_1", dialect="respan", project_ids=(1,), shape=(), scope_hash="",
    manifest_root="", window_start_ns=0, window_end_ns=3_600_000_000_000, window_is_implicit=False, matched=7,
    planned={}, request_hash=None, state=S.VERIFIED, hidden=4, already_absent=2, no_longer_matching=1,
)  # fmt: skip


def result(**changes: Any) -> DeletionResult:
    return result_of(replace(JOB, **changes))


def test_counts_add_up_in_every_state() -> None:
    for state in (S.HIDDEN, S.PURGED, S.VERIFIED, S.BLOCKED, S.FAILED):
        told = result(state=state)
        parts = told.hidden + told.already_absent + told.no_longer_matching + told.held + told.failed
        assert parts == told.matched == 7


def test_before_the_hide_there_is_no_result() -> None:
    with pytest.raises(ValueError, match="not been hidden"):
        result(hidden=None)


@pytest.mark.parametrize("state", [S.HIDDEN, S.PURGED, S.BLOCKED])
def test_hidden_is_not_called_deleted(state: DeletionState) -> None:
    assert render_message(result(state=state)) == "4 traces hidden; erasure in progress"
    assert render_message_for_one(result(state=state), "t") == "Trace t hidden; erasure in progress"


def test_verified_is_called_deleted_in_respans_words() -> None:
    assert render_message(result()) == "Successfully deleted 4 traces"
    assert render_message_for_one(result(), "t") == "Successfully deleted trace t"


def test_a_failure_is_told() -> None:
    told = result(state=S.FAILED)
    assert (told.hidden, told.failed) == (0, 4)
    assert "failed" in render_message(told)
    assert "del_1" in render_message(told)
    assert "failed" in render_message_for_one(told, "t")


def test_nothing_matched_says_so_and_names_an_implicit_window() -> None:
    nothing: dict[str, Any] = {"matched": 0, "hidden": 0, "already_absent": 0, "no_longer_matching": 0}
    assert render_message(result(**nothing)) == "No traces matched; nothing was deleted"
    told = render_message(result(**nothing, window_is_implicit=True))
    assert told.startswith("No traces matched from 1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z")
    assert told.endswith("nothing was deleted")
    assert "start_time" in told
    assert render_message_for_one(result(**nothing), "t") == "No trace t was found; nothing was deleted"


def test_matches_that_somebody_else_deleted_are_no_claim() -> None:
    told = render_message(result(hidden=0, already_absent=3, no_longer_matching=4))
    assert told == "3 traces were already being deleted, 4 traces no longer matched; nothing was deleted"
    assert "nothing was deleted" in render_message_for_one(result(hidden=0, already_absent=7), "t")


def test_absurd_windows_can_be_told() -> None:
    nothing: dict[str, Any] = {"matched": 0, "hidden": 0, "already_absent": 0, "no_longer_matching": 0}
    far = {"window_start_ns": -(2**63), "window_end_ns": None, "window_is_implicit": True}
    assert "any time" in render_message(result(**nothing, **far))
    assert result(**far).window == Window(-(2**63), None)
