"""Looking at deletions: how far one has come, how long it may take, and what is overdue."""

from __future__ import annotations

from typing import NamedTuple

from clearspan.deletion.job import HELD, DeletionJob
from clearspan.deletion.state import FINAL, DeletionState
from clearspan.deletion.worker import Task
from clearspan.store.port import DeletionProgress

NO_PROGRESS_S = 60.0
AGE_S = 3600.0
AGE_S_A_SPAN = 0.001
_ALMOST = 0.99
"""What is shown at most before `verified`."""


class DeletionStatus(NamedTuple):
    """A deletion's row in the Catalog, and how far the store has come with it."""

    job: DeletionJob
    progress: DeletionProgress | None  # None: its hide transaction never was

    @property
    def seen(self) -> tuple[int, int]:
        """Moves and batches so far: what `Deleter.wait_change` compares."""
        return self.job.moves, 0 if self.progress is None else self.progress.batches

    @property
    def fraction(self) -> float:
        """Rows purged of rows planned, 0 to 1; never goes back, and is 1 only when it is verified."""
        if self.job.state is DeletionState.VERIFIED:
            return 1.0
        planned = sum(self.job.planned.values())
        purged = sum(self.progress.purged.values()) if self.progress else 0
        return min(_ALMOST, purged / planned) if planned else 0.0

    def eta_s(self, now_ns: int) -> float | None:
        """Seconds until the last row goes, if it goes on as so far; None while nothing can be said of that."""
        since = self.job.times_ns.get(DeletionState.HIDDEN)
        if self.job.state is DeletionState.VERIFIED:
            return 0.0
        if self.job.state is not DeletionState.HIDDEN or since is None or not self.fraction:
            return None
        elapsed = max(0, now_ns - max(since, self.job.not_before_ns or 0)) / 1e9
        return elapsed * (1 - self.fraction) / self.fraction

    def waits_for(self, now_ns: int) -> str | None:
        """`held` or `not_before`: what keeps it, though nothing is wrong; None: nothing does."""
        if self.job.state is DeletionState.BLOCKED and self.job.problem == HELD:
            return HELD
        is_early = (self.job.not_before_ns or 0) > now_ns and self.job.state is DeletionState.HIDDEN
        return "not_before" if is_early else None


def why_overdue(task: Task, now_ns: int, now_s: float) -> str | None:
    """Why somebody should look at a deletion; None: it goes on as it should.

    Args:
        now_s: monotonic.
    """
    job = task.job
    if job.state in FINAL or task.is_waiting:
        return None
    if job.state is DeletionState.BLOCKED and job.problem != HELD:
        return f"blocked:{job.problem}"
    if task.attempts and job.state is DeletionState.BLOCKED:
        return "held_remainder_failing"
    if task.moved_s is not None and now_s - task.moved_s > NO_PROGRESS_S:
        return "no_progress"
    begun_ns = max(job.times_ns.get(DeletionState.HIDDEN, job.created_ns), job.not_before_ns or 0)
    age_s = (now_ns - begun_ns) / 1e9 if begun_ns else 0.0
    return "too_old" if age_s > AGE_S + AGE_S_A_SPAN * job.planned.get("span", 0) else None
