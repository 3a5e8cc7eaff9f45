"""What every store must hold of holds: they win inside every hide and every purge batch, and what they keep waits."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from clearspan.model.errors import Conflict
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.port import HideOutcome, HoldOutcome, HoldRow, PlannedTrace, child_id_of
from clearspan.testing.build import T0_NS, make_batch, make_span, make_trace, with_metadata
from clearspan.testing.stores import Stores, visible

ANY_TIME = Window()
ONE = Scope((1,))
CHILD = child_id_of("del_1")
GRANDCHILD = child_id_of(CHILD)


def write(stores: Stores, count: int = 6, project_id: int = 1) -> None:
    for n in range(count):
        context = with_metadata({"n": str(n)}, customer_identifier=f"c{n}")
        stores.writer.write([make_trace(f"t{n}", project_id=project_id, context=context)], received_ns=T0_NS)


def plan(stores: Stores, expr: Expr | None = None, scope: Scope = ONE) -> list[PlannedTrace]:
    return stores.deletions.plan(scope, expr, ANY_TIME, received_before_ns=2**62, limit=1000)


def hold(hold_id: str, *ids: str, where: Expr | None = None, scope: Scope = ONE, window: Window = ANY_TIME) -> HoldRow:
    return HoldRow(hold_id, 7, scope, where, ids or None, window, "a lawsuit", 5, "key_1")


def hide(stores: Stores, lines: list[PlannedTrace], deletion_id: str = "del_1") -> HideOutcome:
    return stores.deletions.hide(deletion_id, ONE, None, ANY_TIME, lines, b"who and why", manifest_salt=b"s" * 32)


def purge(stores: Stores, deletion_id: str, rows_max: int = 1000) -> Counter[str]:
    total: Counter[str] = Counter()
    progress = stores.deletions.progress(deletion_id)
    assert progress is not None
    batch_no, more = progress.batches, progress.more
    while more:
        counts, more = stores.deletions.purge_batch(deletion_id, batch_no, rows_max=rows_max)
        total.update(counts)
        batch_no += 1
    stores.deletions.settle(deletion_id)
    assert not any(stores.deletions.remaining(deletion_id).values())
    return total


def ids(stores: Stores) -> set[str]:
    return {trace_id for _, trace_id in visible(stores.reader, [1])}


def lines_of(stores: Stores, deletion_id: str) -> set[str]:
    return {line.trace_id for line in stores.deletions.manifest(deletion_id)}


def is_refused(stores: Stores, trace_id: str) -> bool:
    (outcome,) = stores.writer.write([make_batch(trace_id, [make_span("late")])], received_ns=T0_NS)
    return outcome.refused > 0


def test_a_hold_is_stored_listed_and_released(stores: Stores) -> None:
    where = Condition(BY_NAME["customer_identifier"], Operator.EQUALS, ("c1",))
    first = hold("hold_1", where=where, scope=Scope((1, 2), "prod"), window=Window(1, 2))
    second = hold("hold_2", "t1", "t2")._replace(org_id=8, created_ns=9)
    stores.deletions.add_hold(second)
    stores.deletions.add_hold(first)
    stores.deletions.add_hold(first._replace(reason="another"))
    assert stores.deletions.holds(None) == [first, second]
    assert stores.deletions.holds(7) == [first]
    assert stores.deletions.get_hold("hold_2") == second
    assert stores.deletions.get_hold("hold_3") is None
    assert stores.deletions.release_hold("hold_1", 11)
    assert not stores.deletions.release_hold("hold_1", 12)
    assert not stores.deletions.release_hold("hold_3", 12)
    assert stores.deletions.holds(None) == [second]
    erased = first._replace(
        scope=Scope((1, 2)), where=None, trace_ids=None, window=Window(), reason=None, released_ns=11
    )
    assert stores.deletions.get_hold("hold_1") == erased
    assert stores.deletions.holds(None, released=True) == [erased, second]
    assert stores.deletions.add_hold(first) == HoldOutcome(0, 0)  # a released hold does not come back


def test_what_a_hold_covers_is_counted(stores: Stores) -> None:
    write(stores)
    write(stores, 2, project_id=2)
    assert stores.deletions.add_hold(hold("hold_1", "t0", "t1", "nobody")) == HoldOutcome(2, 0)
    where = Condition(BY_NAME["customer_identifier"], Operator.IN, ("c1", "c5"))
    assert stores.deletions.add_hold(hold("hold_2", where=where)) == HoldOutcome(2, 0)
    assert stores.deletions.add_hold(hold("hold_3", scope=Scope((2,)))) == HoldOutcome(2, 0)
    assert stores.deletions.add_hold(hold("hold_4", window=Window(T0_NS + 1, None))) == HoldOutcome(0, 0)
    assert stores.deletions.add_hold(hold("hold_5", scope=Scope((1,), "prod"))) == HoldOutcome(0, 0)
    pks = [line.trace_pk for line in plan(stores)]
    assert stores.deletions.count_held(pks) == {"hold_1": 2, "hold_2": 2}
    assert stores.deletions.held_among(pks) == 3
    assert stores.deletions.count_held(pks[2:5]) == {}
    hide(stores, plan(stores)[3:5])
    assert stores.deletions.add_hold(hold("hold_6")) == HoldOutcome(4, 2)


def test_held_at_hide_time_it_stays_visible_and_waits_in_the_child(stores: Stores) -> None:
    write(stores)
    before = visible(stores.reader, [1])
    stores.deletions.add_hold(hold("hold_1", "t1", "t4"))
    assert hide(stores, plan(stores)) == HideOutcome(4, 0, 0, 2)
    assert visible(stores.reader, [1]) == {key: before[key] for key in [(1, "t1"), (1, "t4")]}
    assert not is_refused(stores, "t1")
    parent, child = stores.deletions.progress("del_1"), stores.deletions.progress(CHILD)
    assert parent is not None
    assert child is not None
    assert (parent.child_id, parent.held_traces, parent.is_waiting) == (CHILD, 2, False)
    assert (child.outcome, child.request, child.is_waiting) == (HideOutcome(0, 0, 0, 0), b"who and why", True)
    assert (child.more, child.child_id, child.batches) == (False, None, 0)
    assert child.manifest_salt not in (None, parent.manifest_salt)
    assert lines_of(stores, CHILD) == {"t1", "t4"}
    assert purge(stores, "del_1")["trace"] == 4
    assert ids(stores) == {"t1", "t4"}
    child = stores.deletions.progress(CHILD)
    assert child is not None
    assert child.request == b"who and why"  # the parent's is erased, the child still needs its own


def test_a_hold_covers_what_matches_it_later(stores: Stores) -> None:
    write(stores, 3)
    broken = Condition(BY_NAME["error_count"], Operator.GTE, (Decimal(1),))
    stores.deletions.add_hold(hold("hold_1", where=broken))
    planned = plan(stores)
    stores.writer.write([make_batch("t2", [make_span("bad", status="error")])], received_ns=T0_NS)
    assert hide(stores, planned) == HideOutcome(2, 0, 0, 1)
    assert ids(stores) == {"t2"}


def test_a_hold_set_after_hiding_keeps_what_is_not_purged(stores: Stores) -> None:
    write(stores)
    hide(stores, plan(stores))
    stores.deletions.purge_batch("del_1", 0, rows_max=8)
    gone = 6 - (stores.deletions.remaining("del_1")["trace"] or 0)
    left = 6 - gone
    assert 0 < gone < 6
    assert stores.deletions.add_hold(hold("hold_1")) == HoldOutcome(0, left)
    assert purge(stores, "del_1")["trace"] == 0
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.outcome == HideOutcome(gone, 0, 0, left)
    assert progress.purged["trace"] == gone
    assert len(stores.deletions.leaves("del_1")) == gone
    assert len(lines_of(stores, CHILD)) == left
    assert ids(stores) == set()  # hidden stays hidden
    assert all(is_refused(stores, trace_id) for trace_id in lines_of(stores, CHILD))
    child = stores.deletions.progress(CHILD)
    assert child is not None
    assert child.late_refused == left


def test_a_child_goes_when_it_is_free(stores: Stores) -> None:
    write(stores)
    stores.deletions.add_hold(hold("hold_1", "t1", "t4"))
    hide(stores, plan(stores))
    stores.deletions.add_hold(hold("hold_2", "t2"))
    assert stores.deletions.hide_child(CHILD, ONE, None, ANY_TIME) is None  # the parent may still meet holds
    purge(stores, "del_1")
    assert stores.deletions.hide_child(CHILD, ONE, None, ANY_TIME) is None
    stores.deletions.release_hold("hold_1", 9)
    stores.deletions.release_hold("hold_2", 9)
    expected = HideOutcome(3, 0, 0, 0)
    assert stores.deletions.hide_child(CHILD, ONE, None, ANY_TIME) == expected
    assert stores.deletions.hide_child(CHILD, ONE, None, ANY_TIME) == expected
    assert ids(stores) == set()
    assert purge(stores, CHILD)["trace"] == 3
    progress = stores.deletions.progress(CHILD)
    assert progress is not None
    assert (progress.outcome, progress.settled, progress.request, progress.child_id) == (expected, True, None, None)
    assert len(stores.deletions.leaves(CHILD)) == 3


def test_what_is_still_held_moves_to_a_child_of_the_child(stores: Stores) -> None:
    write(stores)
    stores.deletions.add_hold(hold("hold_1", "t1", "t4"))
    stores.deletions.add_hold(hold("hold_2", "t4", "t5"))
    lines = plan(stores)
    assert hide(stores, lines) == HideOutcome(3, 0, 0, 3)
    purge(stores, "del_1")
    stores.deletions.release_hold("hold_1", 9)
    stores.writer.write([make_trace("t9")], received_ns=T0_NS)
    assert stores.deletions.hide_child(CHILD, ONE, None, ANY_TIME) == HideOutcome(1, 0, 0, 2)
    assert lines_of(stores, GRANDCHILD) == {"t4", "t5"}
    assert ids(stores) == {"t4", "t5", "t9"}
    purge(stores, CHILD)
    stores.deletions.release_hold("hold_2", 9)
    assert stores.deletions.hide_child(GRANDCHILD, ONE, None, ANY_TIME) == HideOutcome(2, 0, 0, 0)
    purge(stores, GRANDCHILD)
    assert ids(stores) == {"t9"}


def test_a_child_evaluates_the_filter_again(stores: Stores) -> None:
    write(stores, 4)
    clean = Condition(BY_NAME["error_count"], Operator.EQUALS, (Decimal(0),))
    stores.deletions.add_hold(hold("hold_1"))
    stores.deletions.hide("del_1", ONE, clean, ANY_TIME, plan(stores), b"")
    stores.writer.write([make_batch("t2", [make_span("bad", status="error")])], received_ns=T0_NS)
    stores.deletions.release_hold("hold_1", 9)
    other = [line for line in plan(stores) if line.trace_id == "t3"]
    hide(stores, other, "del_2")
    assert stores.deletions.hide_child(CHILD, ONE, clean, ANY_TIME) == HideOutcome(2, 1, 1, 0)
    assert ids(stores) == {"t2"}
    assert lines_of(stores, CHILD) == {"t0", "t1"}


def test_an_unknown_or_ordinary_deletion_is_no_waiting_child(stores: Stores) -> None:
    write(stores, 2)
    with pytest.raises(ValueError, match="no such deletion"):
        stores.deletions.hide_child("del_9", ONE, None, ANY_TIME)
    hide(stores, plan(stores))
    assert stores.deletions.hide_child("del_1", ONE, None, ANY_TIME) == HideOutcome(2, 0, 0, 0)


def test_two_deletions_have_children_of_their_own(stores: Stores) -> None:
    write(stores)
    stores.deletions.add_hold(hold("hold_1", "t1", "t4"))
    lines = plan(stores)
    assert hide(stores, lines[:3]) == HideOutcome(2, 0, 0, 1)
    assert hide(stores, lines[1:], "del_2") == HideOutcome(2, 0, 1, 2)
    stores.deletions.release_hold("hold_1", 9)
    purge(stores, "del_1")
    purge(stores, "del_2")
    assert stores.deletions.hide_child(child_id_of("del_2"), ONE, None, ANY_TIME) == HideOutcome(2, 0, 0, 0)
    assert stores.deletions.hide_child(CHILD, ONE, None, ANY_TIME) == HideOutcome(0, 0, 1, 0)
    purge(stores, CHILD)
    purge(stores, child_id_of("del_2"))
    assert ids(stores) == set()


def test_nothing_is_purged_of_a_waiting_child(stores: Stores) -> None:
    write(stores, 2)
    stores.deletions.add_hold(hold("hold_1"))
    hide(stores, plan(stores))
    with pytest.raises(Conflict):
        stores.deletions.purge_batch(CHILD, 0, rows_max=9)
    with pytest.raises(ValueError, match="not finished"):
        stores.deletions.settle(CHILD)
    assert ids(stores) == {"t0", "t1"}


def test_a_large_trace_in_parts_is_not_held_any_more(stores: Stores) -> None:
    stores.writer.write([make_trace("large", span_count=300)], received_ns=T0_NS)
    stores.writer.write([make_trace("small")], received_ns=T0_NS)
    hide(stores, plan(stores))
    stores.deletions.purge_batch("del_1", 0, rows_max=50)
    assert stores.deletions.add_hold(hold("hold_1")).hidden_kept == 1
    purge(stores, "del_1", 50)
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.outcome == HideOutcome(1, 0, 0, 1)
    assert progress.purged["span"] == 300
    assert lines_of(stores, CHILD) == {"small"}
