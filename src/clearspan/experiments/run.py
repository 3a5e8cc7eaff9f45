"""One experiment that is being run: all its items, each exactly once, whatever happens.

What was done is asked of the store, never remembered: a run that begins after a crash lists the items, asks which of
them have a result, and does the rest. It goes over all items until nothing is left to do, so items that are deleted,
or come to light, while it runs cost another look and are not missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple

from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import Experiment, ExperimentStatus
from clearspan.catalog.jobs import LEASE_S, Job
from clearspan.experiments.experiment_jobs import Cursor, ExperimentJobs, read_cursor
from clearspan.experiments.item_documents import Item
from clearspan.experiments.item_runs import ItemRunner, Outcome, Parts
from clearspan.experiments.result_runs import FIRST_ATTEMPT, ResultId
from clearspan.experiments.result_states import ResultState, ResultStates, ResultStatus
from clearspan.experiments.steps import Tools
from clearspan.experiments.workflow import Call, Step
from clearspan.faults import fault
from clearspan.model.errors import ClearspanError, Conflict, PayloadTooLarge

BEAT_S: Final = LEASE_S / 3
ITEMS_MAX: Final = 10_000_000
TOTAL: Final = "total"
"""Count of the job: items when it began, or more if more came to light."""
MISSING: Final = "missing"
"""Count of the job: items that are gone, and items whose results were deleted."""

_log = logging.getLogger("clearspan.experiments")


class RunFailed(ClearspanError):
    """The experiment cannot be run."""

    code = "run_failed"


class _Work(NamedTuple):
    """An item that needs a result, or whose result must go on (`state` says which)."""

    item_id: str
    result: ResultId
    state: ResultState | None


class ExperimentRun:
    """One experiment in this process's hands. Use from one event loop.

    Args:
        sweeps: whether to look for items that need a result; else only what is brought to it is done.
        retries: whether items that failed get one attempt more.
        slots: how many experiments sweep at once.
    """

    def __init__(
        self,
        parts: Parts,
        jobs: ExperimentJobs,
        experiment: Experiment,
        steps: Sequence[Step],
        tools: Tools,
        slots: asyncio.Semaphore,
        outcomes: Counter[str],
        *,
        sweeps: bool,
        retries: bool = False,
    ) -> None:
        self.experiment = experiment
        self.items = ItemRunner(parts, experiment, steps, tools)
        self.states = ResultStates(parts.reader, experiment)
        self.is_closed = False  # takes nothing more
        self.moved_s = parts.clock.monotonic_s()
        self._parts = parts
        self._jobs = jobs
        self._calls_models = any(isinstance(step, Call) for step in steps)
        self._tools = tools
        self._slots = slots
        self._outcomes = outcomes
        self._sweeps, self._retries = sweeps, retries
        self._job: Job | None = None
        self._cursor = Cursor()
        self._total = self._vanished = 0
        self._written: dict[str, str] = {}  # item → trace of its result, until it is sure that the item was there still
        self._refused: set[str] = set()  # traces that were deleted: of this process only
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._broken: BaseException | None = None
        self._stopping = False
        self._places = asyncio.Semaphore(experiment.concurrency)

    @property
    def running(self) -> int:
        """Items at work now."""
        return len(self._tasks)

    @property
    def missing(self) -> int:
        """Items that are gone, and items whose results were deleted, as far as is known."""
        return self._vanished + len(self._refused)

    @property
    def total(self) -> int:
        """Items in all, as far as is known."""
        return self._total

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True

    async def settle(self, timeout_s: float) -> None:
        """Wait for what is at work."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    # -- the run --------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        """Everything, to the end. Cancelled, it leaves the job open: the next start goes on."""
        claimed = await self._parts.threads.run(self._jobs.claim, self.experiment, retries=self._retries)
        if claimed is None:
            self.is_closed = True
            return
        self._job, self._cursor = claimed, read_cursor(claimed.cursor)
        self._total = claimed.counts.get(TOTAL, 0)
        beating = asyncio.create_task(self._beat())
        try:
            await self._work()
        except Conflict as error:
            if error.code != "lease_lost":
                await self._fail(error)
        except ClearspanError as error:
            await self._fail(error)
        except Exception as error:
            # Whatever it was, somebody must see it: the experiment says so, and can be started again.
            _log.exception("experiment %s failed", self.experiment.public_id)
            await self._fail(RunFailed(f"{type(error).__name__} in the server; its log says more.", code="internal"))
        finally:
            self.is_closed = True
            beating.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(beating, *self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        if self._sweeps:
            async with self._slots:
                await self._begin()
                await self._sweep()
        while True:
            await self._drain()
            if self._stopping:
                return
            if not self._tasks:
                break
        self.is_closed = True  # in the same step of the loop as the look above: nothing slips in between
        await self._conclude()

    async def _begin(self) -> None:
        if self._calls_models and self._tools.llm is None:
            raise RunFailed("The workflow calls a model, and no endpoint is set.", code="llm_not_configured")
        now_ns = self._parts.clock.now_ns()
        started_ns = now_ns if self.experiment.started_at_ns is None else None
        await self._set_status(ExperimentStatus.RUNNING, started_at_ns=started_ns)

    async def _conclude(self) -> None:
        """Nothing is left to do: all items have ended, or wait for somebody."""
        counts = await self._parts.threads.run(self.states.counts)
        # One that had failed is not made whole by a trace that is resumed: some items may never have been run.
        if counts.waiting == 0 and (self._sweeps or self.experiment.status is ExperimentStatus.RUNNING):
            await self._set_status(ExperimentStatus.COMPLETED, completed_at_ns=self._parts.clock.now_ns())
        assert self._job is not None
        await self._parts.threads.run(self._jobs.finish, self._job, "done", self._counts())

    async def _fail(self, error: ClearspanError) -> None:
        assert self._job is not None
        await self._set_status(
            ExperimentStatus.FAILED,
            completed_at_ns=self._parts.clock.now_ns(),
            error_code=error.code,
            error_message=error.message,
        )
        await self._parts.threads.run(self._jobs.finish, self._job, "failed", self._counts(), error.code)

    async def _set_status(self, status: ExperimentStatus, **more: Any) -> None:
        set_status = self._parts.catalog.experiments.set_status
        await self._parts.threads.run(set_status, self.experiment.project_id, status, **more)

    # -- looking for work -----------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Go over all items until a whole round has found nothing to do."""
        start = self._cursor.reached
        while not self._stopping:
            dataset = await self._dataset()
            as_of_ns, list_ids = self.experiment.version_ns, self._parts.items.list_ids
            ids = await self._parts.threads.run(list_ids, dataset, as_of_ns=as_of_ns, limit=ITEMS_MAX)
            did = await self._round(dataset, ids, start)
            await self._drain()
            await self._look_back(dataset)
            if not did and start == 0:
                # Also what a former life of the server wrote in its last moment.
                await self._take_back(await self._parts.threads.run(self.states.without_item, set(ids)))
                return
            start = 0

    async def _round(self, dataset: Dataset, ids: Sequence[str], start: int) -> bool:
        """One look at each item from `start` on; whether anything had to be done."""
        size = self.experiment.batch_size
        self._total = max(self._total, len(ids))
        self._vanished = self._total - len(ids)
        did = False
        for at in range(start, len(ids), size):
            works = await self._loaded(dataset, await self._needed(ids[at : at + size]))
            did = did or bool(works)
            for work, item in works:
                await self._places.acquire()
                if self._stopping or self._broken is not None:
                    self._places.release()
                    return did
                self._start(work, item)
            await self._look_back(await self._dataset())
            await self._checkpoint(at)
        return did

    async def _look_back(self, dataset: Dataset) -> None:
        """Take back the results of items that were deleted while they were at work."""
        written, self._written = self._written, {}
        as_of_ns, ids = self.experiment.version_ns, list(written)
        if ids:
            list_ids = self._parts.items.list_ids
            there = await self._parts.threads.run(list_ids, dataset, as_of_ns=as_of_ns, ids=ids, limit=len(ids))
            await self._take_back([written[item_id] for item_id in ids if item_id not in set(there)])

    async def _take_back(self, trace_ids: Sequence[str]) -> None:
        if trace_ids:
            await self.items.take_back(trace_ids)
            self._refused.update(trace_ids)

    async def _needed(self, ids: Sequence[str]) -> list[_Work]:
        found = await self._parts.threads.run(self.states.of_items, ids, self._cursor.attempt)
        works = [_work_on(self.experiment.uuid, item_id, found.get(item_id), self._cursor.attempt) for item_id in ids]
        return [work for work in works if work is not None and work.result.trace_id not in self._refused]

    async def _loaded(self, dataset: Dataset, works: Sequence[_Work]) -> list[tuple[_Work, Item | None]]:
        """The works with their items; those whose item is gone or redacted by now are left out."""
        fresh = [work.item_id for work in works if work.state is None or work.state.status is ResultStatus.ERROR]
        items = {item.id: item for item in await self._parts.threads.run(self._read, dataset, fresh)}
        out: list[tuple[_Work, Item | None]] = []
        for work in works:
            item = items.get(work.item_id)
            if work.item_id not in fresh:
                out.append((work, None))
            elif item is not None and item.redacted:
                self._refused.add(work.result.trace_id)
            elif item is not None:
                out.append((work, item))
        return out

    def _read(self, dataset: Dataset, ids: Sequence[str]) -> list[Item]:
        """Items by id; in smaller pages where their values are large."""
        if not ids:
            return []
        try:
            as_of_ns = self.experiment.version_ns
            return self._parts.items.list(dataset, ids=ids, as_of_ns=as_of_ns, limit=len(ids)).items
        except PayloadTooLarge:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            return self._read(dataset, ids[:half]) + self._read(dataset, ids[half:])

    async def _dataset(self) -> Dataset:
        """What the items are of. Raises RunFailed when it, or the experiment, is gone."""
        experiment, catalog = self.experiment, self._parts.catalog
        if await self._parts.threads.run(catalog.experiments.of_project, experiment.project_id) is None:
            raise RunFailed("The experiment was removed.", code="experiment_gone")
        dataset = await self._parts.threads.run(catalog.datasets.find, experiment.org_id, experiment.dataset_uuid)
        if dataset is None:
            raise RunFailed("The dataset was removed.", code="dataset_gone")
        return dataset

    # -- items ----------------------------------------------------------------------------------------------------

    def add(self, doing: Coroutine[Any, Any, Outcome], trace_id: str) -> asyncio.Task[Outcome]:
        """Have an item done beside the others; `is_closed` must be false."""
        assert not self.is_closed
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, trace_id))
        return task

    def _start(self, work: _Work, item: Item | None) -> None:
        doing = self._go_on(work.result) if item is None else self.items.run(item, work.result)
        self.add(doing, work.result.trace_id).add_done_callback(lambda _: self._leave(work))

    def _leave(self, work: _Work) -> None:
        self._places.release()
        self._written[work.item_id] = work.result.trace_id

    async def _go_on(self, result: ResultId) -> Outcome:
        waiting = await self._parts.threads.run(self.states.find_waiting, result.trace_id)
        if waiting is None or waiting.given is None:
            return Outcome.DELETED if waiting is None else Outcome.WAITING
        return await self.items.go_on(waiting)

    def _ended(self, task: asyncio.Task[Outcome], trace_id: str) -> None:
        self._tasks.discard(task)
        self.moved_s = self._parts.clock.monotonic_s()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._broken = self._broken or error
        else:
            self._outcomes[task.result()] += 1
            if task.result() is Outcome.DELETED:
                self._refused.add(trace_id)

    async def _drain(self) -> None:
        """Until no item is at work. Raises what broke one of them, if anything did."""
        while self._tasks and self._broken is None:
            await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)
        if self._broken is not None:
            raise self._broken

    # -- the job --------------------------------------------------------------------------------------------------

    async def _checkpoint(self, reached: int) -> None:
        fault("experiment.before_cursor")
        self._cursor = self._cursor._replace(reached=reached)
        await self._advance()

    async def _advance(self) -> None:
        assert self._job is not None
        self._job = await self._parts.threads.run(self._jobs.advance, self._job, self._cursor, self._counts())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._advance()
            except Conflict as error:
                self._broken = self._broken or error
                return

    def _counts(self) -> dict[str, int]:
        return {TOTAL: self._total, MISSING: self.missing}


def _work_on(project_uuid: str, item_id: str, state: ResultState | None, attempt: int) -> _Work | None:
    """What an item needs; None: nothing.

    An item without a result begins with the first attempt even in a round of retries: if that was deleted, its
    tombstone says so.
    """
    if state is None:
        return _Work(item_id, ResultId(project_uuid, item_id, FIRST_ATTEMPT), None)
    if state.status is ResultStatus.GIVEN:
        return _Work(item_id, state.result, state)
    if state.status is ResultStatus.ERROR and state.result.attempt < attempt:
        return _Work(item_id, ResultId(project_uuid, item_id, state.result.attempt + 1), state)
    return None
