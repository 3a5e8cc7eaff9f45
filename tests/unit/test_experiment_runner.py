"""The runner in one process over the embedded store: every item exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from clearspan.api.runtime import assemble
from clearspan.api.services import Services
from clearspan.catalog import Catalog
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import Experiment, ExperimentDefinition, ExperimentStatus
from clearspan.deletion.projects import RemovalRequest
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.experiments.experiment_jobs import ExperimentJobs
from clearspan.experiments.item_documents import Item, NewItem
from clearspan.experiments.result_runs import NEWEST, ResultId, step_id
from clearspan.experiments.runner import Progress
from clearspan.faults import armed
from clearspan.ingest.payload import decode_record
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_document import run_values
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY, dotted_uuid
from clearspan.model.errors import Conflict, NotFound
from clearspan.model.trace import Scope, Window
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.settings import Settings
from clearspan.store.port import TraceDetail
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.llm_stub import Fault, LlmStub
from clearspan.testing.local_store import open_local_store

CALL = {"type": "completion", "config": {"model": "gpt-4o-mini", "template": "{{q}}"}}
WAIT = {"type": "wait", "config": {}}
DUPLICATE = {"type": "duplicate", "config": {}}
END_S = 20.0


class Lab:
    """A server's services without the server, and short ways to run an experiment on them."""

    def __init__(self, services: Services, catalog: Catalog) -> None:
        self.services, self.catalog, self.runner = services, catalog, services.runner
        self.org_id = catalog.first_org.id
        self.experiment: Experiment
        self.dataset: Dataset
        self.items: list[Item] = []

    async def prepare(
        self, count: int, *workflow: dict[str, Any], evaluators: tuple[str, ...] = (), **said: Any
    ) -> None:
        """A dataset of items `item-0`, `item-1`, … and a pending experiment on it."""
        self.dataset = self.catalog.datasets.create(self.org_id, "questions")
        new = [
            NewItem({"q": f"say item-{number}"}, f"echo: say item-{number}", {"n": number % 2})
            for number in range(count)
        ]
        self.items = list(await self.services.items.add("key_test", self.dataset, new)) if new else []
        known = {each.slug: each.uuid for each in self.catalog.evaluators.listed(self.org_id)}
        definition = ExperimentDefinition(
            "first", self.dataset.uuid, workflow, self.services.clock.now_ns(),
            evaluator_ids=[known[slug] for slug in evaluators], **said,
        )  # fmt: skip
        self.experiment = self.catalog.experiments.create(self.org_id, definition)

    async def run(self, count: int, *workflow: dict[str, Any], **said: Any) -> None:
        """Prepare, start, and wait for the end."""
        await self.prepare(count, *workflow, **said)
        await self.runner.start(self.experiment)
        await self.ended()

    def read(self) -> Experiment:
        found = self.catalog.experiments.find(self.org_id, self.experiment.public_id)
        assert found is not None
        return found

    async def ended(self) -> Experiment:
        """Wait until nothing is at work."""
        async with asyncio.timeout(END_S):
            while self.runner.figures().at_work:
                await asyncio.sleep(0.005)
        return self.read()

    def evaluator(self, slug: str, kind: str = "exact", score_type: str = "boolean", **config: Any) -> None:
        self.catalog.evaluators.create(
            self.org_id, slug=slug, name=slug, kind=kind, config=config, score_type=score_type
        )

    @property
    def scope(self) -> Scope:
        return Scope((self.experiment.project_id,))

    def progress(self) -> Progress:
        return self.runner.progress(self.read())

    def results(self, *, all_attempts: bool = False) -> dict[str, list[TraceDetail]]:
        """item id → its results."""
        where = None if all_attempts else NEWEST
        rows = self.services.reader.list_traces(self.scope, where, Window(), NEWEST_FIRST, OffsetPage(1, 1000)).rows
        found: dict[str, list[TraceDetail]] = {}
        for row in rows:
            detail = self.services.reader.get_trace(self.scope, row.summary.trace_id)
            assert detail is not None
            item_id = dict(row.summary.metadata)[REFERENCE_EXAMPLE_KEY].replace("-", "")
            found.setdefault(item_id, []).append(detail)
        return found

    def scores(self, detail: TraceDetail) -> dict[str, float | None]:
        rows = self.services.annotations.annotations_of([detail.row.trace_pk]).get(detail.row.trace_pk, [])
        return {row.annotation.name: row.annotation.score for row in rows}

    def trace_of(self, number: int, attempt: int = 1) -> str:
        return ResultId(self.experiment.uuid, self.items[number].id, attempt).trace_id

    def delete(self, project_id: int, *trace_ids: str) -> None:
        request = DeletionRequest(
            org_id=self.org_id, requested_by="key_test", dialect="native", scope=Scope((project_id,)),
            selection=ByIds(tuple(trace_ids)), reach=Scope((self.dataset.project_id, self.experiment.project_id)),
        )  # fmt: skip
        self.services.deleter.delete(request, wait_s=10.0)


def values(detail: TraceDetail, span_id: str | None = None) -> dict[str, Any]:
    """A run of a result as it was stored; the root unless another is named."""
    wanted = span_id or detail.row.summary.trace_id
    (record,) = [each.record for each in detail.spans if each.span.span_id == wanted]
    return run_values(decode_record(record).raw)


@contextmanager
def open_lab(data: Path, stub: LlmStub | None = None) -> Iterator[Lab]:
    data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        catalog = stack.enter_context(Catalog.open(data))
        opened = open_local_store(data, catalog.tombstone_secret)
        stack.callback(opened.close)
        settings = Settings(
            data=data,
            reserve_bytes=0,
            llm_base_url=None if stub is None else stub.url,
            llm_api_key=None if stub is None else SecretStr("sk-test"),
            llm_allow_private=True,
            llm_retries_max=0,
        )
        services = stack.enter_context(
            assemble(
                settings,
                catalog,
                reader=opened.reader,
                annotations=opened.reader,
                annotating=opened.annotations,
                deletions=opened.deletions,
                transfers=opened.transfers,
                writer=opened.writer,
                prices=PriceBook(),
            )
        )
        yield Lab(services, catalog)


@pytest.fixture(scope="module")
def stub() -> Iterator[LlmStub]:
    with LlmStub() as stub:
        yield stub


def in_lab(data: Path, stub: LlmStub | None, story: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    """Tell a story on the services, and close the runner as the server does."""

    async def told(lab: Lab) -> None:
        try:
            await story(lab)
        finally:
            await lab.runner.close()

    if stub is not None:
        stub.heal()
    with open_lab(data, stub) as lab:
        asyncio.run(told(lab))


def test_fifty_items_are_run_once_each_with_scores_tokens_and_costs(tmp_path: Path, stub: LlmStub) -> None:
    async def story(lab: Lab) -> None:
        lab.evaluator("exact")
        before = stub.counts
        await lab.run(50, CALL, evaluators=("exact",), batch_size=20, concurrency=5)
        assert lab.read().status is ExperimentStatus.COMPLETED
        assert lab.progress() == Progress(50, 50, 0, 0, 0, 0, 100.0)
        assert set((stub.counts - before).values()) == {1}
        told = lab.services.metrics.render().decode()
        assert 'clearspan_experiment_items_total{outcome="success"} 50.0' in told
        assert "clearspan_experiments_stuck 0.0" in told
        results = lab.results()
        assert sorted(results) == sorted(item.id for item in lab.items)
        for item in lab.items:
            (detail,) = results[item.id]
            assert lab.scores(detail) == {"exact": 1.0}
            summary, root = detail.row.summary, values(detail)
            assert root["reference_example_id"] == dotted_uuid(item.id)
            assert (root["inputs"], root["outputs"]) == (item.inputs, {"output": item.outputs})
            assert (summary.span_count, summary.llm_call_count, summary.error_count) == (2, 1, 0)
            assert (summary.prompt_tokens, summary.completion_tokens) == (2, 3)
            assert summary.cost_pico == 2 * 150_000 + 3 * 600_000
            assert summary.name == "workflow"
            assert dict(summary.metadata)["n"] == str(item.metadata["n"])

    in_lab(tmp_path, stub, story)


def test_failed_items_are_errors_and_can_be_retried(tmp_path: Path, stub: LlmStub) -> None:
    async def story(lab: Lab) -> None:
        lab.evaluator("exact")
        for number in (3, 5):
            stub.fail(f"item-{number}", Fault(status=400, times=1 if number == 3 else 2))
        await lab.run(8, CALL, evaluators=("exact",))
        assert lab.progress()[:7] == (8, 6, 2, 0, 0, 0, 100.0)
        (failed,) = lab.results()[lab.items[3].id]
        assert lab.scores(failed) == {}
        assert values(failed)["error"] == "LlmRefused: The endpoint does not take this request."
        calls = stub.counts
        assert await lab.runner.retry_failed(lab.read()) == 2
        await lab.ended()
        assert stub.counts - calls == {"item-3": 1, "item-5": 1}
        assert lab.progress() == Progress(8, 7, 1, 0, 0, 0, 100.0, attempt=2)
        newest, every = lab.results(), lab.results(all_attempts=True)
        assert [len(newest[item.id]) for item in lab.items] == [1] * 8, "lists show the newest attempt alone"
        assert [len(every[item.id]) for item in lab.items] == [1, 1, 1, 2, 1, 2, 1, 1]
        assert newest[lab.items[3].id][0].row.summary.trace_id == lab.trace_of(3, attempt=2)
        assert await lab.runner.retry_failed(lab.read()) == 1
        await lab.ended()
        assert lab.progress()[:3] == (8, 8, 0)
        assert await lab.runner.retry_failed(lab.read()) == 0
        assert lab.results()[lab.items[5].id][0].row.summary.trace_id == lab.trace_of(5, attempt=3)

    in_lab(tmp_path, stub, story)


def test_waiting_traces_are_resumed_one_by_one(tmp_path: Path, stub: LlmStub) -> None:
    async def story(lab: Lab) -> None:
        lab.evaluator("exact")
        again = {"type": "completion", "config": {"model": "m", "template": "{{input}}, {{output}}"}}
        await lab.run(3, CALL, WAIT, again, evaluators=("exact",))
        assert lab.read().status is ExperimentStatus.RUNNING
        assert lab.progress()[:7] == (3, 0, 0, 3, 0, 0, 0.0)
        (detail,) = lab.results()[lab.items[0].id]
        assert values(detail).get("end_time") is None
        assert lab.scores(detail) == {}, "nothing is scored before its end"
        status = await lab.runner.resume_trace(
            lab.read(),
            dotted_uuid(lab.trace_of(0)),
            input="in",
            output="out",
            metrics={"speed": 3},
            metadata={"who": "Ann"},
        )
        assert status == "success"
        (detail,) = lab.results()[lab.items[0].id]
        root = values(detail)
        assert (root["inputs"], root["outputs"]) == ({"input": "in"}, {"output": "echo: in, out"})
        assert {"who": "Ann", "metrics.speed": "3"}.items() <= dict(detail.row.summary.metadata).items()
        assert values(detail, step_id(lab.trace_of(0), 1))["outputs"]["output"] == "out"
        assert lab.scores(detail) == {"exact": 0.0}
        assert detail.row.summary.span_count == 4
        with pytest.raises(Conflict, match="does not wait"):
            await lab.runner.resume_trace(lab.read(), lab.trace_of(0), input="in", output="out")
        with pytest.raises(NotFound):
            await lab.runner.resume_trace(lab.read(), "0e" * 16, input="in", output="out")
        both = [lab.runner.resume_trace(lab.read(), lab.trace_of(n), input="i", output="o") for n in (1, 2)]
        assert await asyncio.gather(*both) == ["success", "success"]
        assert (await lab.ended()).status is ExperimentStatus.COMPLETED
        assert lab.progress()[:7] == (3, 3, 0, 0, 0, 0, 100.0)

    in_lab(tmp_path, stub, story)


def test_traces_that_are_resumed_one_right_after_another_complete_the_experiment(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.run(12, WAIT)
        for number in range(12):  # each while the run that resumed the one before is about to end
            status = await lab.runner.resume_trace(lab.read(), lab.trace_of(number), input="in", output="out")
            assert status == "success"
        assert (await lab.ended()).status is ExperimentStatus.COMPLETED
        assert lab.progress()[:4] == (12, 12, 0, 0)

    in_lab(tmp_path, None, story)


def test_items_cannot_say_what_results_are_found_by(tmp_path: Path) -> None:
    marks = {"experiment_superseded": "2", "experiment_attempt": "7", "not_scored_count": "1", "not_scored": {"x": "y"}}
    marks |= {REFERENCE_EXAMPLE_KEY: "0e" * 16, "lang": "de"}

    async def story(lab: Lab) -> None:
        await lab.prepare(0, DUPLICATE)
        new = NewItem({"q": 1}, "out", marks)  # as an import of an experiment's traces makes them
        lab.items = list(await lab.services.items.add("key_test", lab.dataset, [new]))
        now_ns = lab.services.clock.now_ns()
        definition = ExperimentDefinition("second", lab.dataset.uuid, [DUPLICATE], now_ns)
        lab.experiment = lab.catalog.experiments.create(lab.org_id, definition)
        await lab.runner.start(lab.experiment)
        await lab.ended()
        assert lab.progress() == Progress(1, 1, 0, 0, 0, 0, 100.0)
        (detail,) = lab.results()[lab.items[0].id]
        assert dict(detail.row.summary.metadata)["lang"] == "de"
        assert detail.row.summary.trace_id == lab.trace_of(0)

    in_lab(tmp_path, None, story)


def test_what_was_done_while_it_waited_is_measured_with_the_calls(tmp_path: Path, stub: LlmStub) -> None:
    async def story(lab: Lab) -> None:
        lab.evaluator("cheap", kind="cost", max_usd="1")
        lab.evaluator("short", kind="tokens", max_tokens=20, count="total")
        lab.evaluator("quick", kind="latency", max_s=60)
        await lab.run(1, CALL, WAIT, WAIT, evaluators=("cheap", "short", "quick"))
        first = {"cost": 0.75, "prompt_tokens": 7, "completion_tokens": 4, "latency": 59.5}
        given = {"input": "in", "output": "out"}
        assert await lab.runner.resume_trace(lab.read(), lab.trace_of(0), **given, metrics=first) == "pending"
        second = {"total_cost": 0.5, "total_tokens": 3, "latency": 1}
        assert await lab.runner.resume_trace(lab.read(), lab.trace_of(0), **given, metrics=second) == "success"
        (detail,) = lab.results()[lab.items[0].id]
        assert lab.scores(detail) == {"cheap": 0.0, "short": 1.0, "quick": 0.0}, "two waits and a call add up"
        summary = detail.row.summary
        assert (summary.prompt_tokens, summary.completion_tokens, summary.total_tokens) == (2 + 7, 3 + 4, 5 + 11 + 3)
        assert summary.cost_pico is not None
        assert 1_250_000_000_000 <= summary.cost_pico < 1_251_000_000_000

    in_lab(tmp_path, stub, story)


def test_metrics_are_not_lost_with_the_server(tmp_path: Path, stub: LlmStub) -> None:
    async def first(lab: Lab) -> None:
        lab.evaluator("cheap", kind="cost", max_usd="1")
        await lab.run(1, WAIT, DUPLICATE, evaluators=("cheap",))
        with armed("experiment.after_given:1:raise"), pytest.raises(RuntimeError):
            await lab.runner.resume_trace(lab.read(), lab.trace_of(0), input="i", output="o", metrics={"cost": 2})
        await lab.ended()

    async def second(lab: Lab) -> None:
        (lab.experiment,) = lab.catalog.experiments.listed(lab.org_id)
        await lab.runner.start(lab.read())
        await lab.ended()
        ((detail,),) = lab.results().values()
        assert lab.scores(detail) == {"cheap": 0.0}

    in_lab(tmp_path, stub, first)
    in_lab(tmp_path, stub, second)


def test_a_trace_that_waits_too_long_fails_and_can_be_retried(tmp_path: Path) -> None:
    soon = {"type": "wait", "config": {"timeout_hours": 1e-9}}
    late = {"type": "wait", "config": {"timeout_hours": 24}}

    async def story(lab: Lab) -> None:
        await lab.run(3, late, soon)
        assert await lab.runner.overdue.end_all() == 0, "they wait at the first step, which has a day"
        assert lab.progress().waiting == 3
        for number in (0, 1):
            await lab.runner.resume_trace(lab.read(), lab.trace_of(number), input="i", output="o")
        assert await lab.runner.overdue.end_all() == 2
        assert await lab.runner.overdue.end_all() == 0
        assert lab.progress()[:4] == (3, 0, 2, 1)
        assert (await lab.ended()).status is ExperimentStatus.RUNNING, "one waits still"
        (detail,) = lab.results()[lab.items[0].id]
        root, step = values(detail), values(detail, step_id(lab.trace_of(0), 1))
        assert root["error"] == step["error"] == "WaitTimedOut: nobody resumed this trace within 1e-09 hours"
        assert root["end_time"] == step["end_time"] is not None
        with pytest.raises(Conflict, match="does not wait"):
            await lab.runner.resume_trace(lab.read(), lab.trace_of(0), input="i", output="o")
        assert await lab.runner.retry_failed(lab.read()) == 2
        await lab.ended()
        assert lab.progress()[:4] == (3, 0, 0, 3), "from the first step again"

    in_lab(tmp_path, None, story)


def test_the_server_looks_for_overdue_traces_when_it_starts(tmp_path: Path) -> None:
    soon = {"type": "wait", "config": {"timeout_hours": 1e-9}}

    async def first(lab: Lab) -> None:
        await lab.run(5, soon, concurrency=2)
        assert lab.progress().waiting == 5

    async def second(lab: Lab) -> None:
        (lab.experiment,) = lab.catalog.experiments.listed(lab.org_id)
        await lab.runner.begin()
        async with asyncio.timeout(END_S):
            while lab.read().status is not ExperimentStatus.COMPLETED:
                await asyncio.sleep(0.005)
        assert lab.progress()[:4] == (5, 0, 5, 0)

    async def cancelled(lab: Lab) -> None:
        await lab.run(1, soon)
        await lab.runner.cancel(lab.read())
        assert await lab.runner.overdue.end_all() == 0, "nobody works on it: its traces stay as they are"

    in_lab(tmp_path / "ends", None, first)
    in_lab(tmp_path / "ends", None, second)
    in_lab(tmp_path / "stays", None, cancelled)


def test_what_was_given_survives_a_crash(tmp_path: Path, stub: LlmStub) -> None:
    async def first(lab: Lab) -> None:
        await lab.run(2, WAIT, CALL)
        with armed("experiment.after_given:1:raise"):
            with pytest.raises(RuntimeError):
                await lab.runner.resume_trace(lab.read(), lab.trace_of(0), input={"q": "say item-x"}, output="out")
            await lab.ended()

    async def second(lab: Lab) -> None:
        (lab.experiment,) = lab.catalog.experiments.listed(lab.org_id)
        lab.catalog.experiments.set_status(lab.experiment.project_id, ExperimentStatus.RUNNING)
        await lab.runner.start(lab.read())
        await lab.ended()
        assert lab.progress()[:4] == (2, 1, 0, 1)
        (done,) = [each[0] for each in lab.results().values() if each[0].row.summary.span_count == 3]
        assert values(done)["outputs"] == {"output": "echo: say item-x"}

    in_lab(tmp_path, stub, first)
    in_lab(tmp_path, stub, second)


POINTS = ("before_item", "before_scores", "before_result", "after_result", "before_cursor")


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_dies_goes_on_and_repeats_no_finished_item(tmp_path: Path, stub: LlmStub, point: str) -> None:
    async def first(lab: Lab) -> None:
        lab.evaluator("exact")
        await lab.prepare(12, CALL, evaluators=("exact",), batch_size=4, concurrency=3)
        calls.append(stub.counts)
        with armed(f"experiment.{point}:{2 if point == 'before_cursor' else 6}:crash"):
            await lab.runner.start(lab.experiment)
            await lab.ended()
        assert lab.read().status is ExperimentStatus.RUNNING, "it died, and could say nothing more"

    async def second(lab: Lab) -> None:
        (lab.experiment,) = lab.catalog.experiments.listed(lab.org_id)
        before, finished = stub.counts, {detail[0].row.summary.trace_id for detail in lab.results().values()}
        await lab.runner.begin()
        await lab.ended()
        assert lab.progress() == Progress(12, 12, 0, 0, 0, 0, 100.0)
        results = lab.results(all_attempts=True)
        assert [len(found) for found in results.values()] == [1] * 12
        assert all(lab.scores(found[0]) == {"exact": 1.0} for found in results.values())
        assert sum((stub.counts - before).values()) == 12 - len(finished)
        assert all(count <= 2 for count in (stub.counts - calls[0]).values())

    calls: list[Any] = []
    in_lab(tmp_path, stub, first)
    in_lab(tmp_path, stub, second)


def test_deleted_items_and_results_are_skipped_and_counted(tmp_path: Path, stub: LlmStub) -> None:
    async def story(lab: Lab) -> None:
        await lab.prepare(6, CALL)
        lab.delete(lab.dataset.project_id, lab.items[0].trace_id)
        await lab.runner.start(lab.experiment)
        await lab.ended()
        assert lab.progress()[:7] == (5, 5, 0, 0, 0, 0, 100.0), "what was gone before the start was never asked for"
        lab.delete(lab.experiment.project_id, lab.trace_of(1))
        assert lab.progress()[:7] == (5, 4, 0, 0, 0, 1, 100.0)
        await lab.runner.start(lab.read())
        await lab.ended()
        assert lab.progress()[:7] == (5, 4, 0, 0, 0, 1, 100.0), "a tombstone refuses it"
        assert lab.runner.figures().outcomes["deleted"] == 1
        lab.delete(lab.dataset.project_id, lab.items[2].trace_id)
        assert (await lab.runner.retry_failed(lab.read())) == 0

    in_lab(tmp_path, stub, story)


def test_items_that_go_while_it_runs_do_not_hide_others(tmp_path: Path, stub: LlmStub) -> None:
    async def story(lab: Lab) -> None:
        await lab.prepare(12, CALL, batch_size=2, concurrency=1)
        await lab.runner.start(lab.experiment)
        while not lab.results():
            await asyncio.sleep(0.001)
        lab.delete(lab.dataset.project_id, *(item.trace_id for item in lab.items[8:10]))
        await lab.ended()
        assert lab.progress()[:7] == (12, 10, 0, 0, 0, 2, 100.0)

    in_lab(tmp_path, stub, story)


def test_a_result_goes_with_an_item_that_is_deleted_while_it_is_made(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.prepare(3, WAIT, CALL)
        await lab.runner.start(lab.experiment)
        await lab.ended()
        giving = lab.runner.resume_trace(lab.read(), lab.trace_of(0), input={"q": "item-0"}, output="out")
        lab.delete(lab.dataset.project_id, lab.items[0].trace_id)
        with pytest.raises(NotFound):
            await giving
        lab.experiment = lab.catalog.experiments.create(
            lab.org_id, ExperimentDefinition("second", lab.dataset.uuid, [CALL], lab.services.clock.now_ns())
        )
        await lab.runner.start(lab.experiment)
        while lab.runner.figures().items_running < 2:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(lab.delete, lab.dataset.project_id, lab.items[1].trace_id)
        await lab.ended()
        assert list(lab.results(all_attempts=True)) == [lab.items[2].id]
        assert lab.progress()[:7] == (2, 1, 0, 0, 0, 1, 100.0)

    with LlmStub(delay_s=0.5) as slow:
        in_lab(tmp_path, slow, story)


def test_cancel_leaves_nothing_half_done_and_start_goes_on(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.prepare(12, CALL, concurrency=2)
        await lab.runner.start(lab.experiment)
        while lab.progress().done < 2:
            await asyncio.sleep(0.005)
        await lab.runner.cancel(lab.read())
        assert lab.runner.figures().at_work == 0
        assert lab.read().status is ExperimentStatus.CANCELLED
        done = lab.progress().done
        assert done < 12
        assert lab.progress()[:7] == (12, done, 0, 0, 0, 0, round(100 * done / 12, 2))
        with pytest.raises(Conflict, match="has ended"):
            await lab.runner.cancel(lab.read())
        with pytest.raises(Conflict, match="was cancelled"):
            await lab.runner.retry_failed(lab.read())
        await lab.runner.begin()
        assert lab.runner.figures().at_work == 0, "a cancelled experiment stays cancelled over restarts"
        await lab.runner.start(lab.read())
        assert (await lab.ended()).status is ExperimentStatus.COMPLETED
        assert lab.progress().done == 12

    with LlmStub(delay_s=0.05) as slow:
        in_lab(tmp_path, slow, story)


def test_stopping_the_server_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    async def first(lab: Lab) -> None:
        await lab.prepare(12, CALL, concurrency=2)
        await lab.runner.start(lab.experiment)
        while lab.progress().done < 2:
            await asyncio.sleep(0.005)

    async def second(lab: Lab) -> None:
        (lab.experiment,) = lab.catalog.experiments.listed(lab.org_id)
        assert lab.read().status is ExperimentStatus.RUNNING
        await lab.runner.begin()
        await lab.ended()
        assert lab.progress()[:3] == (12, 12, 0)

    with LlmStub(delay_s=0.05) as slow:
        in_lab(tmp_path, slow, first)
        in_lab(tmp_path, slow, second)
        assert max(slow.counts.values()) == 1, "items at work were waited for"


def test_what_cannot_run_says_so(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.run(2, CALL)
        found = lab.read()
        assert (found.status, found.error_code) == (ExperimentStatus.FAILED, "llm_not_configured")
        assert lab.progress()[:3] == (2, 0, 0)

    in_lab(tmp_path, None, story)


def test_a_start_meets_a_workflow_that_it_cannot_run_any_more(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.prepare(2, {"type": "completion", "config": {"template": "{{q}}"}})
        await lab.runner.begin()
        found = await lab.ended()
        assert (found.status, found.error_code) == (ExperimentStatus.FAILED, "invalid_input")
        assert found.error_message == "workflow[0].config.model is missing."
        assert lab.progress()[:3] == (2, 0, 0)

    in_lab(tmp_path, None, story)


def test_an_experiment_that_is_removed_is_not_run_on(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.prepare(6, CALL, batch_size=1, concurrency=1)
        await lab.runner.start(lab.experiment)
        while lab.progress().done < 1:
            await asyncio.sleep(0.005)
        project = lab.catalog.find_project(lab.org_id, lab.experiment.name)
        assert project is not None
        request = RemovalRequest(lab.org_id, "key_test", "langsmith")
        await asyncio.to_thread(lab.services.removal.remove, project, request, wait_s=10.0)
        async with asyncio.timeout(END_S):
            while lab.runner.figures().at_work:
                await asyncio.sleep(0.005)
        lab.services.removal.sweep()
        assert lab.services.reader.count_traces(lab.scope, None, Window()) == 0
        await lab.runner.begin()
        assert lab.runner.figures().at_work == 0

    with LlmStub(delay_s=0.1) as slow:
        in_lab(tmp_path, slow, story)


def test_an_experiment_without_items_is_complete(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.run(0, DUPLICATE)
        assert lab.read().status is ExperimentStatus.COMPLETED
        assert lab.progress() == Progress(0, 0, 0, 0, 0, 0, 100.0)

    in_lab(tmp_path, None, story)


def test_missing_scores_are_counted_and_told(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        lab.evaluator("cost", kind="cost", max_usd="1")
        lab.evaluator("person", kind="human")
        await lab.run(3, DUPLICATE, evaluators=("cost", "person"))
        assert lab.progress() == Progress(3, 3, 0, 0, 0, 0, 100.0, not_scored=3)
        (detail,) = lab.results()[lab.items[0].id]
        assert lab.scores(detail) == {}
        marks = dict(detail.row.summary.metadata)
        assert marks["not_scored_count"] == "1", "a person's score may come yet"
        assert "not_scored.cost" in marks

    in_lab(tmp_path, None, story)


def test_a_job_that_nobody_works_on_counts_as_stuck(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.prepare(1, DUPLICATE)
        clock = FixedClock(lab.services.clock.now_ns())
        jobs = ExperimentJobs(lab.catalog, clock, CountingIds())
        jobs.open(lab.experiment)
        assert jobs.count_silent() == 0
        clock.advance(61)
        assert jobs.count_silent() == 1
        jobs.cancel(lab.experiment.project_id)
        assert jobs.count_silent() == 0

    in_lab(tmp_path, None, story)


def test_without_tracing_only_calls_are_kept_and_say_no_text(tmp_path: Path, stub: LlmStub) -> None:
    async def story(lab: Lab) -> None:
        await lab.run(1, DUPLICATE, CALL, enable_tracing=False)
        (detail,) = lab.results()[lab.items[0].id]
        assert detail.row.summary.span_count == 2
        call = values(detail, step_id(lab.trace_of(0), 1))
        assert "inputs" not in call
        assert "outputs" not in call
        assert detail.row.summary.prompt_tokens == 2

    in_lab(tmp_path, stub, story)
