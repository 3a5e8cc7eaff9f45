"""What every store must hold of deleting: hide, refuse, purge by batches, recount, and touch nothing else."""

from __future__ import annotations

import threading
from collections import Counter
from decimal import Decimal

import pytest

from clearspan.deletion.targets import STORE_NAMES
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.port import HideOutcome, PlannedTrace
from clearspan.testing.build import T0_NS, make_batch, make_log, make_span, make_trace, with_metadata
from clearspan.testing.stores import Stores, visible

ANY_TIME = Window()
ONE = Scope((1,))
BOTH = Scope((1, 2))
LATER_NS = T0_NS + 10**12


def where(field: str, operator: Operator, *values: str | Decimal) -> Condition:
    return Condition(BY_NAME[field], operator, values)


def write(stores: Stores, count: int = 4, *, project_id: int = 1, span_count: int = 3) -> None:
    context = with_metadata({"k": "v", "n": "1"}, customer_identifier="anna")
    for n in range(count):
        batch = make_trace(f"t{n}", span_count=span_count, project_id=project_id, context=context)
        stores.writer.write([batch], received_ns=T0_NS)
        log = make_batch(f"t{n}", [make_log(f"t{n}.0", text=str(n))], project_id=project_id)
        stores.writer.write([log], received_ns=T0_NS)


def plan(
    stores: Stores, expr: Expr | None = None, scope: Scope = ONE, window: Window = ANY_TIME, limit: int = 1000
) -> list[PlannedTrace]:
    return stores.deletions.plan(scope, expr, window, received_before_ns=LATER_NS, limit=limit)


def hide(
    stores: Stores, deletion_id: str, manifest: list[PlannedTrace], expr: Expr | None = None, scope: Scope = ONE
) -> HideOutcome:
    return stores.deletions.hide(deletion_id, scope, expr, ANY_TIME, manifest, b"who and why")


def purge(stores: Stores, deletion_id: str, rows_max: int = 1000) -> Counter[str]:
    total: Counter[str] = Counter()
    batch_no, more = 0, True
    while more:
        counts, more = stores.deletions.purge_batch(deletion_id, batch_no, rows_max=rows_max)
        total.update(counts)
        batch_no += 1
    return total


def left(stores: Stores, deletion_id: str) -> dict[str, int | None]:
    return {name: count for name, count in stores.deletions.remaining(deletion_id).items() if count != 0}


# -- planning -----------------------------------------------------------------------------------------------------


def test_a_plan_lists_matches_in_scope_and_one_too_many(stores: Stores) -> None:
    write(stores, 5)
    write(stores, 3, project_id=2)
    assert [line.trace_id for line in plan(stores)] == ["t0", "t1", "t2", "t3", "t4"]
    assert [(line.project_id, line.trace_id) for line in plan(stores, scope=Scope((2,)))] == [
        (2, "t0"), (2, "t1"), (2, "t2"),
    ]  # fmt: skip
    assert len(plan(stores, scope=BOTH)) == 8
    assert [line.trace_id for line in plan(stores, where("trace_unique_id", Operator.IN, "t1", "t9"))] == ["t1"]
    assert len(plan(stores, limit=2)) == 3
    assert plan(stores, limit=5) == plan(stores)
    assert plan(stores) == sorted(plan(stores))
    assert plan(stores, window=Window(T0_NS + 1, None)) == []
    assert plan(stores, scope=Scope(())) == []
    assert stores.deletions.plan(ONE, None, ANY_TIME, received_before_ns=T0_NS, limit=9) == []
    assert len(stores.deletions.plan(ONE, None, ANY_TIME, received_before_ns=T0_NS + 1, limit=9)) == 5


def test_a_plan_by_ids_takes_every_permitted_copy(stores: Stores) -> None:
    for project_id in (1, 2, 3):
        write(stores, 2, project_id=project_id)
    found = stores.deletions.plan_ids(BOTH, ["t1", "nobody", "t1"], ANY_TIME)
    assert [(line.project_id, line.trace_id) for line in found] == [(1, "t1"), (2, "t1")]
    assert stores.deletions.plan_ids(BOTH, ["t1"], Window(None, T0_NS)) == []
    assert stores.deletions.plan_ids(Scope((1,), "prod"), ["t1"], ANY_TIME) == []
    assert stores.deletions.plan_ids(BOTH, [], ANY_TIME) == []


def test_planning_changes_nothing(stores: Stores) -> None:
    write(stores)
    before = visible(stores.reader, [1])
    stores.deletions.count_targets([line.trace_pk for line in plan(stores)])
    assert visible(stores.reader, [1]) == before


def test_targets_are_counted_in_rows(stores: Stores) -> None:
    write(stores, 2)
    counts = stores.deletions.count_targets([line.trace_pk for line in plan(stores)])
    expected = {"trace": 2, "span": 6, "log": 2, "context": 4, "metadata": 4, "block": 4}
    assert {name: counts[name] for name in expected} == expected
    assert set(STORE_NAMES) <= set(counts)
    assert not any(stores.deletions.count_targets([]).values())


# -- hiding -------------------------------------------------------------------------------------------------------


def test_a_hidden_trace_shows_in_no_read(stores: Stores) -> None:
    write(stores)
    rows = stores.reader.list_traces(ONE, None, ANY_TIME, NEWEST_FIRST, OffsetPage(1, 100)).rows
    target = [line for line in plan(stores) if line.trace_id in ("t1", "t2")]
    assert hide(stores, "del_1", target) == HideOutcome(2, 0, 0)
    assert set(visible(stores.reader, [1])) == {(1, "t0"), (1, "t3")}
    assert stores.reader.get_trace(ONE, "t1") is None
    assert stores.reader.count_traces(ONE, None, ANY_TIME) == 2
    assert stores.reader.sum_traces(ONE, None, ANY_TIME).traces == 2
    assert stores.reader.count_traces(ONE, where("trace_unique_id", Operator.EQUALS, "t1"), ANY_TIME) == 0
    assert stores.reader.count_traces(ONE, where("span_unique_id", Operator.EQUALS, "t1.0"), ANY_TIME) == 0
    assert [line.trace_id for line in plan(stores)] == ["t0", "t3"]
    assert stores.deletions.plan_ids(ONE, ["t1"], ANY_TIME) == []
    shown = stores.reader.root_records(rows)  # rows that a reader was given before
    hidden_pks = {line.trace_pk for line in target}
    assert all(shown.get(pk, (None, [])) == (None, []) for pk in hidden_pks)
    assert all(shown[row.trace_pk][0] is not None for row in rows if row.trace_pk not in hidden_pks)


def test_late_spans_and_logs_are_refused_counted_and_attributed(stores: Stores) -> None:
    write(stores)
    hide(stores, "del_1", [line for line in plan(stores) if line.trace_id == "t1"])
    late = make_batch("t1", [make_span("late", start_s=99), make_log("late")])
    for purged in (False, True):
        if purged:
            purge(stores, "del_1")
            stores.deletions.settle("del_1")
        refused, stored = stores.writer.write([late, make_trace("new")], received_ns=LATER_NS)
        assert (refused.stored, refused.repeated, refused.refused, refused.deletion_id) == (0, 0, 2, "del_1")
        assert (stored.refused, stored.deletion_id) == (0, None)
        assert stores.reader.get_trace(ONE, "t1") is None
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.late_refused == 4
    assert left(stores, "del_1") == {}


def test_the_same_id_in_another_project_is_not_refused(stores: Stores) -> None:
    write(stores)
    hide(stores, "del_1", plan(stores))
    (outcome,) = stores.writer.write([make_trace("t1", project_id=2)], received_ns=T0_NS)
    assert (outcome.stored, outcome.refused) == (2, 0)


def test_hiding_again_returns_the_first_outcome(stores: Stores) -> None:
    write(stores)
    target = plan(stores)[:2]
    first = hide(stores, "del_1", target)
    before = visible(stores.reader, [1])
    assert hide(stores, "del_1", target) == first == HideOutcome(2, 0, 0)
    assert hide(stores, "del_1", plan(stores)) == first  # another manifest under the same id does nothing
    assert visible(stores.reader, [1]) == before
    assert stores.deletions.manifest("del_1") == target


def test_the_filter_is_evaluated_again_inside_hide(stores: Stores) -> None:
    write(stores)
    no_errors = where("error_count", Operator.EQUALS, Decimal(0))
    target = plan(stores, no_errors)
    stores.writer.write([make_batch("t1", [make_span("bad", status="error")])], received_ns=T0_NS)
    before = visible(stores.reader, [1])
    assert hide(stores, "del_1", target, no_errors) == HideOutcome(3, 1, 0)
    assert visible(stores.reader, [1]) == {(1, "t1"): before[1, "t1"]}
    (outcome,) = stores.writer.write([make_batch("t1", [make_span("more")])], received_ns=T0_NS)
    assert outcome.stored == 1


def test_scope_and_window_are_checked_again_inside_hide(stores: Stores) -> None:
    prod, none = SpanContext(environment="prod"), SpanContext()
    stores.writer.write(
        [make_batch("p", [make_span("s", context=prod)]), make_batch("q", [make_span("s", context=none)])],
        received_ns=T0_NS,
    )
    manifest = plan(stores)
    assert hide(stores, "del_1", manifest, scope=Scope((2,))) == HideOutcome(0, 2, 0)
    assert hide(stores, "del_2", manifest, scope=Scope((1,), "prod")) == HideOutcome(1, 1, 0)
    early = Window(None, T0_NS)
    assert stores.deletions.hide("del_3", ONE, None, early, manifest, b"") == HideOutcome(0, 1, 1)
    assert set(visible(stores.reader, [1])) == {(1, "q")}


def test_overlapping_deletions_count_each_trace_once(stores: Stores) -> None:
    write(stores, 6)
    lines = plan(stores)
    assert hide(stores, "del_1", lines[:4]) == HideOutcome(4, 0, 0)
    assert hide(stores, "del_2", lines[2:]) == HideOutcome(2, 0, 2)
    purge(stores, "del_1")
    assert hide(stores, "del_3", lines) == HideOutcome(0, 0, 6)
    assert purge(stores, "del_2")["trace"] == 2
    assert purge(stores, "del_3")["trace"] == 0
    late = stores.writer.write([make_trace("t0"), make_trace("t5")], received_ns=T0_NS)
    assert [outcome.deletion_id for outcome in late] == ["del_1", "del_2"]


# -- purging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_max", [1, 7, 20, 100_000])
def test_purge_counts_are_exact_and_nothing_else_changes(stores: Stores, rows_max: int) -> None:
    write(stores, 6)
    write(stores, 3, project_id=2)
    before = visible(stores.reader, [1, 2])
    target = plan(stores)[1:5]
    pks = [line.trace_pk for line in target]
    planned = stores.deletions.count_targets(pks)
    hide(stores, "del_1", target)
    assert stores.deletions.count_targets(pks)["span"] == planned["span"]
    purged = purge(stores, "del_1", rows_max)
    assert {name: purged[name] for name in STORE_NAMES} == {name: planned[name] for name in STORE_NAMES}
    assert left(stores, "del_1") == {}
    after = {key: seen for key, seen in before.items() if key not in {(1, line.trace_id) for line in target}}
    assert visible(stores.reader, [1, 2]) == after
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert Counter(progress.purged) == purged
    assert (progress.more, progress.settled) == (False, False)


def test_a_repeated_batch_returns_its_first_answer(stores: Stores) -> None:
    write(stores, 5)
    hide(stores, "del_1", plan(stores))
    first = stores.deletions.purge_batch("del_1", 0, rows_max=1)
    second = stores.deletions.purge_batch("del_1", 1, rows_max=1)
    assert stores.deletions.purge_batch("del_1", 0, rows_max=100_000) == first
    assert stores.deletions.purge_batch("del_1", 1, rows_max=100_000) == second
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert (progress.batches, progress.more) == (2, True)
    with pytest.raises(ValueError, match="cannot follow"):
        stores.deletions.purge_batch("del_1", 3, rows_max=1)
    purge(stores, "del_1", 1)
    assert left(stores, "del_1") == {}


def test_a_batch_is_bounded_and_a_large_trace_goes_too(stores: Stores) -> None:
    stores.writer.write([make_trace("large", span_count=500), *(make_trace(f"t{n}") for n in range(20))], received_ns=1)
    hide(stores, "del_1", plan(stores))
    assert purge(stores, "del_1", 50)["span"] == 540
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.batches > 2
    assert left(stores, "del_1") == {}


def test_survivors_are_looked_for_only_after_the_purge_and_counted_once(stores: Stores) -> None:
    write(stores, 4)
    hide(stores, "del_1", plan(stores)[:3])
    stores.deletions.purge_batch("del_1", 0, rows_max=1)
    with pytest.raises(ValueError, match="not finished"):
        stores.deletions.purge_survivors("del_1", -1, rows_max=100)
    with pytest.raises(ValueError, match="no such deletion"):
        stores.deletions.purge_survivors("del_2", -1, rows_max=100)
    purged = purge(stores, "del_1", 100)
    before = stores.deletions.progress("del_1")
    for _ in range(2):
        assert stores.deletions.purge_survivors("del_1", -1, rows_max=100) == ({}, None)
        stores.deletions.settle("del_1")
    after = stores.deletions.progress("del_1")
    assert before is not None
    assert after is not None
    assert (after.purged, after.batches) == (before.purged, before.batches)
    assert Counter(after.purged)["span"] == purged["span"]
    assert len(visible(stores.reader, [1])) == 1, "others are left alone"


def test_while_some_is_left_the_recount_says_so(stores: Stores) -> None:
    write(stores, 3)
    hide(stores, "del_1", plan(stores))
    assert left(stores, "del_1")["span"] == 9
    stores.deletions.purge_batch("del_1", 0, rows_max=1)
    assert (left(stores, "del_1")["span"] or 0) < 9
    with pytest.raises(ValueError, match="not finished"):
        stores.deletions.settle("del_1")


def test_settling_erases_the_request_and_the_ids(stores: Stores) -> None:
    write(stores, 3)
    target = plan(stores)
    hide(stores, "del_1", target)
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.request == b"who and why"
    assert stores.deletions.manifest("del_1") == target
    purge(stores, "del_1")
    for _ in range(2):
        stores.deletions.settle("del_1")
        progress = stores.deletions.progress("del_1")
        assert progress is not None
        assert (progress.request, progress.settled) == (None, True)
        assert progress.outcome == HideOutcome(3, 0, 0)
        assert progress.purged["trace"] == 3
        assert stores.deletions.manifest("del_1") == []
        assert left(stores, "del_1") == {}


def test_an_empty_deletion_can_be_carried_through(stores: Stores) -> None:
    write(stores, 1)
    assert hide(stores, "del_1", []) == HideOutcome(0, 0, 0)
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert not progress.more
    stores.deletions.settle("del_1")
    assert left(stores, "del_1") == {}
    assert len(visible(stores.reader, [1])) == 1


def test_an_unknown_deletion_is_unknown(stores: Stores) -> None:
    assert stores.deletions.progress("del_9") is None
    assert stores.deletions.manifest("del_9") == []


def test_a_purged_trace_frees_no_handle(stores: Stores) -> None:
    write(stores, 3)
    target = plan(stores)
    hide(stores, "del_1", target)
    purge(stores, "del_1")
    stores.writer.write([make_trace("new")], received_ns=T0_NS)
    detail = stores.reader.get_trace(ONE, "new")
    assert detail is not None
    assert detail.row.trace_pk not in {line.trace_pk for line in target}
    assert left(stores, "del_1") == {}


# -- many at once -------------------------------------------------------------------------------------------------


def test_racing_writers_bring_nothing_back(stores: Stores) -> None:
    """Each span is stored before the hide or refused by it, whatever the interleaving; F11."""
    write(stores, 8)
    stop = threading.Event()
    refused: list[int] = []

    def keep_writing(worker: int) -> None:
        count = n = 0
        while not stop.is_set() or n < 20:
            batch = make_batch(f"t{n % 8}", [make_span(f"w{worker}.{n}", start_s=n)])
            count += stores.writer.write([batch], received_ns=T0_NS)[0].refused
            n += 1
        refused.append(count)

    threads = [threading.Thread(target=keep_writing, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    assert hide(stores, "del_1", [line for line in plan(stores) if line.trace_id != "t0"]) == HideOutcome(7, 0, 0)
    rows = stores.reader.list_traces(ONE, None, ANY_TIME, NEWEST_FIRST, OffsetPage(1, 100)).rows
    assert [row.summary.trace_id for row in rows] == ["t0"]
    purge(stores, "del_1", 10)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(visible(stores.reader, [1])) == {(1, "t0")}
    assert left(stores, "del_1") == {}
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.late_refused == sum(refused)
