"""A Catalog in a few dictionaries, with just what deletions need. It outlives the Deleter that a test drops."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from clearspan.deletion.job import DeletionJob
from clearspan.deletion.state import FINAL, DeletionState
from clearspan.model.clock import Clock
from clearspan.model.errors import Conflict
from clearspan.store.port import PlannedTrace


class LedgerRow(NamedTuple):
    """One recorded move."""

    deletion_id: str
    before: DeletionState | None
    after: DeletionState


class FakeCatalog:
    """clearspan.deletion.job.DeletionCatalog in memory; `jobs`, `ledger` and `shares` may be looked at and set."""

    def __init__(self, clock: Clock) -> None:
        self.jobs: dict[str, DeletionJob] = {}
        self.ledger: list[LedgerRow] = []
        self.shares: set[tuple[int, str]] = set()
        self._clock = clock
        self._shares_dropped: Counter[str] = Counter()
        self._lock = threading.RLock()

    def create_deletion(self, job: DeletionJob) -> DeletionJob:
        with self._lock:
            if job.deletion_id not in self.jobs:
                self._store(job, None)
            return self.jobs[job.deletion_id]

    def get_deletion(self, deletion_id: str) -> DeletionJob | None:
        return self.jobs.get(deletion_id)

    def unfinished_deletions(self) -> list[DeletionJob]:
        with self._lock:
            return [job for job in self.jobs.values() if job.state not in FINAL]

    def move_deletion(self, job: DeletionJob, *, before: DeletionState) -> None:
        with self._lock:
            if self.jobs[job.deletion_id].state is not before:
                raise Conflict("This deletion was moved by another process.", code="lease_lost")
            self._store(job, before)

    def _store(self, job: DeletionJob, before: DeletionState | None) -> None:
        times_ns = self.jobs[job.deletion_id].times_ns if before else {}
        self.jobs[job.deletion_id] = replace(job, times_ns={**times_ns, job.state.value: self._clock.now_ns()})
        self.ledger.append(LedgerRow(job.deletion_id, before, job.state))

    def lease_deletion(self, deletion_id: str) -> bool:
        return deletion_id in self.jobs

    def take_over(self) -> None:
        """There is nobody to take over from."""

    def drop_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        with self._lock:
            gone = self.shares & {(trace.project_id, trace.trace_id) for trace in traces}
            self.shares -= gone
            self._shares_dropped[job.deletion_id] += len(gone)
            return self._shares_dropped[job.deletion_id]

    def count_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        with self._lock:
            return len(self.shares & {(trace.project_id, trace.trace_id) for trace in traces})
