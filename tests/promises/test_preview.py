"""Preview and execution: whatever is written in between, what goes is what was previewed, or nothing goes."""

from __future__ import annotations

import random
import threading
from collections import Counter as Sums
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clearspan.deletion.execute import Deleter
from clearspan.deletion.preview import LIFETIME_S
from clearspan.deletion.request import ByFilter, DeletionRequest
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Conflict
from clearspan.model.span import SpanContext, TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.memory import MemoryStore
from clearspan.testing.build import T0_NS, make_batch, make_span
from clearspan.testing.catalog import FakeCatalog
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores, visible

from .plugin import PromiseFixture
from .table import Counter

SEED = 20261122
RUNS_SHORT, RUNS_LONG = 200, 10_000
SQLITE_SHORT, SQLITE_LONG = 12, 240
PROJECTS = (1, 2)
CUSTOMERS = ("ann", "bob", "cem", None)
TRACES = 14
ORG, KEY = 1, "key_1"
UNKNOWN = "plan_used_or_unknown"
Key = tuple[int, str]


@dataclass
class Ground:
    """One store with a Deleter over it; tokens and counts are the test's."""

    stores: Stores
    deleter: Deleter
    clock: FixedClock

    def write(self, batch: TraceBatch) -> None:
        self.stores.writer.write([batch], received_ns=self.clock.now_ns())

    def seen(self) -> dict[Key, Any]:
        return visible(self.stores.reader, PROJECTS)


def memory_ground() -> Ground:
    store, clock = MemoryStore(TOMBSTONE_SECRET), FixedClock()
    deleter = Deleter(store, FakeCatalog(clock), clock, CountingIds(), secret=b"k" * 32, rows_max=9)
    return Ground(Stores.of_memory(store), deleter, clock)


def sqlite_ground(folder: Path) -> Ground:
    store, clock = open_local_store(folder, TOMBSTONE_SECRET), FixedClock()
    deleter = Deleter(store.deletions, FakeCatalog(clock), clock, CountingIds(), secret=b"k" * 32, rows_max=9)
    stores = Stores.of_sqlite(store)
    return Ground(stores, deleter, clock)


def random_batch(rng: random.Random, prefix: str, number: int) -> TraceBatch:
    """One span of one of a few traces; it may move the trace into a filter or out of it."""
    context = SpanContext(customer_identifier=rng.choice(CUSTOMERS))
    span = make_span(
        f"s{rng.randrange(4)}",
        start_s=rng.choice((0.0, 5.0, 50.0)),
        duration_s=rng.choice((1.0, 2.0)),
        context=context,
        status=rng.choice(("ok", "ok", "error")),
        text=str(number),
    )
    return make_batch(f"{prefix}{rng.randrange(TRACES)}", [span], project_id=rng.choice(PROJECTS))


def random_filter(rng: random.Random) -> Expr:
    customer = Condition(
        BY_NAME["customer_identifier"], Operator.IN, tuple(rng.sample([c for c in CUSTOMERS if c], rng.randint(1, 2)))
    )
    errors = Condition(BY_NAME["error_count"], rng.choice((Operator.EQUALS, Operator.GT)), (0,))
    return rng.choice((customer, errors, Group("OR", (customer, errors)), Group("AND", (customer, errors))))


def random_request(rng: random.Random) -> DeletionRequest:
    window = rng.choice((Window(T0_NS - 1, T0_NS + 10**12), Window(T0_NS, T0_NS + 10 * 10**9)))
    projects = rng.choice((PROJECTS, PROJECTS[:1]))
    return DeletionRequest(ORG, KEY, "test", Scope(projects), ByFilter(random_filter(rng)), window)


def refused(ground: Ground, *attempts: tuple[str, int, str, str]) -> None:
    """Executing (token, organisation, key) is refused with that code, for each; nothing changes."""
    before = ground.seen()
    for token, org_id, key, code in attempts:
        with pytest.raises(Conflict) as caught:
            ground.deleter.delete_planned(token, org_id=org_id, requested_by=key)
        assert caught.value.code == code
    assert ground.seen() == before


def altered(token: str, rng: random.Random) -> str:
    at = rng.randrange(len("plan_"), len(token) - 1)  # the last character holds bits that no byte uses
    return token[:at] + rng.choice(sorted(set("ABCxyz0189-_") - {token[at]})) + token[at + 1 :]


def one_run(ground: Ground, seed: str, *, threads: bool = False) -> str:
    """Preview, write on, execute; says how it ended."""
    rng = random.Random(seed)
    prefix = f"{rng.randrange(10**9)}-"
    for number in range(rng.randint(5, 25)):
        ground.write(random_batch(rng, prefix, number))
    ground.clock.advance(1)
    request = random_request(rng)
    preview = ground.deleter.preview(request)
    previewed: set[Key] = {(trace.project_id, trace.trace_id) for trace in preview.plan.traces}
    token = preview.token
    wrong = ((altered(token, rng), ORG, KEY), (token, ORG + 1, KEY), (token, ORG, "key_2"))
    refused(ground, *((*each, UNKNOWN) for each in wrong))
    if rng.random() < 0.1:
        ground.clock.advance(LIFETIME_S)
        refused(ground, (token, ORG, KEY, "plan_expired"))
        return "expired"
    writes = [random_batch(rng, prefix, 100 + n) for n in range(rng.choice((0, 1, 3, 10)))]
    if rng.random() < 0.1:
        with suppress(Conflict):
            ground.deleter.delete(random_request(rng))
    if threads:
        return race(ground, token, previewed, writes)
    for batch in writes:
        ground.write(batch)
    before = set(ground.seen())
    outcome = execute(ground, token, previewed)
    check(ground, before, token, previewed, outcome)
    return outcome


def check(ground: Ground, before: set[Key], token: str, previewed: set[Key], outcome: str) -> None:
    """What is gone was previewed, all of it or nothing; a used token does nothing more."""
    gone = before - set(ground.seen())
    assert gone == (previewed if outcome == "deleted" else set())
    if outcome == "deleted":
        refused(ground, (token, ORG, KEY, UNKNOWN))


def execute(ground: Ground, token: str, previewed: set[Key]) -> str:
    try:
        result = ground.deleter.delete_planned(token, org_id=ORG, requested_by=KEY)
    except Conflict as error:
        if error.code != "plan_mismatch":
            raise
        return "mismatch"
    assert (result.state, result.hidden) == (DeletionState.VERIFIED, len(previewed))
    return "deleted"


def race(ground: Ground, token: str, previewed: set[Key], writes: list[TraceBatch]) -> str:
    """The writes run beside the execution: what is gone afterwards was previewed."""
    before = set(ground.seen())
    gate = threading.Barrier(2)

    def write_all() -> None:
        gate.wait()
        for batch in writes:
            ground.write(batch)

    writer = threading.Thread(target=write_all)
    writer.start()
    gate.wait()
    outcome = execute(ground, token, previewed)
    writer.join()
    check(ground, before, token, previewed, outcome)
    return outcome


def run_many(make: Callable[[], Ground], counter: Counter, runs: int, *, runs_a_store: int, label: str) -> None:
    outcomes: Sums[str] = Sums()
    ground: Ground | None = None
    for number in range(runs):
        if number % runs_a_store == 0:
            if ground is not None:
                ground.stores.close()
            ground = make()
        assert ground is not None
        seed = f"{SEED}/{label}/{number}"
        with counter.run(seed):
            outcomes[one_run(ground, seed, threads=number % 4 == 0)] += 1
    assert ground is not None
    ground.stores.close()
    print(f"{runs} previews over {label}: {dict(outcomes)}")
    wanted = {"deleted", "mismatch", "expired"} if runs >= RUNS_SHORT else {"deleted"}
    assert set(outcomes) >= wanted, "a kind of end never came"


def test_what_goes_was_previewed(promise: PromiseFixture) -> None:
    run_many(memory_ground, promise("P3 P9", "F31 F32"), RUNS_SHORT, runs_a_store=1, label="memory")


@pytest.mark.long
def test_what_goes_was_previewed_in_many_runs(promise: PromiseFixture) -> None:
    run_many(memory_ground, promise("P3 P9", "F31 F32"), RUNS_LONG, runs_a_store=1, label="memory")


@pytest.mark.parametrize("runs", [SQLITE_SHORT, pytest.param(SQLITE_LONG, marks=pytest.mark.long)])
def test_the_same_over_files(tmp_path: Path, promise: PromiseFixture, runs: int) -> None:
    numbers = iter(range(runs))
    counter = promise("P3 P9", "F31 F32")
    run_many(lambda: sqlite_ground(tmp_path / str(next(numbers))), counter, runs, runs_a_store=20, label="sqlite")
