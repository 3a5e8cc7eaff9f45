"""The runner in one process over the embedded store: every item exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan.catalog.experiments import ExperimentDefinition, ExperimentStatus
from clearspan.deletion.projects import RemovalRequest
from clearspan.experiments.experiment_jobs import ExperimentJobs
from clearspan.experiments.result_runs import step_id
from clearspan.experiments.runner import Progress
from clearspan.faults import armed
from clearspan.ingest.run_promotion import dotted_uuid
from clearspan.model.errors import Conflict, NotFound
from clearspan.model.trace import Window
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.experiment_lab import CALL, DUPLICATE, END_S, WAIT, Lab, in_lab, values
from clearspan.testing.llm_stub import Fault, LlmStub

POINTS = ("before_item", "before_scores", "before_result", "after_result", "before_cursor")


@pytest.fixture(scope="module")
def stub() -> Iterator[LlmStub]:
    with LlmStub() as stub:
        yield stub


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


def test_an_experiment_that_waits_for_its_turn_again_is_pending_and_can_be_cancelled(tmp_path: Path) -> None:
    async def story(lab: Lab) -> None:
        await lab.run(2, DUPLICATE)
        done = lab.read()
        lab.catalog.experiments.set_status(done.project_id, ExperimentStatus.CANCELLED, completed_at_ns=1)
        slots = lab.runner._slots
        lab.runner._slots = asyncio.Semaphore(0)
        await lab.runner.start(lab.read())
        waiting = lab.read()
        assert (waiting.status, waiting.completed_at_ns) == (ExperimentStatus.PENDING, None)
        await lab.runner.cancel(waiting)
        assert lab.read().status is ExperimentStatus.CANCELLED
        lab.runner._slots = slots
        await lab.runner.start(lab.read())
        assert (await lab.ended()).status is ExperimentStatus.COMPLETED

    in_lab(tmp_path / "turn", None, story)


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
        async with asyncio.timeout(END_S):  # what came late goes by a deletion of its own, which may be on its way
            while lab.services.reader.count_traces(lab.scope, None, Window()):
                lab.services.removal.sweep()
                await asyncio.sleep(0.005)
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
