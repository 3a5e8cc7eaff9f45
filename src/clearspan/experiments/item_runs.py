"""One item of an experiment taken through its workflow, and what came of it written to the store.

A result and its scores become visible in one transaction: the scores are written first and wait for their trace. What a
crash cuts short leaves at most scores that wait, which the next run of that item replaces. A result that a tombstone
refuses was deleted, and is not made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import orjson

from clearspan.catalog import Catalog
from clearspan.catalog.experiments import Experiment
from clearspan.deletion.execute import Deleter
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.experiments.evaluator_config import Kind
from clearspan.experiments.item_documents import Item
from clearspan.experiments.items import Gateway, Items, Threads
from clearspan.experiments.result_runs import (
    METRICS_KEY,
    NOT_SCORED_COUNT_KEY,
    NOT_SCORED_KEY,
    Ending,
    ResultId,
    ResultWriter,
    StepRun,
)
from clearspan.experiments.result_states import StoreReader, Waiting
from clearspan.experiments.score_types import NotScored, ScoreValue
from clearspan.experiments.scoring import annotation_of
from clearspan.experiments.steps import GONE, Passage, Scored, Tools, run_steps, score_all
from clearspan.experiments.usage import stated_usage, usage_metadata_of
from clearspan.experiments.workflow import Step, Wait
from clearspan.faults import fault
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.pricing import PriceBook
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import ClearspanError, NotFound, Overloaded, PayloadTooLarge
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope
from clearspan.store.annotations import AnnotationQuery, AnnotationReader, AnnotationWrite, AnnotationWriter

OVERLOAD_PAUSE_S: Final = 1.0
"""Between two attempts at writing while the store takes nothing: items wait, none is lost."""
TAKEN_BACK_AT_ONCE: Final = 1_000
REASONS_MAX: Final = 20
"""Of evaluators that gave no score, told in the metadata of one result; all are counted."""
_ELSEWHERE: Final = frozenset({Kind.HUMAN, Kind.EXTERNAL})
"""Kinds whose scores come later, from a person or a program: until then there is nothing to tell."""


_log = logging.getLogger("clearspan.experiments")


class Outcome(StrEnum):
    """What became of an item."""

    SUCCESS = "success"
    ERROR = "error"
    WAITING = "pending"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Parts:
    """What running experiments takes of a server.

    Attributes:
        threads: for reads, and for whatever else would block the event loop.
        limits: of ingest, which hold for results as well.
    """

    catalog: Catalog
    reader: StoreReader
    annotations: AnnotationReader
    annotating: AnnotationWriter
    gateway: Gateway
    items: Items
    deleter: Deleter
    threads: Threads
    clock: Clock
    ids: IdSource
    prices: PriceBook | None
    limits: IngestLimits


_Render: TypeAlias = Callable[[Ending, Sequence[StepRun]], list[TraceBatch]]


class ItemRunner:
    """Runs the items of one experiment.

    Args:
        steps: of its workflow, parsed.
    """

    def __init__(self, parts: Parts, experiment: Experiment, steps: Sequence[Step], tools: Tools) -> None:
        self._parts = parts
        self._experiment = experiment
        self._steps = steps
        self._tools = tools
        self._project_id = experiment.project_id
        self._writer = ResultWriter(
            experiment.project_id,
            experiment.span_workflow_name,
            parts.prices,
            parts.limits,
            has_steps=experiment.enable_tracing,
        )

    async def run(self, item: Item, result: ResultId) -> Outcome:
        """Take an item through the workflow from the beginning."""
        fault("experiment.before_item")
        start_ns = self._parts.clock.now_ns()
        passage = Passage(item)
        await run_steps(self._steps, passage, self._tools)

        def render(ending: Ending, steps: Sequence[StepRun]) -> list[TraceBatch]:
            return self._writer.whole(result, item, start_ns, ending, steps, self._parts.clock.now_ns())

        return await self._store(result, passage, {}, render)

    async def give(self, waiting: Waiting, given: Mapping[str, Any]) -> None:
        """Write what somebody gave to a result that waits: from now on it is the server's to go on with.

        Raises:
            NotFound: it was deleted meanwhile.
        """
        now_ns = self._parts.clock.now_ns()
        usage = usage_metadata_of(given.get("metrics") or {})
        metadata = {"usage_metadata": usage} if usage else {}
        step = StepRun(
            waiting.step, "wait", "chain", waiting.step_start_ns, now_ns, outputs=dict(given), metadata=metadata
        )
        outcomes = await self._submit(self._writer.given(waiting.result.trace_id, step, now_ns))
        if outcomes:
            raise NotFound
        fault("experiment.after_given")

    async def time_out(self, waiting: Waiting) -> Outcome:
        """End a result that nobody resumed in time, as one that failed: it can be retried."""
        step = self._steps[waiting.step]
        assert isinstance(step, Wait)
        assert step.timeout_hours is not None, "only such a step runs out of time"
        error = f"WaitTimedOut: nobody resumed this trace within {step.timeout_hours:g} hours"
        now_ns = self._parts.clock.now_ns()
        ending = Ending(end_ns=now_ns, outputs=None, error=error)
        refused = await self._submit(self._writer.timed_out(waiting.result.trace_id, waiting.step, ending, now_ns))
        return Outcome.DELETED if refused else Outcome.ERROR

    async def go_on(self, waiting: Waiting) -> Outcome:
        """Take an item on from the step at which it waited."""
        given = waiting.given or {}
        find, experiment = self._parts.items.find, self._experiment
        item_id, as_of_ns = waiting.result.item_id, experiment.version_ns
        found = await self._parts.threads.run(find, experiment.org_id, item_id, as_of_ns=as_of_ns)
        if found is None:
            await self.take_back([waiting.result.trace_id])
            return Outcome.DELETED
        passage = Passage(
            found[1],
            given=given.get("input"),
            output=given.get("output"),
            has_output=True,
            scored=await self._scores_of(waiting.result.trace_id),
            at=waiting.step + 1,
            used=waiting.used.plus(stated_usage(given.get("metrics"))),
        )
        known = dict(passage.scored)
        await run_steps(self._steps, passage, self._tools)
        metadata = dict(given.get("metadata") or {})
        if given.get("metrics"):
            metadata[METRICS_KEY] = given["metrics"]

        def render(ending: Ending, steps: Sequence[StepRun]) -> list[TraceBatch]:
            told = ending._replace(metadata={**metadata, **ending.metadata}, inputs=given.get("input"))
            trace_id, now_ns = waiting.result.trace_id, self._parts.clock.now_ns()
            return self._writer.resumed(trace_id, waiting.start_ns, told, steps, now_ns)

        return await self._store(waiting.result, passage, known, render)

    async def _store(self, result: ResultId, passage: Passage, known: Mapping[str, Scored], render: _Render) -> Outcome:
        gone: list[str] = []
        if not passage.is_waiting and passage.error is None:
            gone = await score_all(self._experiment.evaluator_ids, passage, self._tools)
        fault("experiment.before_scores")
        new = [scored for uuid, scored in passage.scored.items() if known.get(uuid) is not scored]
        if not await self._put_scores(result.trace_id, new):
            return Outcome.DELETED
        ending = self._ending(passage, gone)
        try:
            batches = render(ending, passage.runs)
        except PayloadTooLarge as error:
            # Nothing of what was too large can be told; which step it came from is lost with it.
            passage.error = f"{type(error).__name__}: {error.message}"
            batches = render(self._ending(passage, gone)._replace(outputs=None), [])
        fault("experiment.before_result")
        if result.trace_id in await self._submit(batches):
            return Outcome.DELETED
        fault("experiment.after_result")
        if passage.error is not None:
            return Outcome.ERROR
        return Outcome.WAITING if passage.is_waiting else Outcome.SUCCESS

    def _ending(self, passage: Passage, gone: Sequence[str]) -> Ending:
        missing = dict.fromkeys(gone, GONE.reason)
        for evaluator, given in passage.scored.values():
            if isinstance(given, NotScored) and evaluator.kind not in _ELSEWHERE:
                missing[evaluator.slug] = given.reason
        metadata: dict[str, Any] = {}
        if missing and not passage.is_waiting:
            metadata[NOT_SCORED_COUNT_KEY] = len(missing)
            metadata[NOT_SCORED_KEY] = dict(list(missing.items())[:REASONS_MAX])
        return Ending(
            end_ns=None if passage.is_waiting else self._parts.clock.now_ns(),
            outputs=passage.output if passage.has_output else None,
            error=passage.error,
            metadata=metadata,
        )

    async def _put_scores(self, trace_id: str, scored: Sequence[Scored]) -> bool:
        """Write scores; False when their trace was deleted."""
        now_ns = self._parts.clock.now_ns()
        writes = [
            AnnotationWrite(
                (self._project_id,),
                annotation_of(evaluator, given, trace_id, now_ns=now_ns, key_id=None, ids=self._parts.ids),
            )
            for evaluator, given in scored
            if isinstance(given, ScoreValue)
        ]
        if not writes:
            return True
        put = self._parts.annotating.put_annotations
        while True:
            try:
                outcomes = await self._parts.threads.run(put, writes, received_ns=now_ns)
            except Overloaded:
                await asyncio.sleep(OVERLOAD_PAUSE_S)
            else:
                return all(outcome.deletion_id is None for outcome in outcomes)

    async def _submit(self, batches: Sequence[TraceBatch]) -> set[str]:
        """Write batches in one transaction; the traces of which something was refused."""
        while True:
            try:
                outcomes = await self._parts.gateway.submit(batches)
            except Overloaded:
                await asyncio.sleep(OVERLOAD_PAUSE_S)
            else:
                told = zip(batches, outcomes, strict=True)
                return {batch.trace_id for batch, outcome in told if outcome.refused}

    async def take_back(self, trace_ids: Sequence[str]) -> None:
        """Delete results whose items a deletion took while they were being made: it could not list them yet."""
        experiment = self._experiment
        for start in range(0, len(trace_ids), TAKEN_BACK_AT_ONCE):
            request = DeletionRequest(
                org_id=experiment.org_id,
                requested_by="experiments",
                dialect="experiments",
                scope=Scope((self._project_id,)),
                selection=ByIds(tuple(trace_ids[start : start + TAKEN_BACK_AT_ONCE])),
            )
            try:
                await self._parts.threads.run(self._parts.deleter.delete, request, wait_s=0.0, wait_for="hidden")
            except ClearspanError as error:  # a hold keeps them, or they have gone
                _log.warning("experiment %s: results of deleted items stay: %s", experiment.public_id, error.code)

    async def _scores_of(self, trace_id: str) -> dict[str, Scored]:
        """What steps before the waiting one scored."""
        slugs = {each.slug: each for each in self._tools.evaluators.values()}
        query = AnnotationQuery(targets=(AnnotationTarget.TRACE,), trace_ids=(trace_id,))
        scope, limit = Scope((self._project_id,)), len(slugs) + 1
        rows = await self._parts.threads.run(self._parts.annotations.list_annotations, scope, query, limit=limit)
        out: dict[str, Scored] = {}
        for said in (row.annotation for row in reversed(rows)):
            evaluator = slugs.get(said.name)
            if evaluator is not None:
                value = None if said.value is None else orjson.loads(said.value)
                given = ScoreValue(said.score, said.label, value, said.explanation, evaluator.score_type)
                out[evaluator.uuid] = evaluator, given
        return out
