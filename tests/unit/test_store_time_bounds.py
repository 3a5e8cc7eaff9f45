"""No transaction of a deletion keeps the writer for long, whatever its rows cost: told by a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.port import HoldRow, PlannedTrace
from clearspan.store.sqlite.deletion_calls import BUSY_S_MAX
from clearspan.store.sqlite.judge import Question
from clearspan.store.sqlite.process import Options, Service
from clearspan.testing.build import make_batch, make_log, make_span, make_trace, with_metadata
from clearspan.testing.local_store import open_local_store

TRACES = 120
QUESTION = Question(Scope((1,)), None, Window())


class SlowClock:
    """Each look at it, something has taken so long."""

    def __init__(self) -> None:
        self.now_s = self.step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def clock() -> SlowClock:
    return SlowClock()


@pytest.fixture
def service(tmp_path: Path, clock: SlowClock) -> Iterator[Service]:
    made = Service(Options(tmp_path / "traces.db", bytes(32), 2000, 2**24, 8), monotonic=clock)
    made.write([make_trace(f"t{n}", span_count=20) for n in range(TRACES)], received_ns=1)
    lines = [PlannedTrace(n + 1, 1, f"t{n}") for n in range(TRACES)]
    assert made.hide("del_1", QUESTION, lines, b"why", b"s" * 32, False, None).hidden == TRACES
    yield made
    made.close()


def batches(service: Service, rows_max: int) -> list[dict[str, int]]:
    done = []
    more = True
    while more:
        counts, more = service.purge_batch("del_1", len(done), rows_max)
        done.append(counts)
    return done


def test_a_fast_batch_is_bounded_by_its_rows(service: Service) -> None:
    assert len(batches(service, 10**6)) == 1


def test_a_slow_batch_ends_when_its_time_is_over(service: Service, clock: SlowClock) -> None:
    clock.step_s = 2 * BUSY_S_MAX
    done = batches(service, 10**6)
    assert len(done) > 5
    assert sum(counts.get("trace", 0) for counts in done) == TRACES
    assert all(sum(counts.values()) < 600 for counts in done)


def test_settling_is_bounded_by_its_rows_and_goes_on(service: Service) -> None:
    batches(service, 10**6)
    above: int | None = -1
    calls = 0
    while above is not None:
        above = service.settle_some("del_1", above, 50)
        calls += 1
    assert calls == 3  # of at most 50 rows each
    assert service.settle_some("del_1", -1, 50) is None


def test_a_trace_of_few_spans_and_many_other_rows_goes_in_bounded_batches(tmp_path: Path) -> None:
    made = Service(Options(tmp_path / "traces.db", bytes(32), 2000, 2**24, 8))
    context = with_metadata({f"k{n}": "v" for n in range(300)})
    logs = [make_log("s", at_s=n, text=f"line {n}") for n in range(400)]
    made.write([make_batch("t", [make_span("s", context=context), *logs])], received_ns=1)
    assert made.hide("del_1", QUESTION, [PlannedTrace(1, 1, "t")], b"why", b"s" * 32, False, None).hidden == 1
    done = batches(made, 100)
    made.close()
    assert sum((Counter(each) for each in done), Counter())["log"] == 400
    assert max(sum(each.values()) for each in done) <= 110
    assert sum(each.get("metadata", 0) for each in done) == 300


def test_what_a_hold_took_is_on_disk_before_the_catalog_is_told(tmp_path: Path) -> None:
    """Purge batches do not wait for the disk, but the last one does: the child deletion is recorded after it."""
    made = Service(Options(tmp_path / "traces.db", bytes(32), 2000, 2**24, 8))
    made.write([make_trace(f"t{n}") for n in range(40)], received_ns=1)
    lines = [PlannedTrace(n + 1, 1, f"t{n}") for n in range(40)]
    made.hide("del_1", QUESTION, lines, b"why", b"s" * 32, False, None)
    made.add_hold(HoldRow("hold_1", 1, Scope((1,)), None, ("t3",), Window(), None, 1, "key_1"))
    commits: list[int] = []

    def note() -> bool:
        commits.append(int(made.conn.pragma("synchronous")))
        return False

    made.conn.set_commit_hook(note)
    batches(made, 20)
    made.conn.set_commit_hook(None)
    made.close()
    full, normal = 2, 1
    assert commits[0] == normal
    assert commits[-1] == full


@pytest.mark.parametrize("held_by", [None, "anna", "words"])
def test_a_hold_that_asks_for_text_is_asked_outside_of_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_by: str | None
) -> None:
    """Each trace may take a millisecond then: a hide of some hundred traces is staged as a large one is."""
    store = open_local_store(tmp_path)
    store.writer.submit([make_trace(f"t{n}") for n in range(60)], 1).result()
    field, operator = ("text", Operator.ICONTAINS) if held_by == "words" else ("customer_identifier", Operator.EQUALS)
    if held_by is not None:
        where = Condition(BY_NAME[field], operator, (held_by,))
        store.deletions.add_hold(HoldRow("hold_1", 1, Scope((1,)), where, None, Window(), None, 1, "key_1"))
    calls: list[str] = []
    call = store.writer.call
    monkeypatch.setattr(store.writer, "call", lambda name, *args: (calls.append(name), call(name, *args))[1])
    lines = [PlannedTrace(n + 1, 1, f"t{n}") for n in range(60)]
    assert store.deletions.hide("del_1", Scope((1,)), None, Window(), lines, b"why").hidden == 60
    assert ("stage_activate" in calls) == (held_by == "words")
    store.close()
