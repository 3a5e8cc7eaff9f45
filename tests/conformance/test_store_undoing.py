"""What every store must hold of exact plans, previews, cancelling, lifting, leaves and notes."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from clearspan.model.errors import Conflict
from clearspan.model.trace import Scope, Window
from clearspan.proof.manifest import manifest_leaf
from clearspan.query.ast import Condition
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.port import Breakdown, HideOutcome, HoldRow, PlannedTrace, child_id_of
from clearspan.store.tombstone import tombstone_key
from clearspan.testing.build import T0_NS, make_batch, make_span, make_trace, with_metadata
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores, visible

ANY_TIME = Window()
ONE = Scope((1,))
SALT = b"0123456789abcdef" * 2
CLEAN = Condition(BY_NAME["error_count"], Operator.EQUALS, (Decimal(0),))
DAY_S = 86_400.0


def write(stores: Stores, count: int = 5, project_id: int = 1) -> None:
    for n in range(count):
        context = with_metadata({"n": str(n)}, customer_identifier="anna", environment="prod" if n % 2 else None)
        batch = make_trace(f"t{n}", project_id=project_id, context=context, start_s=n * 5000.0)
        stores.writer.write([batch], received_ns=T0_NS)


def plan(stores: Stores) -> list[PlannedTrace]:
    return stores.deletions.plan(Scope((1, 2)), None, ANY_TIME, received_before_ns=2**62, limit=1000)


def hide(
    stores: Stores,
    lines: list[PlannedTrace],
    deletion_id: str = "del_1",
    *,
    exact: bool = False,
    key: bytes | None = None,
) -> HideOutcome:
    return stores.deletions.hide(
        deletion_id, Scope((1, 2)), CLEAN, ANY_TIME, lines, b"why", manifest_salt=SALT, exact=exact, preview_key=key
    )


def purge(stores: Stores, deletion_id: str = "del_1") -> None:
    batch_no, more = 0, True
    while more:
        _, more = stores.deletions.purge_batch(deletion_id, batch_no, rows_max=20)
        batch_no += 1
    stores.deletions.settle(deletion_id, rows_max=2)


def counts(stores: Stores) -> list[int]:
    windows = (ANY_TIME, Window(T0_NS, T0_NS + 10**13), Window(T0_NS + 10**13, None))
    return [
        stores.reader.count_traces(Scope((1,), environment), None, window)
        for environment in (None, "prod")
        for window in windows
    ]


# -- exact plans and previews -------------------------------------------------------------------------------------


def test_an_exact_hide_takes_all_or_nothing(stores: Stores) -> None:
    write(stores)
    lines = plan(stores)
    stores.writer.write([make_batch("t2", [make_span("bad", status="error")])], received_ns=T0_NS)
    before = visible(stores.reader, [1])
    with pytest.raises(Conflict) as caught:
        hide(stores, lines, exact=True)
    assert caught.value.code == "plan_mismatch"
    assert stores.deletions.progress("del_1") is None
    assert visible(stores.reader, [1]) == before
    hide(stores, lines[:1], "del_2")
    with pytest.raises(Conflict):
        hide(stores, lines[:2], exact=True)
    assert hide(stores, [lines[1], lines[3]], exact=True) == HideOutcome(2, 0, 0, 0)


def test_an_exact_hide_may_meet_holds(stores: Stores) -> None:
    write(stores, 3)
    stores.deletions.add_hold(HoldRow("hold_1", 1, ONE, None, ("t1",), ANY_TIME, None, 1, "key_1"))
    assert hide(stores, plan(stores), exact=True) == HideOutcome(2, 0, 0, 1)


def test_a_preview_is_used_once(stores: Stores) -> None:
    write(stores)
    lines = plan(stores)
    stores.deletions.save_preview(b"k1", b"the plan", 100)
    assert stores.deletions.get_preview(b"k1") == b"the plan"
    assert stores.deletions.get_preview(b"k2") is None
    with pytest.raises(ValueError, match="already"):
        stores.deletions.save_preview(b"k1", b"another", 100)
    with pytest.raises(Conflict) as caught:
        hide(stores, lines[:2], key=b"k2")
    assert caught.value.code == "plan_used_or_unknown"
    first = hide(stores, lines[:2], key=b"k1")
    assert first == HideOutcome(2, 0, 0, 0)
    assert stores.deletions.get_preview(b"k1") is None
    assert hide(stores, lines[:2], key=b"k1") == first  # a repeat of the same deletion is no second use
    with pytest.raises(Conflict):
        hide(stores, lines[2:], "del_2", key=b"k1")
    assert len(visible(stores.reader, [1])) == 3


def test_a_refused_hide_keeps_its_preview(stores: Stores) -> None:
    write(stores)
    lines = plan(stores)
    stores.deletions.save_preview(b"k1", b"the plan", 100)
    hide(stores, lines[:1], "del_2")
    with pytest.raises(Conflict):
        hide(stores, lines, key=b"k1", exact=True)
    assert stores.deletions.get_preview(b"k1") == b"the plan"


def test_previews_expire(stores: Stores) -> None:
    for n in range(4):
        stores.deletions.save_preview(b"k%d" % n, b"x", 100 + n)
    assert stores.deletions.sweep_previews(99) == 0
    assert stores.deletions.sweep_previews(101) == 2
    assert [stores.deletions.get_preview(b"k%d" % n) for n in range(4)] == [None, None, b"x", b"x"]
    assert stores.deletions.preview_keys() == [b"k2", b"k3"]
    assert stores.deletions.void_preview(b"k2")
    assert not stores.deletions.void_preview(b"k2")
    assert stores.deletions.get_preview(b"k2") == b""
    assert stores.deletions.sweep_previews(102) == 1
    assert not stores.deletions.void_preview(b"k2")
    assert stores.deletions.preview_keys() == [b"k3"]


def test_samples_and_breakdown(stores: Stores) -> None:
    for n in range(30):
        project_id = 1 + n % 2
        stores.writer.write([make_trace(f"t{n}", project_id=project_id, start_s=n * DAY_S / 10)], received_ns=T0_NS)
    lines = plan(stores)
    pks = [line.trace_pk for line in lines]
    rows = stores.deletions.summaries(pks)
    assert [row.trace_pk for row in rows] == pks[:20]
    assert [row.summary.trace_id for row in rows[:2]] == [lines[0].trace_id, lines[1].trace_id]
    assert stores.deletions.summaries([pks[3], pks[1], 999]) == [rows[3], rows[1]]
    broken = stores.deletions.breakdown(pks)
    assert broken == Breakdown({"2026-01-01": 10, "2026-01-02": 10, "2026-01-03": 10}, {1: 15, 2: 15})
    hide(stores, lines[:10])
    assert stores.deletions.breakdown(pks).by_project == {1: 10, 2: 10}
    assert stores.deletions.summaries(pks[5:12]) == rows[10:12]


# -- cancelling ---------------------------------------------------------------------------------------------------


def test_cancelling_undoes_a_hide_exactly(stores: Stores) -> None:
    write(stores)
    before, counted = visible(stores.reader, [1]), counts(stores)
    lines = plan(stores)
    hide(stores, lines[:4])
    stores.writer.write([make_trace("t1")], received_ns=T0_NS)
    assert counts(stores) != counted
    assert stores.deletions.cancel("del_1") == 4
    assert stores.deletions.cancel("del_1") == 0
    assert visible(stores.reader, [1]) == before
    assert counts(stores) == counted
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert (progress.cancelled, progress.request, progress.more, progress.late_refused) == (True, None, False, 2)
    assert stores.deletions.manifest("del_1") == stores.deletions.leaves("del_1") == []
    assert stores.deletions.tombstones("del_1", b"", 9) == []
    (outcome,) = stores.writer.write([make_batch("t1", [make_span("more")])], received_ns=T0_NS)
    assert outcome.stored == 1
    with pytest.raises(Conflict) as caught:
        stores.deletions.purge_batch("del_1", 0, rows_max=9)
    assert caught.value.code == "cancelled"
    with pytest.raises(ValueError, match="not finished"):
        stores.deletions.settle("del_1")
    assert hide(stores, lines, "del_2") == HideOutcome(5, 0, 0, 0)


def test_after_the_first_batch_nothing_can_be_cancelled(stores: Stores) -> None:
    write(stores)
    hide(stores, plan(stores))
    stores.deletions.purge_batch("del_1", 0, rows_max=1)
    with pytest.raises(Conflict) as caught:
        stores.deletions.cancel("del_1")
    assert caught.value.code == "purge_begun"
    with pytest.raises(ValueError, match="no such deletion"):
        stores.deletions.cancel("del_9")


def test_cancelling_takes_the_waiting_child_along(stores: Stores) -> None:
    write(stores)
    stores.deletions.add_hold(HoldRow("hold_1", 1, ONE, None, ("t1",), ANY_TIME, None, 1, "key_1"))
    hide(stores, plan(stores))
    with pytest.raises(Conflict) as caught:
        stores.deletions.cancel(child_id_of("del_1"))
    assert caught.value.code == "parent_unfinished"
    assert stores.deletions.cancel("del_1") == 4
    child = stores.deletions.progress(child_id_of("del_1"))
    assert child is not None
    assert (child.cancelled, child.request) == (True, None)
    with pytest.raises(Conflict):
        stores.deletions.hide_child(child_id_of("del_1"), ONE, None, ANY_TIME)
    assert len(visible(stores.reader, [1])) == 5


def test_a_waiting_child_can_be_cancelled(stores: Stores) -> None:
    """What the hold kept hidden is visible again, what was purged is not."""
    write(stores)
    before = visible(stores.reader, [1])
    hide(stores, plan(stores))
    stores.deletions.add_hold(HoldRow("hold_1", 1, ONE, None, ("t1", "t3"), ANY_TIME, None, 1, "key_1"))
    purge(stores)
    child_id = child_id_of("del_1")
    assert stores.deletions.cancel(child_id) == 2
    assert visible(stores.reader, [1]) == {key: seen for key, seen in before.items() if key[1] in ("t1", "t3")}
    assert counts(stores)[0] == 2
    assert stores.deletions.find_tombstone(1, "t1") is None
    assert stores.deletions.find_tombstone(1, "t2") == "del_1"


# -- tombstones and leaves ----------------------------------------------------------------------------------------


def test_tombstones_are_listed_found_and_lifted(stores: Stores) -> None:
    write(stores)
    hide(stores, plan(stores)[:4])
    keys = sorted(tombstone_key(TOMBSTONE_SECRET, 1, f"t{n}") for n in range(4))
    assert stores.deletions.tombstones("del_1", b"", 100) == keys
    assert stores.deletions.tombstones("del_1", keys[1], 1) == [keys[2]]
    assert stores.deletions.tombstones("del_9", b"", 100) == []
    assert stores.deletions.find_tombstone(1, "t0") == "del_1"
    assert stores.deletions.find_tombstone(1, "t4") is None
    with pytest.raises(Conflict) as caught:
        stores.deletions.lift_tombstone(1, "t0")
    assert caught.value.code == "still_erasing"
    purge(stores)
    stores.writer.write([make_trace("t0")], received_ns=T0_NS)
    assert stores.deletions.lift_tombstone(1, "t0") == "del_1"
    assert stores.deletions.lift_tombstone(1, "t0") is None
    assert stores.deletions.lift_tombstone(1, "t4") is None
    (again, refused) = stores.writer.write([make_trace("t0"), make_trace("t1")], received_ns=T0_NS)
    assert (again.stored, refused.refused) == (2, 2)
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.late_refused == 4
    assert not any(stores.deletions.remaining("del_1").values())
    assert len(stores.deletions.tombstones("del_1", b"", 100)) == 3


def test_leaves_commit_to_what_was_hidden(stores: Stores) -> None:
    write(stores)
    stores.deletions.add_hold(HoldRow("hold_1", 1, ONE, None, ("t1",), ANY_TIME, None, 1, "key_1"))
    hide(stores, plan(stores))
    expected = sorted(manifest_leaf(SALT, 1, f"t{n}") for n in (0, 2, 3, 4))
    assert stores.deletions.leaves("del_1") == expected
    purge(stores)
    assert stores.deletions.leaves("del_1") == expected
    progress, child = stores.deletions.progress("del_1"), stores.deletions.progress(child_id_of("del_1"))
    assert progress is not None
    assert child is not None
    assert progress.manifest_salt == SALT
    assert child.manifest_salt is not None
    assert stores.deletions.leaves(child_id_of("del_1")) == [manifest_leaf(child.manifest_salt, 1, "t1")]


# -- notes --------------------------------------------------------------------------------------------------------


def test_notes_can_be_erased_on_their_own(stores: Stores) -> None:
    stores.deletions.put_note("a", b"salt", b"body")
    stores.deletions.put_note("a", b"other", b"other")
    assert stores.deletions.get_note("a") == (b"salt", b"body")
    assert stores.deletions.get_note("b") is None
    assert stores.deletions.erase_note("a")
    assert not stores.deletions.erase_note("a")
    assert stores.deletions.get_note("a") is None


def test_two_stores_know_nothing_of_each_other(make_stores: Callable[[], Stores]) -> None:
    first, second = make_stores(), make_stores()
    first.deletions.save_preview(b"k", b"x", 1)
    first.deletions.put_note("a", b"s", b"b")
    assert second.deletions.get_preview(b"k") is None
    assert second.deletions.get_note("a") is None
