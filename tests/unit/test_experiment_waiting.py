"""Results that wait for somebody: resumed, measured, timed out, and whole after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearspan.catalog.experiments import ExperimentDefinition, ExperimentStatus
from clearspan.experiments.item_documents import NewItem
from clearspan.experiments.result_runs import step_id
from clearspan.experiments.runner import Progress
from clearspan.faults import armed
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY, dotted_uuid
from clearspan.model.errors import Conflict, NotFound
from clearspan.testing.experiment_lab import CALL, DUPLICATE, END_S, WAIT, Lab, in_lab, values
from clearspan.testing.llm_stub import LlmStub


@pytest.fixture(scope="module")
def stub() -> Iterator[LlmStub]:
    with LlmStub() as stub:
        yield stub


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
