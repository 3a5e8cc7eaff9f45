"""Cancel before the first batch, wait for a time, try a failed one again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clearspan import faults
from clearspan.deletion.result import render_message
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Conflict, NotFound
from clearspan.store.port import child_id_of
from clearspan.testing.build import T0_NS, make_trace
from clearspan.testing.deletions import World, by_ids, hold_on, open_world
from clearspan.testing.stores import visible

S = DeletionState
HOUR_NS = 3_600_000_000_000


@pytest.fixture(params=[False, True], ids=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param) as made:
        yield made


def code_of(caught: pytest.ExceptionInfo[Conflict]) -> str:
    return caught.value.code


def test_a_deletion_that_waits_for_its_time_can_be_undone(world: World) -> None:
    before = visible(world.store, [1])
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1", "t2", not_before_ns=world.clock.now_ns() + HOUR_NS, idempotency_key="k"))
    assert (result.state, result.hidden) == (S.HIDDEN, 2)
    assert "t1" not in world.ids_left()
    for _ in range(10):
        deleter.run_due()
        world.clock.advance(61)
    assert deleter.overdue() == []
    assert deleter.status(result.deletion_id).waits_for(world.clock.now_ns()) == "not_before"
    status = deleter.cancel(result.deletion_id, by="key_3", reason="anna changed her mind")
    assert status.job.state is S.CANCELLED
    assert visible(world.store, [1]) == before
    (outcome,) = world.store.write([make_trace("t1", span_count=9)], received_ns=T0_NS)
    assert outcome.refused == 0
    assert status.progress is not None
    assert status.progress.request is None
    assert deleter.cancel(result.deletion_id, by="key_3").job.moves == status.job.moves, "a repeat does nothing"
    again = deleter.delete(by_ids("t1", "t2", not_before_ns=result.not_before_ns, idempotency_key="k"))
    assert (again.state, again.hidden, again.cancelled) == (S.CANCELLED, 0, 2)
    assert "visible again" in render_message(again)
    with pytest.raises(NotFound):
        deleter.receipt(result.deletion_id)


def test_at_its_time_it_goes_by_itself(world: World) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1", not_before_ns=world.clock.now_ns() + HOUR_NS))
    deleter = world.restarted()
    deleter.run_due()
    assert world.job(result.deletion_id).state is S.HIDDEN
    for _ in range(60):
        world.clock.advance(60)
        deleter.run_due()
    assert world.job(result.deletion_id).state is S.VERIFIED


def test_a_clock_set_forward_is_noticed_within_a_minute(world: World) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1", not_before_ns=world.clock.now_ns() + 100 * HOUR_NS))
    deleter.run_due()
    world.clock.jump(200 * 3600)
    world.clock.advance(60)
    deleter.run_due()
    assert world.job(result.deletion_id).state is S.VERIFIED


def test_the_reason_of_a_cancel_can_be_erased(world: World) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1"), wait_s=0)
    deleter.cancel(result.deletion_id, by="key_3", reason="anna changed her mind")
    if world.real is not None:
        entry = world.real.ledger(deletion_id=result.deletion_id)[-1]
        assert (entry.body["by"], len(entry.body["private_hash"])) == ("key_3", 64)
        assert "anna" not in str(entry)
        note = world.store.get_note(entry.body["private_ref"])
        assert note is not None
        assert b"anna changed her mind" in note[1]
        assert deleter.erase_note(entry.body["private_ref"])
        assert not deleter.erase_note(entry.body["private_ref"])


def test_once_a_batch_was_purged_there_is_no_way_back(world: World) -> None:
    deleter = world.deleter(rows_max=1)
    result = deleter.delete(by_ids("t1", "t2"), wait_s=0)
    with faults.armed("deletion.after_batch:1:crash"), pytest.raises(faults.Crash):
        deleter.run_due()
    deleter = world.restarted()
    with pytest.raises(Conflict) as caught:
        deleter.cancel(result.deletion_id, by="key_3")
    assert code_of(caught) == "purge_begun"
    deleter.run_due()
    assert world.job(result.deletion_id).state is S.VERIFIED
    with pytest.raises(Conflict) as caught:
        deleter.cancel(result.deletion_id, by="key_3")
    assert code_of(caught) == "purge_begun"
    with pytest.raises(NotFound):
        deleter.cancel("del_unknown", by="key_3")


@pytest.mark.parametrize(
    "point", ["deletion.before_cancel", "deletion.after_cancel", "deletion.after_cancelled_recorded"]
)
def test_a_cancel_that_dies_is_whole_or_was_not(world: World, point: str) -> None:
    before = visible(world.store, [1])
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1", "t2"), wait_s=0)
    with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
        deleter.cancel(result.deletion_id, by="key_3", reason="r")
    deleter = world.restarted()
    deleter.run_due()
    job = world.job(result.deletion_id)
    if point == "deletion.before_cancel":
        assert job.state is S.VERIFIED
        return
    assert (job.state, world.moves(result.deletion_id)) == (S.CANCELLED, ["planned", "hidden", "cancelled"])
    assert visible(world.store, [1]) == before


def test_a_blocked_deletion_can_be_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError

    before = visible(world.store, [1])
    monkeypatch.setattr(world.store, "purge_batch", fail)
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1"))
    for _ in range(5):
        world.clock.advance(61)
        deleter.run_due()
    assert world.job(result.deletion_id).state is S.BLOCKED
    assert deleter.overdue() == [(result.deletion_id, "blocked:OSError")]
    deleter.cancel(result.deletion_id, by="key_3")
    assert deleter.overdue() == []
    assert visible(world.store, [1]) == before


def test_cancelling_a_deletion_cancels_what_a_hold_kept_of_it(world: World) -> None:
    before = visible(world.store, [1])
    deleter = world.deleter()
    hold, _ = world.holds(deleter).create(hold_on("t1"))
    result = deleter.delete(by_ids("t1", "t2"), wait_s=0)
    deleter.cancel(result.deletion_id, by="key_3")
    world.holds(deleter).release(hold.hold_id, org_id=1, by="key_3")
    deleter.run_due()
    assert visible(world.store, [1]) == before
    assert world.catalog.get_deletion(child_id_of(result.deletion_id)) is None
    assert world.catalog.unfinished_deletions() == []


def test_a_held_remainder_can_be_cancelled_and_then_stays(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    result = deleter.delete(by_ids("t1", "t2"), wait_s=0)
    hold, _ = holds.create(hold_on("t1"))
    deleter.run_due()
    child_id = child_id_of(result.deletion_id)
    assert "t1" not in world.ids_left()
    assert deleter.cancel(child_id, by="key_3").job.state is S.CANCELLED
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert {"t1"} <= world.ids_left()
    assert world.moves(child_id) == ["blocked", "cancelled"]


def test_a_failed_deletion_is_taken_up_again_only_when_somebody_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleter = world.deleter()
    with monkeypatch.context() as patch:
        count = world.store.remaining
        patch.setattr(world.store, "remaining", lambda d: {**count(d), "block": 1})
        result = deleter.delete(by_ids("t1", "t2"))
        assert result.state is S.FAILED
        assert deleter.retry(result.deletion_id, by="key_3").job.state is S.HIDDEN
        deleter.run_due()
        assert world.job(result.deletion_id).state is S.FAILED
    world.restarted().run_due()
    assert world.job(result.deletion_id).state is S.FAILED
    deleter = world.deleter()
    deleter.retry(result.deletion_id, by="key_3")
    deleter = world.restarted()
    deleter.run_due()
    job = world.job(result.deletion_id)
    assert (job.state, job.purged["trace"], job.problem) == (S.VERIFIED, 2, None)
    assert world.moves(result.deletion_id) == [
        "planned", "hidden", "failed", "hidden", "failed", "hidden", "purged", "verified",
    ]  # fmt: skip
    assert deleter.receipt(result.deletion_id)
    with pytest.raises(Conflict) as caught:
        deleter.retry(result.deletion_id, by="key_3")
    assert code_of(caught) == "deletion_over"


def test_a_failure_after_purging_is_tried_again_from_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1"), wait_s=0)
    with faults.armed("deletion.before_verify:1:crash"), pytest.raises(faults.Crash):
        deleter.run_due()
    deleter = world.restarted()
    with monkeypatch.context() as patch:
        count = world.store.remaining
        patch.setattr(world.store, "remaining", lambda d: {**count(d), "log": 1})
        deleter.run_due()
    assert world.job(result.deletion_id).problem == "survivors:log"
    assert deleter.retry(result.deletion_id, by="key_3").job.state is S.PURGED
    deleter.run_due()
    assert world.job(result.deletion_id).state is S.VERIFIED


def test_a_lifted_tombstone_lets_the_trace_in_again(world: World) -> None:
    deleter = world.deleter()
    assert deleter.lift_tombstone(1, 1, "t1", by="key_3") is None
    result = deleter.delete(by_ids("t1", not_before_ns=world.clock.now_ns() + HOUR_NS))
    with pytest.raises(Conflict) as caught:
        deleter.lift_tombstone(1, 1, "t1", by="key_3", reason="anna is back")
    assert code_of(caught) == "still_erasing"
    world.clock.advance(3600)
    deleter.run_due()
    (key,) = deleter.tombstones(result.deletion_id)
    assert deleter.tombstones(result.deletion_id, key) == []
    assert deleter.lift_tombstone(1, 1, "t1", by="key_3", reason="anna is back") == result.deletion_id
    (outcome,) = world.store.write([make_trace("t1")], received_ns=T0_NS)
    assert outcome.stored > 0
    assert deleter.lift_tombstone(1, 1, "t1", by="key_3") is None
    (event,) = world.events("tombstone.lifted")
    assert (event["by"], event["deletion_id"], event["project_id"]) == ("key_3", result.deletion_id, 1)
    assert "t1" not in event.values()
