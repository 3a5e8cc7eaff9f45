"""Reads that take too long: they are ended with a clear answer, and nothing else waits for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clearspan.model.errors import Overloaded, ReadTooSlow
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import find_field
from clearspan.query.operators import Operator
from clearspan.store.sqlite.reader import SqliteReader
from clearspan.testing.wire import Wire, open_wire

TRACES = 200
CONDITIONS = 300
TINY_S = 0.002
WAIT_S = 20.0
HEAVY = [
    {"field": "span_name", "operator": "icontains", "value": [f"word {n}"], "connector": "OR"}
    for n in range(CONDITIONS)
]


@pytest.fixture
def slow_wire(tmp_path: Path) -> Any:
    """Traces in the real store; the reader may take hardly any time."""
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "sqlite")
        wire.ingest(*[wire.span(f"t{n}", span_name=f"call {n}", input="a needle") for n in range(TRACES)])
        yield wire


def reader_of(wire: Wire) -> SqliteReader:
    assert isinstance(wire.services.reader, SqliteReader)
    return wire.services.reader


def heavy(wire: Wire) -> Any:
    return wire.post("/api/traces/list/", {"filters": HEAVY, "operator": "OR"})


def test_a_heavy_filter_is_refused_and_a_simple_list_goes_on(slow_wire: Wire) -> None:
    assert heavy(slow_wire).status_code == 200
    reader_of(slow_wire).seconds_max = TINY_S
    answer = heavy(slow_wire)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "read_too_slow"
    assert "narrow the filter" in answer.json()["detail"]
    reader_of(slow_wire).seconds_max = WAIT_S
    assert len(slow_wire.list_ids("?page_size=1000")) == TRACES


def test_the_choice_of_a_deletion_is_limited_too_and_then_deletes_nothing(slow_wire: Wire) -> None:
    wide = Scope(tuple(each.id for each in slow_wire.catalog.projects(slow_wire.catalog.first_org.id)))
    field, _ = find_field("text")
    reader = reader_of(slow_wire)
    reader.seconds_max = 0.0
    where = Condition(field, Operator.ICONTAINS, ("needle",))
    with pytest.raises(ReadTooSlow):
        reader.plan(wide, where, Window(), received_before_ns=2**63 - 1, limit=TRACES)
    with pytest.raises(ReadTooSlow):
        reader.sum_traces(wide, where, Window())
    reader.seconds_max = WAIT_S
    assert len(reader.plan(wide, where, Window(), received_before_ns=2**63 - 1, limit=TRACES)) == TRACES


def test_a_stop_ends_reads(slow_wire: Wire) -> None:
    reader_of(slow_wire).end_reads(0.0)
    with pytest.raises(Overloaded):
        reader_of(slow_wire).count_traces(Scope((1,)), None, Window())


def test_readiness_and_figures_answer_while_all_readers_are_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release = threading.Event(), threading.Event()

    def blocked(*_: Any) -> Any:
        begun.set()
        release.wait(WAIT_S)
        raise ReadTooSlow

    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "memory", read_threads=1)
        monkeypatch.setattr(wire.services.reader, "list_traces", blocked)
        with ThreadPoolExecutor(1) as other:
            answer = other.submit(wire.post, "/api/traces/list/", {})
            try:
                assert begun.wait(WAIT_S)
                assert wire.get("/readyz").status_code == 200
                assert wire.get("/metrics").status_code == 200
                assert not answer.done()
            finally:
                release.set()
            assert answer.result(WAIT_S).status_code == 400
