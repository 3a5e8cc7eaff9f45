"""kill -9 of a server that runs an experiment: each item exactly once in the result, no finished item asked again.

The experiment is made in the data directory before the first start, which begins it as any start begins what is
pending. Between two lives of the server the store is read by the test itself, and once more at the end.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from clearspan.api.gateway import DirectWriter, IngestGateway, ThreadPool
from clearspan.catalog import Catalog
from clearspan.catalog.experiments import Experiment, ExperimentDefinition, ExperimentStatus
from clearspan.experiments.item_documents import Item, NewItem
from clearspan.experiments.items import Items
from clearspan.experiments.result_runs import ATTEMPT_KEY
from clearspan.files.lock import DataDirectoryLocked, DirectoryLock
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.clock import SystemClock, SystemIds
from clearspan.model.trace import Scope, Window
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.port import TraceRow
from clearspan.testing.llm_stub import Body, LlmStub, echo
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import Stores

from .live import START_S, Live, start, wait_for

SEED = 20261122
POINTS = (
    "experiment.before_item",
    "experiment.before_scores",
    "experiment.before_result",
    "experiment.after_result",
    "experiment.before_cursor",
)
SCORED = {"type": "eval", "config": {"evaluator_slugs": ["exact"]}}
CALL = {"type": "completion", "config": {"model": "gpt-4o-mini", "template": "{{q}}"}}


class Trial:
    """An experiment of so many items on a data directory, and its server's lives."""

    def __init__(self, data: Path, stub: LlmStub, count: int, *workflow: dict[str, object], concurrency: int) -> None:
        self.data, self.stub = data, stub
        self.finished: Counter[str] = Counter()  # item's text → calls, when its result was first seen
        data.mkdir(mode=0o700)
        self.experiment, self.items = asyncio.run(self._prepare(count, workflow, concurrency))
        self.texts = {item.id: f"item-{number}" for number, item in enumerate(self.items)}

    async def _prepare(
        self, count: int, workflow: tuple[dict[str, object], ...], concurrency: int
    ) -> tuple[Experiment, list[Item]]:
        clock = SystemClock()
        wait_for(self._is_free, "the writer is gone that was killed with its server")
        with ExitStack() as stack:
            catalog = stack.enter_context(Catalog.open(self.data))
            store = open_local_store(self.data, catalog.tombstone_secret)
            stack.callback(store.close)
            writer = DirectWriter(Stores.of_sqlite(store).writer)
            threads = ThreadPool(1, "prepare")
            gateway = IngestGateway(writer, clock, queue_bytes_max=2**30)
            for part in (writer, threads, gateway):
                stack.callback(part.close)
            org_id = catalog.first_org.id
            dataset = catalog.datasets.create(org_id, "questions")
            items = Items(store.reader, gateway, catalog, clock, SystemIds(), None, threads)
            new = [NewItem({"q": f"say item-{number}"}, f"echo: say item-{number}") for number in range(count)]
            added = await items.add("key_test", dataset, new)
            exact = catalog.evaluators.create(
                org_id, slug="exact", name="Exact", kind="exact", config={}, score_type="boolean"
            )
            definition = ExperimentDefinition(
                "killed", dataset.uuid, workflow, clock.now_ns(),
                evaluator_ids=[exact.uuid], batch_size=25, concurrency=concurrency,
            )  # fmt: skip
            return catalog.experiments.create(org_id, definition), list(added)

    def live(self) -> Live:
        return start(
            self.data,
            faults=self.data.parent / "faults",
            llm_base_url=self.stub.url,
            llm_api_key="sk-test",
            llm_allow_private="true",
            llm_retries_max="0",
        )

    def status(self) -> ExperimentStatus:
        with Catalog.open(self.data) as catalog:
            return self._status(catalog)

    def wait_completed(self) -> None:
        with Catalog.open(self.data) as catalog:
            completed = ExperimentStatus.COMPLETED
            wait_for(lambda: self._status(catalog) is completed, "the experiment ends", seconds=120)

    def _status(self, catalog: Catalog) -> ExperimentStatus:
        found = catalog.experiments.of_project(self.experiment.project_id)
        assert found is not None
        return found.status

    def _is_free(self) -> bool:
        try:
            DirectoryLock(self.data).release()
        except DataDirectoryLocked:
            return False
        return True

    def look(self) -> list[TraceRow]:
        """Every result, read without a server. What is finished must not have been asked about since it was seen."""
        with ExitStack() as stack:
            catalog = stack.enter_context(Catalog.open(self.data))
            store = open_local_store(self.data, catalog.tombstone_secret)
            stack.callback(store.close)
            rows: list[TraceRow] = []
            scope, page = Scope((self.experiment.project_id,)), 1
            while found := store.reader.list_traces(scope, None, Window(), NEWEST_FIRST, OffsetPage(page, 1000)).rows:
                rows, page = rows + found, page + 1
            said = store.reader.annotations_of([row.trace_pk for row in rows])
            for row in rows:
                assert [each.annotation.score for each in said.get(row.trace_pk, [])] == [1.0], (
                    "a result has its scores"
                )
        counts = self.stub.counts
        for row in rows:
            text = self.texts[item_of(row)]
            assert self.finished.setdefault(text, counts[text]) == counts[text], "a finished item was asked again"
        return rows

    def check(self) -> None:
        """Every item has exactly one result, whole; only those at work at a death were asked twice."""
        rows = self.look()
        assert Counter(map(item_of, rows)) == Counter(dict.fromkeys(self.texts, 1))
        for row in rows:
            assert (row.summary.span_count, row.summary.llm_call_count, row.summary.error_count) == (3, 1, 0)
            assert dict(row.summary.metadata)[ATTEMPT_KEY] == "1"

    @property
    def repeated(self) -> int:
        """Calls beyond one an item."""
        return sum(self.stub.counts.values()) - len(self.items)


def item_of(row: TraceRow) -> str:
    return dict(row.summary.metadata)[REFERENCE_EXAMPLE_KEY].replace("-", "")


def run_with_kills(data: Path, count: int, kills: int, *, concurrency: int, delay_s: float) -> Trial:
    """Kill the server so many times, at points and at any moment in turn, and let it end."""
    rng, gate = random.Random(SEED), threading.Event()

    def reply(body: Body) -> str:
        # No item ends before the server is ready and its death is arranged, however slow the machine is.
        assert gate.wait(START_S)
        return echo(body)

    with LlmStub(reply, delay_s=delay_s) as stub:
        trial = Trial(data, stub, count, CALL, SCORED, concurrency=concurrency)
        for number in range(kills):
            gate.clear()
            live = trial.live()
            try:
                if number % 2 == 0:
                    point = POINTS[(number // 2) % len(POINTS)]
                    is_rare = point in ("experiment.before_item", "experiment.before_cursor")
                    live.arm(point, "kill_all", 1 if is_rare else rng.randrange(1, 12))
                    gate.set()
                    wait_for(lambda live=live: live.process.poll() is not None, f"the server dies at {point}")
                else:
                    gate.set()
                    time.sleep(rng.random() * 0.2)
            finally:
                live.end()
            assert trial.status() is ExperimentStatus.RUNNING, "it was killed before its end"
            assert len(trial.look()) < count
        live = trial.live()
        try:
            gate.set()
            trial.wait_completed()
            assert live.stop() == 0
        finally:
            live.end()
        trial.check()
        assert trial.repeated <= kills * concurrency
    return trial


def test_an_experiment_survives_three_kills(tmp_path: Path) -> None:
    run_with_kills(tmp_path / "data", 200, 3, concurrency=8, delay_s=0.02)


@pytest.mark.long
def test_an_experiment_of_2000_items_survives_ten_kills(tmp_path: Path) -> None:
    began = time.monotonic()
    trial = run_with_kills(tmp_path / "data", 2000, 10, concurrency=15, delay_s=0.1)
    print(f"{time.monotonic() - began:.1f} s, {trial.repeated} calls repeated")


@pytest.mark.long
def test_a_server_that_is_stopped_ends_well_and_goes_on(tmp_path: Path) -> None:
    with LlmStub(delay_s=0.1) as stub:
        trial = Trial(tmp_path / "data", stub, 200, CALL, SCORED, concurrency=8)
        live = trial.live()
        try:
            wait_for(lambda: stub.calls, "the first item is asked about")
            assert live.stop() == 0
        finally:
            live.end()
        assert trial.status() is ExperimentStatus.RUNNING
        assert len(trial.look()) == len(stub.calls), "items at work were finished"
        live = trial.live()
        try:
            trial.wait_completed()
            assert live.stop() == 0
        finally:
            live.end()
        trial.check()
        assert trial.repeated == 0


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_a_point(tmp_path: Path, point: str) -> None:
    with LlmStub(delay_s=0.05) as stub:
        trial = Trial(tmp_path / "data", stub, 100, CALL, SCORED, concurrency=5)
        live = trial.live()
        try:
            live.arm(point, "kill_all")
            wait_for(lambda: live.process.poll() is not None, f"the server dies at {point}")
        finally:
            live.end()
        trial.look()
        live = trial.live()
        try:
            trial.wait_completed()
        finally:
            live.end()
        trial.check()
