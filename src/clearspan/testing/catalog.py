"""A Catalog in a few dictionaries, with just what deletions need. It outlives the Deleter that a test drops."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from clearspan.catalog.datasets import SourcePolicy
from clearspan.deletion.job import Audit, Commitment, DeletionJob, DeletionPage, DeletionQuery
from clearspan.deletion.receipt_body import receipt_payload
from clearspan.deletion.state import FINAL, DeletionState
from clearspan.model.clock import Clock
from clearspan.model.errors import Conflict
from clearspan.proof.canonical import canonical_json
from clearspan.store.port import PlannedTrace


class LedgerRow(NamedTuple):
    """One recorded move."""

    deletion_id: str
    before: DeletionState | None
    after: DeletionState
    audit: Audit | None = None


class EventRow(NamedTuple):
    """One recorded audit row."""

    org_id: int
    kind: str
    subject: str
    body: Mapping[str, object]


class FakeCatalog:
    """clearspan.deletion.job.DeletionCatalog in memory; its attributes may be looked at and set.

    Receipts are not signed: `receipts` holds their canonical JSON.
    """

    def __init__(self, clock: Clock) -> None:
        self.jobs: dict[str, DeletionJob] = {}
        self.ledger: list[LedgerRow] = []
        self.events: list[EventRow] = []
        self.receipts: dict[str, str] = {}
        self.newer: list[str] = []
        self.shares: set[tuple[int, str]] = set()
        self.projects: tuple[int, ...] = (1,)
        self.policies: dict[int, SourcePolicy] = {}
        self._clock = clock
        self._shares_dropped: Counter[str] = Counter()
        self._lock = threading.RLock()

    def project_ids(self, org_id: int) -> tuple[int, ...]:
        return self.projects

    def dataset_policies(self, org_id: int) -> dict[int, SourcePolicy]:
        return self.policies

    def create_deletion(self, job: DeletionJob) -> DeletionJob:
        with self._lock:
            if job.deletion_id not in self.jobs:
                self._store(replace(job, created_ns=self._clock.now_ns()), None)
            return self.jobs[job.deletion_id]

    def get_deletion(self, deletion_id: str) -> DeletionJob | None:
        return self.jobs.get(deletion_id)

    def unfinished_deletions(self) -> list[DeletionJob]:
        with self._lock:
            return [job for job in self.jobs.values() if job.state not in FINAL]

    def newer_deletions(self) -> list[str]:
        return self.newer

    def list_deletions(self, query: DeletionQuery) -> DeletionPage:
        with self._lock:
            found = [job for job in reversed(self.jobs.values()) if job.org_id == query.org_id]
        return DeletionPage(found[: query.limit], None)

    def move_deletion(
        self,
        job: DeletionJob,
        *,
        before: DeletionState,
        audit: Audit | None = None,
        commitment: Commitment | None = None,
    ) -> None:
        with self._lock:
            if self.jobs[job.deletion_id].state is not before:
                raise Conflict("This deletion was moved by another process.", code="lease_lost")
            if job.state is DeletionState.VERIFIED:
                assert commitment is not None
                assert job.deletion_id not in self.receipts, "one receipt a deletion"
                told = replace(job, times_ns=self.jobs[job.deletion_id].times_ns)
                payload = receipt_payload(told, commitment, verified_ns=self._clock.now_ns())
                self.receipts[job.deletion_id] = canonical_json(payload).decode()
            self._store(job, before, audit)

    def _store(self, job: DeletionJob, before: DeletionState | None, audit: Audit | None = None) -> None:
        times_ns = self.jobs[job.deletion_id].times_ns if before else {}
        self.jobs[job.deletion_id] = replace(job, times_ns={**times_ns, job.state.value: self._clock.now_ns()})
        self.ledger.append(LedgerRow(job.deletion_id, before, job.state, audit))

    def receipt(self, deletion_id: str) -> str | None:
        return self.receipts.get(deletion_id)

    def record_event(self, org_id: int, kind: str, subject: str, step: str, body: Mapping[str, object]) -> int:
        with self._lock:
            if not any((row.kind, row.subject) == (kind, subject) for row in self.events):
                self.events.append(EventRow(org_id, kind, subject, body))
            return len(self.events) - 1

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
