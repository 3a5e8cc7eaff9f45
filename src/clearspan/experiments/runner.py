"""Runs experiments: which of them are in this process's hands, and everything that somebody may ask of one.

Each experiment has a durable job in the Catalog (experiment_jobs.py) and, while there is something to do, one task of
this event loop (run.py). A start of the server goes on with every job that has not ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from clearspan.catalog.evaluators import Evaluator
from clearspan.catalog.experiments import Experiment, ExperimentStatus
from clearspan.experiments.evaluator_config import Kind
from clearspan.experiments.experiment_jobs import ExperimentJobs, read_cursor
from clearspan.experiments.item_runs import Outcome, Parts
from clearspan.experiments.llm import LlmClient
from clearspan.experiments.overdue import OverdueTraces
from clearspan.experiments.result_runs import RESERVED
from clearspan.experiments.result_states import ResultStates, Waiting
from clearspan.experiments.run import MISSING, TOTAL, ExperimentRun
from clearspan.experiments.score_types import NotScored, ScoreValue, Subject
from clearspan.experiments.scoring import evaluate, judge
from clearspan.experiments.steps import Tools
from clearspan.experiments.workflow import Step, parse_workflow
from clearspan.model.errors import ClearspanError, Conflict, InvalidInput, NotFound
from clearspan.model.ids import normalise_id
from clearspan.model.trace import Scope

EXPERIMENTS_AT_ONCE: Final = 8
"""That go over their items; the others are pending meanwhile."""
RESUME_WAIT_S: Final = 20.0
"""How long whoever resumes a trace waits for the rest of its workflow. What he gave is durable before."""
STOP_S: Final = 2.0
"""How long items at work may go on when the server stops. The others leave nothing, and run again at the next start."""
STUCK_S: Final = 900.0
"""Without any item's end, an experiment at work counts as stuck: longer than a call with its repetitions takes."""

_log = logging.getLogger("clearspan.experiments")
_S = ExperimentStatus


class Progress(NamedTuple):
    """How far an experiment is. Every item is in exactly one of done, failed, waiting, running, deleted, or to come."""

    total: int
    done: int
    failed: int
    waiting: int
    running: int
    deleted: int  # the item is gone, or its result was deleted
    percent: float  # of the items, those with an end: done, failed or deleted
    not_scored: int = 0  # of the results, those that lack the score of some evaluator
    attempt: int = 1  # the highest that failed items may have had


class ExperimentFigures(NamedTuple):
    """What an operator may want to know."""

    at_work: int  # experiments
    items_running: int
    stuck: int  # experiments at work of which no item has ended for long, or that nobody works on
    outcomes: dict[str, int]  # of items, since the start


class Runner:
    """Runs the experiments of every organisation. Coroutines belong to one event loop; the other methods block.

    Args:
        llm: the endpoint; belongs to the same event loop.
        default_model: what a step asks that names no model.
        provider: whose prices the endpoint's models have; None: the model's name decides.
    """

    def __init__(
        self, parts: Parts, llm: LlmClient, *, default_model: str | None = None, provider: str | None = None
    ) -> None:
        self._parts = parts
        self._llm = llm
        self._default_model = default_model
        self._provider = provider
        self._jobs = ExperimentJobs(parts.catalog, parts.clock, parts.ids)
        self._runs: dict[int, tuple[ExperimentRun, asyncio.Task[None]]] = {}
        self._resuming: set[str] = set()  # traces: somebody resumes them, or their time is over
        self.overdue = OverdueTraces(parts, self._end_waiting)
        self._outcomes: Counter[str] = Counter({str(each): 0 for each in Outcome})
        self._slots = asyncio.Semaphore(EXPERIMENTS_AT_ONCE)
        self._closing = asyncio.Event()

    def check(self, org_id: int, workflow: Any) -> tuple[Step, ...]:
        """The steps of a workflow that is to be stored. Raises InvalidInput with the key that is wrong."""
        known = self._evaluators(org_id)
        return parse_workflow(workflow, knows=lambda name: name in known, default_model=self._default_model)

    # -- what somebody asks ---------------------------------------------------------------------------------------

    async def start(self, experiment: Experiment) -> None:
        """Run an experiment, or go on with one that was cancelled or failed; nothing happens while it is being run."""
        _check_managed(experiment)
        await self._launch(experiment, sweeps=True)

    async def cancel(self, experiment: Experiment) -> None:
        """Stop an experiment for good: items at work leave nothing, results stay, and so do traces that wait.

        Raises:
            Conflict: it has ended.
        """
        _check_managed(experiment)
        if experiment.status not in (_S.PENDING, _S.RUNNING):
            raise Conflict(f"The experiment has ended: it is {experiment.status}.", code="experiment_ended")
        await self._let_go(experiment.project_id)
        await self._parts.threads.run(self._end_job, experiment)

    def _open_job(self, experiment: Experiment, sweeps: bool) -> None:
        """Open the job; an experiment that had ended is pending from now on, however long it waits for its turn."""
        self._jobs.open(experiment)
        experiments = self._parts.catalog.experiments
        now = experiments.of_project(experiment.project_id)
        if sweeps and now is not None and now.status not in (_S.PENDING, _S.RUNNING):
            experiments.set_status(experiment.project_id, _S.PENDING)

    def _end_job(self, experiment: Experiment) -> None:
        now_ns = self._parts.clock.now_ns()
        self._parts.catalog.experiments.set_status(experiment.project_id, _S.CANCELLED, completed_at_ns=now_ns)
        self._jobs.cancel(experiment.project_id)

    async def retry_failed(self, experiment: Experiment) -> int:
        """Give every item that failed one attempt more; how many there are.

        Raises:
            Conflict: the experiment is being run, or was cancelled.
        """
        _check_managed(experiment)
        if experiment.project_id in self._runs:
            raise Conflict("The experiment is being run: wait for its end, or cancel it.", code="experiment_running")
        if experiment.status is _S.CANCELLED:
            raise Conflict("The experiment was cancelled: start it again.", code="experiment_cancelled")
        failed = (await self._parts.threads.run(self._states(experiment).counts)).failed
        if failed:
            await self._launch(experiment, sweeps=True, retries=True)
        return failed

    async def resume_trace(
        self,
        experiment: Experiment,
        trace_id: str,
        *,
        input: Any,
        output: Any,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Give a waiting result its input and output, and go on with its workflow.

        Returns:
            `success`, `error`, `pending` (it waits at a later step) or `deleted`; `running` when the rest takes longer
            than RESUME_WAIT_S: it goes on, over restarts, too.
        Raises:
            NotFound: there is no such result.
            InvalidInput: `metadata` names a key of the server's own.
            Conflict: it does not wait, somebody is resuming it, or the experiment was cancelled.
        """
        _check_managed(experiment)
        trace_id = normalise_id(trace_id)
        if (taken := next((key for key in metadata or {} if key in RESERVED), None)) is not None:
            raise InvalidInput(f"metadata.{taken} is the server's own: results are found by it.", fields=("metadata",))
        if experiment.status is _S.CANCELLED:
            raise Conflict("The experiment was cancelled.", code="experiment_cancelled")
        if trace_id in self._resuming:
            raise Conflict("Somebody is resuming this trace.", code="trace_not_waiting")
        self._resuming.add(trace_id)
        try:
            waiting = await self._waiting(experiment, trace_id)
            given = {"input": input, "output": output, "metrics": metrics, "metadata": metadata}
            given = {name: value for name, value in given.items() if name in ("input", "output") or value is not None}
            run = await self._launch(experiment, sweeps=False)
            task = run.add(_give_and_go_on(run, waiting, given), trace_id)
        except BaseException:
            self._resuming.discard(trace_id)
            raise
        task.add_done_callback(lambda _: self._resuming.discard(trace_id))
        closing = asyncio.create_task(self._closing.wait())
        await asyncio.wait({task, closing}, timeout=RESUME_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        return str(task.result()) if task.done() and not task.cancelled() else "running"

    async def _waiting(self, experiment: Experiment, trace_id: str) -> Waiting:
        found = await self._parts.threads.run(self._states(experiment).find_waiting, trace_id)
        if found is not None and found.given is None:
            return found
        scope = Scope((experiment.project_id,))
        if await self._parts.threads.run(self._parts.reader.get_trace, scope, trace_id) is None:
            raise NotFound
        raise Conflict("This trace does not wait.", code="trace_not_waiting")

    async def _end_waiting(self, experiment: Experiment, trace_id: str) -> bool:
        """End a trace whose time is over; False if it waits no more, or somebody is resuming it."""
        find = self._parts.catalog.experiments.of_project
        now = await self._parts.threads.run(find, experiment.project_id)
        if now is None or now.status is not _S.RUNNING or trace_id in self._resuming:
            return False
        self._resuming.add(trace_id)
        try:
            waiting = await self._parts.threads.run(self._states(now).find_waiting, trace_id)
            if waiting is None or waiting.given is not None:
                return False
            run = await self._launch(now, sweeps=False)
            task = run.add(run.items.time_out(waiting), trace_id)
            await asyncio.wait({task})
            return not task.cancelled() and task.exception() is None
        finally:
            self._resuming.discard(trace_id)

    def progress(self, experiment: Experiment) -> Progress:
        """How far an experiment is, asked of the store. Blocks; cost: some 40 µs a result."""
        counts = self._states(experiment).counts()
        job = self._jobs.find(experiment) if experiment.managed else None
        held = self._runs.get(experiment.project_id)
        run = None if held is None else held[0]
        stored = {} if job is None else job.counts
        total = max(stored.get(TOTAL, 0), counts.results, 0 if run is None else run.total)
        if experiment.managed and total == counts.results:
            total = max(total, self._count_items(experiment))
        rest = total - counts.results
        running = 0 if run is None else min(run.running, rest)
        if experiment.status is _S.COMPLETED and run is None:
            deleted = rest
        else:
            deleted = min(stored.get(MISSING, 0) if run is None else run.missing, rest - running)
        ended = counts.success + counts.failed + deleted
        return Progress(
            total=total,
            done=counts.success,
            failed=counts.failed,
            waiting=counts.waiting,
            running=running,
            deleted=deleted,
            percent=round(100 * ended / total, 2) if total else 100.0 if experiment.status is _S.COMPLETED else 0.0,
            not_scored=counts.not_scored,
            attempt=1 if job is None else read_cursor(job.cursor).attempt,
        )

    def _count_items(self, experiment: Experiment) -> int:
        dataset = self._parts.catalog.datasets.find(experiment.org_id, experiment.dataset_uuid)
        return 0 if dataset is None else self._parts.items.count(dataset, as_of_ns=experiment.version_ns)

    def figures(self) -> ExperimentFigures:
        """For /metrics. Blocks."""
        runs = [run for run, _ in list(self._runs.values())]
        quiet_s = self._parts.clock.monotonic_s() - STUCK_S
        stuck = sum(1 for run in runs if run.running and run.moved_s < quiet_s)
        return ExperimentFigures(
            at_work=len(runs),
            items_running=sum(run.running for run in runs),
            stuck=stuck + self._jobs.count_silent(),
            outcomes=dict(self._outcomes),
        )

    # -- the server's life ----------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Go on with every experiment that a former server left unfinished, or never began."""
        for experiment in await self._parts.threads.run(self._unfinished):
            try:
                await self.start(experiment)
            except ClearspanError as error:  # such as a setting that is gone: the server starts all the same
                _log.error("experiment %s cannot go on: %s", experiment.public_id, error.code)
                await self._parts.threads.run(self._end_failed, experiment, error)
        self.overdue.begin()

    def _end_failed(self, experiment: Experiment, error: ClearspanError) -> None:
        self._jobs.cancel(experiment.project_id)
        self._parts.catalog.experiments.set_status(
            experiment.project_id,
            _S.FAILED,
            completed_at_ns=self._parts.clock.now_ns(),
            error_code=error.code,
            error_message=error.message,
        )

    def _unfinished(self) -> list[Experiment]:
        found: dict[int, Experiment] = {}
        for project_id in self._jobs.open_projects():
            experiment = self._parts.catalog.experiments.of_project(project_id)
            if experiment is None:
                self._jobs.cancel(project_id)
            else:
                found[project_id] = experiment
        for organisation in self._parts.catalog.organisations():
            for experiment in self._parts.catalog.experiments.listed(organisation.id):
                if experiment.managed and experiment.status is _S.PENDING:
                    found.setdefault(experiment.project_id, experiment)
        return list(found.values())

    async def close(self) -> None:
        """Stop, after the items at work if they are quick. Unfinished experiments go on at the next start."""
        self._closing.set()
        await self.overdue.close()
        held = list(self._runs.values())
        for run, _ in held:
            run.stop()
        await asyncio.gather(*(run.settle(STOP_S) for run, _ in held))
        for _, task in held:
            task.cancel()
        await asyncio.gather(*(task for _, task in held), return_exceptions=True)
        await self._llm.aclose()

    async def _let_go(self, project_id: int) -> None:
        held = self._runs.get(project_id)
        if held is not None:
            held[0].stop()
            held[1].cancel()
            await asyncio.gather(held[1], return_exceptions=True)

    async def _launch(self, experiment: Experiment, *, sweeps: bool, retries: bool = False) -> ExperimentRun:
        """The run of an experiment: the one in hand, or a new one."""
        while True:
            held = self._runs.get(experiment.project_id)
            if held is None:
                break
            if not held[0].is_closed:
                return held[0]
            await asyncio.gather(held[1], return_exceptions=True)
            self._forget(experiment.project_id, *held)
        if self._closing.is_set():
            raise Conflict("The server is stopping.", code="stopping")
        evaluators = await self._parts.threads.run(self._evaluators, experiment.org_id)
        steps = parse_workflow(experiment.workflow, default_model=self._default_model)
        # Not before the former run has ended its job: an open job stays as it is, and nobody could claim this one.
        await self._parts.threads.run(self._open_job, experiment, sweeps)
        llm = self._llm if self._llm.is_configured else None
        tools = Tools(llm, self._score, evaluators, self._parts.clock, self._provider)
        if experiment.project_id in self._runs:  # somebody was faster while we read
            return await self._launch(experiment, sweeps=sweeps, retries=retries)
        run = ExperimentRun(
            self._parts,
            self._jobs,
            experiment,
            steps,
            tools,
            self._slots,
            self._outcomes,
            sweeps=sweeps,
            retries=retries,
        )
        task = asyncio.create_task(run.main(), name=f"experiment-{experiment.project_id}")
        self._runs[experiment.project_id] = run, task
        task.add_done_callback(lambda ended: self._forget(experiment.project_id, run, ended))
        return run

    def _forget(self, project_id: int, run: ExperimentRun, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a run of an experiment died: %s", type(error).__name__)
        held = self._runs.get(project_id)
        if held is not None and held[0] is run:
            del self._runs[project_id]

    def _states(self, experiment: Experiment) -> ResultStates:
        return ResultStates(self._parts.reader, experiment)

    def _evaluators(self, org_id: int) -> dict[str, Evaluator]:
        """By UUID, with and without dashes, and by slug."""
        found = self._parts.catalog.evaluators.listed(org_id)
        by_slug = {each.slug: each for each in found}
        return by_slug | {name: each for each in found for name in (each.uuid, _dashed(each.uuid))}

    async def _score(self, evaluator: Evaluator, subject: Subject) -> ScoreValue | NotScored:
        try:
            if evaluator.kind == Kind.LLM:
                return await judge(evaluator, subject, self._llm)
            return await self._parts.threads.run(evaluate, evaluator, subject)
        except ClearspanError as error:
            return NotScored(f"{type(error).__name__}: {error.message}")
        except Exception as error:  # of one evaluator on one result: the result stays good without it
            _log.exception("an evaluator failed")
            return NotScored(f"the evaluator failed: {type(error).__name__}")


async def _give_and_go_on(run: ExperimentRun, waiting: Waiting, given: Mapping[str, Any]) -> Outcome:
    try:
        await run.items.give(waiting, given)
    except NotFound:
        return Outcome.DELETED
    return await run.items.go_on(waiting._replace(given=given))


def _check_managed(experiment: Experiment) -> None:
    if not experiment.managed:
        raise InvalidInput("A LangSmith client runs this experiment, not the server.", code="experiment_not_managed")


def _dashed(uuid_hex: str) -> str:
    return "-".join((uuid_hex[:8], uuid_hex[8:12], uuid_hex[12:16], uuid_hex[16:20], uuid_hex[20:]))
