"""Traces that waited longer than their step allows: found twice a minute, and ended as failed.

Nothing is remembered: when a step began to wait stands in the store, how long it may wait in the workflow. So hours
that pass while the server is down count, and a crash loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from clearspan.catalog.experiments import Experiment, ExperimentStatus
from clearspan.experiments.item_runs import Parts
from clearspan.experiments.result_states import ResultStates
from clearspan.experiments.workflow import timeout_hours
from clearspan.model.errors import ClearspanError

LOOK_S: Final = 30.0
"""Between two looks."""

_log = logging.getLogger("clearspan.experiments")


class OverdueTraces:
    """Looks for them. Use from one event loop.

    Args:
        end: ends one trace, if it waits still; whether it did.
    """

    def __init__(self, parts: Parts, end: Callable[[Experiment, str], Awaitable[bool]]) -> None:
        self._parts = parts
        self._end = end
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look now, and from now on."""
        self._task = asyncio.create_task(self._look(), name="experiments-overdue")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            try:
                await self.end_all()
            except ClearspanError as error:  # such as a store that takes nothing now: the next look finds them
                _log.warning("traces that waited too long could not be ended: %s", error.code)
            except Exception:
                _log.exception("traces that waited too long could not be ended")
            await asyncio.sleep(LOOK_S)

    async def end_all(self) -> int:
        """End what is overdue now; how many traces that was."""
        ended = 0
        for experiment in await self._parts.threads.run(self._timed):
            states, now_ns = ResultStates(self._parts.reader, experiment), self._parts.clock.now_ns()
            trace_ids = await self._parts.threads.run(states.overdue, now_ns)
            for start in range(0, len(trace_ids), experiment.concurrency):
                part = trace_ids[start : start + experiment.concurrency]
                ended += sum(await asyncio.gather(*(self._end(experiment, trace_id) for trace_id in part)))
        return ended

    def _timed(self) -> list[Experiment]:
        """Experiments at work in which some step waits no longer than so many hours."""
        return [
            experiment
            for organisation in self._parts.catalog.organisations()
            for experiment in self._parts.catalog.experiments.listed(organisation.id)
            if experiment.managed
            and experiment.status is ExperimentStatus.RUNNING
            and any(timeout_hours(step) is not None for step in experiment.workflow)
        ]
