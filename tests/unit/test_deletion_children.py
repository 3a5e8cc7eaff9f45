"""What a hold keeps becomes a deletion of its own, once, over any crash, and ends by itself on release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clearspan import faults
from clearspan.deletion.job import HELD
from clearspan.deletion.result import render_message
from clearspan.deletion.state import DeletionState
from clearspan.model.span import SpanContext, TraceBatch
from clearspan.store.port import child_id_of
from clearspan.testing.build import make_batch, make_span
from clearspan.testing.deletions import ANNA, World, by_filter, by_ids, hold_on, open_world

S = DeletionState


@pytest.fixture(params=[False, True], ids=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param) as made:
        yield made


def test_the_held_part_waits_and_goes_by_itself_on_release(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    hold, outcome = holds.create(hold_on("t1", "t2", "zz"))
    assert outcome.protected == 2
    result = deleter.delete(by_filter(ANNA, reason="because-anna-asked"))
    assert (result.state, result.matched, result.hidden, result.held) == (S.VERIFIED, 8, 6, 2)
    assert render_message(result) == "Successfully deleted 6 traces; 2 traces are held and were not deleted"
    assert world.ids_left() == {"t1", "t2"}
    child_id = child_id_of(result.deletion_id)
    assert result.child_id == child_id
    child = world.job(child_id)
    assert (child.state, child.problem, child.parent_id, child.matched) == (S.BLOCKED, HELD, result.deletion_id, 2)
    assert child.scope_hash == world.job(result.deletion_id).scope_hash
    assert deleter.blocked_by(child_id) == {hold.hold_id: 2}
    assert deleter.overdue() == []
    with pytest.raises(Exception, match="no receipt"):
        deleter.receipt(child_id)
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    child = world.job(child_id)
    assert (child.state, child.hidden, child.held, child.purged["span"]) == (S.VERIFIED, 2, 0, 8)
    assert world.moves(child_id) == ["blocked", "hidden", "purged", "verified"]
    assert world.ids_left() == set()
    assert deleter.receipt(child_id) != deleter.receipt(result.deletion_id)


def test_a_hold_set_between_hide_and_purge_wins(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    result = deleter.delete(by_ids(*(f"t{n}" for n in range(8))), wait_s=0)
    hold, outcome = holds.create(hold_on("t3"))
    assert outcome.hidden_kept == 1
    deleter.run_due()
    parent, child = world.job(result.deletion_id), world.job(child_id_of(result.deletion_id))
    assert (parent.state, parent.hidden, parent.held, parent.purged["trace"]) == (S.VERIFIED, 7, 1, 7)
    assert child.state is S.BLOCKED
    assert "t3" not in world.ids_left(), "hidden stays hidden"
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert world.job(child.deletion_id).state is S.VERIFIED
    assert world.store.plan_ids(by_ids().scope, ["t3"], by_ids().window) == []


def test_what_is_still_held_on_a_release_goes_to_a_grandchild(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    first, _ = holds.create(hold_on("t1", "t2"))
    second, _ = holds.create(hold_on("t2"))
    result = deleter.delete(by_filter(ANNA))
    child_id = child_id_of(result.deletion_id)
    holds.release(first.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    child, grandchild = world.job(child_id), world.job(child_id_of(child_id))
    assert (child.state, child.matched, child.hidden, child.held) == (S.VERIFIED, 2, 1, 1)
    assert (grandchild.state, grandchild.parent_id, grandchild.matched) == (S.BLOCKED, child_id, 1)
    holds.release(second.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert world.job(grandchild.deletion_id).state is S.VERIFIED
    assert world.ids_left() == set()


def test_a_release_that_frees_nothing_leaves_no_row(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    hold, _ = holds.create(hold_on("t1"))
    other, _ = holds.create(hold_on("t1"))
    child_id = child_id_of(deleter.delete(by_ids("t1")).deletion_id)
    holds.release(other.hold_id, org_id=1, by="key_2")
    for _ in range(7):
        deleter.run_due()
        world.clock.advance(61)
    assert world.moves(child_id) == ["blocked"]
    assert deleter.overdue() == []
    assert deleter.blocked_by(child_id) == {hold.hold_id: 1}


def test_when_everything_is_held_the_parent_ends_with_an_empty_receipt(world: World) -> None:
    deleter = world.deleter()
    world.holds(deleter).create(hold_on("t1"))
    result = deleter.delete(by_ids("t1"))
    assert (result.state, result.hidden, result.held) == (S.VERIFIED, 0, 1)
    assert render_message(result) == "1 traces are held; nothing was deleted"
    assert deleter.receipt(result.deletion_id)
    assert "t1" in world.ids_left()


def test_what_no_longer_matches_on_release_stays(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    hold, _ = holds.create(hold_on("t1", "t2"))
    cheap = by_filter(ANNA)
    child_id = child_id_of(deleter.delete(cheap).deletion_id)
    world.store.write([_renamed("t1")], received_ns=world.clock.now_ns())
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    child = world.job(child_id)
    assert (child.state, child.hidden, child.no_longer_matching) == (S.VERIFIED, 1, 1)
    assert world.ids_left() == {"t1"}


def _renamed(trace_id: str) -> TraceBatch:
    """A root that arrives late and displays another customer."""
    context = SpanContext(customer_identifier="bert")
    return make_batch(trace_id, [make_span("a-new-root", start_s=-1, duration_s=99, context=context)])


POINTS = (
    "deletion.before_child", "deletion.after_child", "deletion.before_hide_child", "deletion.after_hide_child",
    "deletion.after_batch", "deletion.before_settle", "deletion.before_receipt",
)  # fmt: skip


@pytest.mark.parametrize(
    "point", [*POINTS, "deletion.after_batch", "deletion.before_settle", "deletion.before_receipt"]
)
def test_a_held_remainder_survives_dying_anywhere(world: World, point: str) -> None:
    deleter = world.deleter()
    hold, _ = world.holds(deleter).create(hold_on("t1"))
    died = 0
    with faults.armed(f"{point}:1:crash"):
        try:
            deleter.delete(by_ids("t1", "t2", "t3"))
        except faults.Crash:
            died += 1
    deleter = world.restarted()
    deleter.run_due()
    world.holds(deleter).release(hold.hold_id, org_id=1, by="key_2")
    with faults.armed(f"{point}:1:crash"):
        try:
            deleter.run_due()
        except faults.Crash:
            died += 1
    assert died >= 1
    deleter = world.restarted()
    deleter.run_due()
    assert world.catalog.unfinished_deletions() == []
    (parent_id,) = [each for each in world.store._deletions if child_id_of(each) in world.store._deletions]
    parent, child = world.job(parent_id), world.job(child_id_of(parent_id))
    assert (parent.state, parent.hidden, parent.held) == (S.VERIFIED, 2, 1)
    assert (child.state, child.hidden, child.purged["trace"]) == (S.VERIFIED, 1, 1)
    assert world.moves(parent_id) == ["planned", "hidden", "purged", "verified"]
    assert world.moves(child.deletion_id) == ["blocked", "hidden", "purged", "verified"]


def test_a_failing_parent_still_hands_its_remainder_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deleter = world.deleter()
    hold, _ = world.holds(deleter).create(hold_on("t1"))
    with monkeypatch.context() as patch:
        count = world.store.remaining
        patch.setattr(world.store, "remaining", lambda d: {**count(d), "span": 3})
        result = deleter.delete(by_ids("t1", "t2"))
    assert result.state is S.FAILED
    world.holds(deleter).release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert world.job(child_id_of(result.deletion_id)).state is S.VERIFIED


def test_what_a_hold_keeps_keeps_its_public_link(world: World) -> None:
    """A link to a hidden trace opens nothing; it is removed with the trace, not before."""
    if world.real is None:
        return
    for trace_id in ("t1", "t2"):
        world.real.set_share(1, 1, trace_id, public=True)
    deleter = world.deleter()
    holds = world.holds(deleter)
    result = deleter.delete(by_ids("t1", "t2", "t3"), wait_s=0)
    holds.create(hold_on("t1"))
    deleter.run_due()
    parent = world.job(result.deletion_id)
    assert (parent.state, parent.held, parent.purged["share"]) == (S.VERIFIED, 1, 1)
    assert parent.child_id is not None
    deleter.cancel(parent.child_id, by="key_1")
    assert world.ids_left() == {"t0", "t1", "t4", "t5", "t6", "t7"}
    assert world.real.count_shares([(1, "t1"), (1, "t2")]) == 1
