"""A staged hide and whatever comes between its steps end as if the whole hide had come last."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clearspan import faults
from clearspan.model.errors import Conflict, Overloaded
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.memory import MemoryStore
from clearspan.store.port import DeletionStore, HideOutcome, HoldRow, TraceReader, child_id_of
from clearspan.store.sqlite import fsck
from clearspan.store.sqlite.open import SqliteStore, open_store
from clearspan.testing.build import T0_NS, make_batch, make_span
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores, visible

ONE = Scope((1,))
ANY_TIME = Window()
CLEAN = Condition(BY_NAME["error_count"], Operator.EQUALS, (Decimal(0),))
TRACES = 40
STEPS = ("stage_lines", "stage_tombstones", "stage_refresh", "stage_activate")


class Between:
    """Runs something once, just before a step of a stage reaches the writer."""

    def __init__(self, store: SqliteStore, step: str, act: Callable[[], None]) -> None:
        self._store, self._step, self._act = store, step, act
        self._call = store.writer.call
        self.fired = False
        store.writer.call = self.call  # type: ignore[method-assign]

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        if name == self._step and not self.fired:
            self.fired = True
            self._act()
        return self._call(name, *args, timeout_s=timeout_s)


def fill(writer: Any) -> None:
    for n in range(TRACES):
        context = SpanContext(environment="prod" if n % 2 else None)
        writer.write([make_batch(f"t{n}", [make_span("a", context=context, start_s=n * 900.0)])], received_ns=T0_NS)


def both(folder: Path) -> tuple[SqliteStore, Stores, MemoryStore]:
    store = open_local_store(folder, TOMBSTONE_SECRET)
    store.deletions.direct_max = 0
    subject = Stores.of_sqlite(store)
    model = MemoryStore(TOMBSTONE_SECRET)
    for each in (subject.writer, model):
        fill(each)
    return store, subject, model


def act(rng: random.Random, writer: Any, deletions: DeletionStore) -> None:
    """A few random things that may happen between two steps; the same for equal seeds."""
    for turn in range(rng.randint(1, 4)):
        some = [f"t{n}" for n in rng.sample(range(TRACES), rng.randint(1, 6))]
        match rng.choice(["grow", "fail", "move", "hide", "hold", "new"]):
            case "grow":
                batches = [make_batch(each, [make_span(f"g{turn}", start_s=9e4)]) for each in some]
            case "fail":
                batches = [make_batch(each, [make_span(f"f{turn}", status="error", start_s=9e4)]) for each in some]
            case "move":  # an earlier span in another environment: other counters, other window
                context = SpanContext(environment="test")
                batches = [make_batch(each, [make_span(f"m{turn}", context=context, start_s=-9e4)]) for each in some]
            case "new":
                batches = [make_batch(f"new{turn}", [make_span("a")])]
            case "hold":
                hold = HoldRow(f"hold_{turn}", 1, ONE, None, tuple(some), ANY_TIME, None, 1, "key_1")
                deletions.add_hold(hold)
                continue
            case _:
                direct(deletions, f"other_{turn}", some)
                continue
        writer.write(batches, received_ns=T0_NS)


def direct(deletions: DeletionStore, deletion_id: str, ids: list[str]) -> None:
    """Another deletion, small enough for one transaction."""
    before = getattr(deletions, "direct_max", 0)
    if before is not None and hasattr(deletions, "direct_max"):
        deletions.direct_max = 10**6
    deletions.hide(deletion_id, ONE, None, ANY_TIME, deletions.plan_ids(ONE, ids, ANY_TIME), b"other")
    if hasattr(deletions, "direct_max"):
        deletions.direct_max = before


def counts(reader: TraceReader) -> list[int]:
    windows = (ANY_TIME, Window(T0_NS - 10**15, T0_NS), Window(T0_NS, T0_NS + 10**13))
    return [
        reader.count_traces(Scope((1,), environment), None, window)
        for environment in (None, "prod", "test")
        for window in windows
    ]


def check_one(folder: Path, seed: int) -> HideOutcome:
    store, subject, model = both(folder)
    ask: dict[str, Any] = {"received_before_ns": 2**62, "limit": 1000}
    lines = [each.plan(ONE, CLEAN, ANY_TIME, **ask) for each in (subject.deletions, model)]
    step = random.Random(seed).choice(STEPS[1:])
    act(random.Random(seed), model, model)
    expected = model.hide("del_1", ONE, CLEAN, ANY_TIME, lines[1], b"why", manifest_salt=b"s" * 32)
    between = Between(store, step, lambda: act(random.Random(seed), subject.writer, subject.deletions))
    found = subject.deletions.hide("del_1", ONE, CLEAN, ANY_TIME, lines[0], b"why", manifest_salt=b"s" * 32)
    assert between.fired
    assert found == expected, f"seed {seed}"
    for deletion_id in ("del_1", child_id_of("del_1")):
        assert (
            subject.deletions.leaves(deletion_id) == model.leaves(deletion_id)
            if model.progress(deletion_id)
            else (subject.deletions.progress(deletion_id) is None)
        ), f"seed {seed}"
    assert visible(store.reader, [1]) == visible(model, [1]), f"seed {seed}"
    assert counts(store.reader) == counts(model), f"seed {seed}"
    for n in range(TRACES):
        batch = make_batch(f"t{n}", [make_span("late", start_s=5e5)])
        answers = [each.write([batch], received_ns=T0_NS) for each in (subject.writer, model)]
        assert answers[0] == answers[1], f"seed {seed}"
    store.close()
    assert fsck.check(folder, pages=False).violations == [], f"seed {seed}"
    return found


def test_what_comes_between_counts_as_before(tmp_path: Path) -> None:
    total = [check_one(tmp_path / str(seed), seed) for seed in range(25)]
    assert all(sum(column) for column in zip(*total, strict=True)), "every kind of outcome was seen"


@pytest.mark.long
def test_what_comes_between_counts_as_before_many_times(tmp_path: Path) -> None:
    for seed in range(1000, 1600):
        check_one(tmp_path / str(seed), seed)


def test_an_exact_hide_sees_what_came_between(tmp_path: Path) -> None:
    store, subject, _ = both(tmp_path)
    lines = subject.deletions.plan(ONE, CLEAN, ANY_TIME, received_before_ns=2**62, limit=1000)
    bad = make_batch("t3", [make_span("bad", status="error")])
    Between(store, "stage_activate", lambda: subject.writer.write([bad], received_ns=T0_NS) and None)
    before = set(visible(store.reader, [1]))
    with pytest.raises(Conflict):
        subject.deletions.hide("del_1", ONE, CLEAN, ANY_TIME, lines, b"why", exact=True)
    assert set(visible(store.reader, [1])) == before
    store.close()
    assert fsck.check(tmp_path).violations == []


@pytest.mark.parametrize("point", ["store.before_hide", "store.after_stage_lines", "store.before_activate"])
def test_a_failure_while_staging_leaves_everything_as_it_was(tmp_path: Path, point: str) -> None:
    store, subject, _ = both(tmp_path)
    lines = subject.deletions.plan(ONE, CLEAN, ANY_TIME, received_before_ns=2**62, limit=1000)
    before = visible(store.reader, [1])
    with faults.armed(f"{point}:1:raise"), pytest.raises(faults.FaultInjected):
        subject.deletions.hide("del_1", ONE, CLEAN, ANY_TIME, lines, b"why")
    assert visible(store.reader, [1]) == before
    assert subject.deletions.progress("del_1") is None
    assert not store.writer.call("stage_drop")
    with pytest.raises(Overloaded):
        store.writer.call("stage_tombstones", "del_1")
    assert subject.deletions.hide("del_1", ONE, CLEAN, ANY_TIME, lines, b"why") == HideOutcome(TRACES, 0, 0, 0)
    store.close()
    assert fsck.check(tmp_path).violations == []


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_that_dies_while_staging_forgets_the_stage(tmp_path: Path, step: str) -> None:
    store = open_store(tmp_path, TOMBSTONE_SECRET)
    for n in range(TRACES):
        store.writer.submit([make_batch(f"t{n}", [make_span("a")])], T0_NS).result()
    store.deletions.direct_max = 0
    lines = store.deletions.plan(ONE, CLEAN, ANY_TIME, received_before_ns=2**62, limit=1000)
    before = visible(store.reader, [1])
    Killing(store, step)
    with pytest.raises(Overloaded):
        store.deletions.hide("del_1", ONE, CLEAN, ANY_TIME, lines, b"why")
    wait_for_restart(store)
    assert visible(store.reader, [1]) == before
    assert store.deletions.hide("del_1", ONE, CLEAN, ANY_TIME, lines, b"why") == HideOutcome(TRACES, 0, 0, 0)
    store.close()
    assert fsck.check(tmp_path).violations == []


def wait_for_restart(store: SqliteStore) -> None:
    """Until the new writer process answers."""
    for _ in range(1000):
        try:
            assert store.writer.call("ping")
        except Overloaded:  # meant for the process that has just died
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the writer never came back")


class Killing:
    """Kills the writer process when a step of a stage is started."""

    def __init__(self, store: SqliteStore, step: str) -> None:
        self._store, self._step, self._start = store, step, store.writer.start
        store.writer.start = self.start  # type: ignore[method-assign]

    def start(self, name: str, *args: Any) -> Future[Any]:
        if name == self._step:
            self._store.writer.start = self._start  # type: ignore[method-assign]
            os.kill(self._store.writer.pid, signal.SIGKILL)
        return self._start(name, *args)
