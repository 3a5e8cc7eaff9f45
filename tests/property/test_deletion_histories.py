"""Random writes and deletions through the Deleter: what goes is what a few lines of Python say, and nothing else."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan import faults
from clearspan.deletion.execute import Deleter
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Unguarded
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.evaluate import TraceFacts, matches
from clearspan.store.memory import MemoryStore
from clearspan.testing import strategies as make
from clearspan.testing.build import T0_NS, make_batch, make_span
from clearspan.testing.catalog import FakeCatalog
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.stores import TOMBSTONE_SECRET, Seen, visible

SHORT_RUN = {"examples": 80, "rounds": 25}
LONG_RUN = {"examples": 10_000, "rounds": 1_000}
QUIET = {"deadline": None, "database": None, "derandomize": True}


def world() -> tuple[MemoryStore, FakeCatalog, FixedClock, CountingIds]:
    clock = FixedClock()
    return MemoryStore(TOMBSTONE_SECRET), FakeCatalog(clock), clock, CountingIds()


def deleter_of(made: tuple[MemoryStore, FakeCatalog, FixedClock, CountingIds], rows_max: int = 7) -> Deleter:
    store, catalog, clock, ids = made
    return Deleter(store, catalog, clock, ids, secret=b"k" * 32, rows_max=rows_max)


def is_asked_for(seen: Seen, project_id: int, request: DeletionRequest) -> bool:
    """Said again, in other words than the product's."""
    summary = seen.summary
    selection = request.selection
    if isinstance(selection, ByIds):
        chosen = summary.trace_id in selection.trace_ids
    else:
        chosen = matches(selection.where, TraceFacts(summary, [each.span for each in seen.spans]))
    start_ns, end_ns = request.window
    return (
        chosen
        and project_id in request.scope.project_ids
        and request.scope.environment in (None, summary.environment)
        and (start_ns is None or start_ns <= summary.start_ns)
        and (end_ns is None or summary.start_ns < end_ns)
    )


requests = st.builds(
    DeletionRequest,
    org_id=st.just(1),
    requested_by=st.just("key_1"),
    dialect=st.just("test"),
    scope=make.scopes(),
    selection=st.one_of(
        st.builds(ByFilter, make.filters()),
        st.builds(ByIds, st.lists(st.sampled_from(make.TRACE_IDS), min_size=1, max_size=3).map(tuple)),
    ),
    window=make.windows(),
    delete_all=st.just(True),
    matches_max=st.sampled_from((None, 1, 1000)),
)
steps = st.lists(st.one_of(st.lists(make.batches(), min_size=1, max_size=4), requests), min_size=2, max_size=12)


def check_history(history: Sequence[list[TraceBatch] | DeletionRequest], point: str | None = None) -> None:
    """Play a history; after each deletion compare everything that can be seen with the model's expectation."""
    made = world()
    store, catalog, clock, _ = made
    deleted: set[tuple[int, str]] = set()
    deleter = deleter_of(made)
    for step in history:
        clock.advance(1)
        before = visible(store, make.PROJECT_IDS)
        if isinstance(step, list):
            for batch, outcome in zip(step, store.write(step, received_ns=clock.now_ns()), strict=True):
                assert (outcome.refused > 0) == ((batch.project_id, batch.trace_id) in deleted)
            continue
        expected = {key for key, seen in before.items() if is_asked_for(seen, key[0], step)}
        if step.matches_max is not None and len(expected) > step.matches_max:
            with pytest.raises(Unguarded):
                deleter.delete(step)
            expected = set()
        elif point is None:
            result = deleter.delete(step)
            assert (result.state, result.matched, result.hidden) == (
                DeletionState.VERIFIED, len(expected), len(expected),
            )  # fmt: skip
            job = catalog.jobs[result.deletion_id]
            assert job.purged["span"] == sum(len(before[key].spans) for key in expected)
        else:
            with faults.armed(f"{point}:1:crash"):
                try:
                    deleter.delete(step)
                except faults.Crash:
                    deleter = deleter_of(made, rows_max=3)
            deleter.resume()
            deleter.run_due()
            if point == "deletion.before_hide":
                expected = set()
        deleted |= expected
        assert visible(store, make.PROJECT_IDS) == {k: seen for k, seen in before.items() if k not in expected}
        assert catalog.unfinished_deletions() == []


@pytest.mark.promise("P6", "F13", runs=SHORT_RUN["examples"])
@given(steps)
@settings(max_examples=SHORT_RUN["examples"], **QUIET)  # type: ignore[arg-type]
def test_deleted_is_what_was_asked_for_and_nothing_else(history: list[Any]) -> None:
    check_history(history)


@pytest.mark.promise("P6", "F13", runs=LONG_RUN["examples"])
@pytest.mark.long
@given(steps)
@settings(max_examples=LONG_RUN["examples"], **QUIET)  # type: ignore[arg-type]
def test_deleted_is_what_was_asked_for_in_many_histories(history: list[Any]) -> None:
    check_history(history)


POINTS = (
    "deletion.before_hide", "deletion.after_hide", "deletion.before_shares", "deletion.after_batch",
    "deletion.before_settle", "deletion.after_settle", "deletion.before_verify",
)  # fmt: skip


@given(steps, st.sampled_from(POINTS))
@settings(max_examples=SHORT_RUN["examples"], **QUIET)  # type: ignore[arg-type]
def test_the_same_over_crashes(history: list[Any], point: str) -> None:
    check_history(history, point)


@pytest.mark.promise("P6", "F12", runs=SHORT_RUN["examples"])
@given(st.lists(make.batches(), min_size=1, max_size=8), make.filters(), make.filters())
@settings(max_examples=SHORT_RUN["examples"], **QUIET)  # type: ignore[arg-type]
def test_of_two_overlapping_deletions_each_trace_is_counted_once(
    batches: list[TraceBatch], first: Expr, second: Expr
) -> None:
    made = world()
    store, catalog, clock, _ = made
    store.write(batches, received_ns=clock.now_ns())
    scope, window = Scope(make.PROJECT_IDS), Window()
    plans = [store.plan(scope, where, window, received_before_ns=2**62, limit=99) for where in (first, second)]
    outcomes = [
        store.hide(f"del_{n}", scope, where, window, plan, b"")
        for n, (where, plan) in enumerate(zip((first, second), plans, strict=True))
    ]
    both = set(plans[0]) & set(plans[1])
    assert outcomes[0] == (len(plans[0]), 0, 0, 0)
    assert outcomes[1] == (len(plans[1]) - len(both), 0, len(both), 0)
    assert catalog.ledger == []


def race(seed: int) -> Counter[str]:
    """One trace is written by three threads while it is deleted; afterwards it is gone for good.

    The deletion begins after a random share of the writes, so that it meets them early, midway and late whatever the
    machine's scheduler prefers.
    """
    rng = random.Random(seed)
    made = world()
    store = made[0]
    store.write([make_batch("t", [make_span("first")])], received_ns=T0_NS)
    outcomes: list[Counter[str]] = []
    gate = threading.Barrier(4)
    under_way = threading.Semaphore(0)

    def keep_writing(worker: int, count: int) -> None:
        tally: Counter[str] = Counter()
        gate.wait()
        for n in range(count):
            span = make_span(f"w{worker}.{n}", start_s=n)
            (outcome,) = store.write([make_batch("t", [span])], received_ns=T0_NS)
            tally.update(stored=outcome.stored, refused=outcome.refused)
            under_way.release()
        outcomes.append(tally)

    counts = [rng.randint(1, 30) for _ in range(3)]
    threads = [threading.Thread(target=keep_writing, args=each) for each in enumerate(counts)]
    for thread in threads:
        thread.start()
    deleter = deleter_of(made, rows_max=rng.randint(1, 50))
    gate.wait()
    for _ in range(rng.randint(0, sum(counts))):
        under_way.acquire()
    result = deleter.delete(DeletionRequest(1, "key_1", "test", Scope((1,)), ByIds(("t",))))
    for thread in threads:
        thread.join()
    tally = sum(outcomes, Counter[str]())
    assert (result.state, result.hidden) == (DeletionState.VERIFIED, 1), f"seed {seed}"
    assert visible(store, [1]) == {}, f"seed {seed}"
    job, progress = deleter.status(result.deletion_id)
    assert progress is not None
    assert progress.late_refused == tally["refused"], f"seed {seed}"
    assert job.purged["span"] == 1 + tally["stored"], f"seed {seed}"
    assert tally["stored"] + tally["refused"] == sum(counts), f"seed {seed}"
    return tally


@pytest.mark.promise("P4 P6 P7", "F11", runs=SHORT_RUN["rounds"])
def test_writers_that_race_a_deletion_bring_nothing_back() -> None:
    assert sum((race(seed) for seed in range(SHORT_RUN["rounds"])), Counter[str]()).total() > 0


@pytest.mark.promise("P4 P6 P7", "F11", runs=LONG_RUN["rounds"])
@pytest.mark.long
def test_writers_that_race_many_deletions_bring_nothing_back() -> None:
    total = sum((race(seed) for seed in range(LONG_RUN["rounds"])), Counter[str]())
    assert total["stored"] > 0
    assert total["refused"] > 0
