"""Deletions in the Catalog: the fixed part of a job in the job table, everything that changes in its ledger rows.

The last ledger row of a deletion *is* its state. Job row, ledger row and, at the end, the receipt change in one
transaction, so what the ledger says and what a restart finds can never differ.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, select

from clearspan.catalog import jobs, ledger, receipts, run_shares, shares
from clearspan.catalog.catalog import Catalog
from clearspan.catalog.datasets import SourcePolicy
from clearspan.catalog.jobs import LEASE_S, Job
from clearspan.catalog.projects import ProjectState
from clearspan.catalog.tables import project, run_share, share
from clearspan.deletion import listing
from clearspan.deletion.job import (
    JOB_VERSION,
    Audit,
    Commitment,
    DeletionJob,
    DeletionPage,
    DeletionQuery,
)
from clearspan.deletion.receipt_body import receipt_payload
from clearspan.deletion.state import FINAL, FIRST, DeletionState
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, NotFound
from clearspan.store.port import PlannedTrace

KIND: Final = "deletion"
_OPEN = ("ready", "running")
_FINISHED = {DeletionState.VERIFIED: "done", DeletionState.FAILED: "failed", DeletionState.CANCELLED: "cancelled"}
_FIXED = (
    "requested_by", "dialect", "project_ids", "shape", "scope_hash", "manifest_root", "window_start_ns",
    "window_end_ns", "window_is_implicit", "matched", "planned", "request_hash", "parent_id", "not_before_ns",
    "version",
)  # fmt: skip
_MOVING = (
    "moves", "hidden", "no_longer_matching", "already_absent", "held", "child_id", "follow_up_id", "purged",
    "remaining", "problem",
)  # fmt: skip
_BEFORE_VERSION_2 = {"parent_id": None, "not_before_ns": None, "version": 1, "held": 0, "child_id": None}
_SHARE = "share"
_ERROR_CHARS = 64  # of the job's column; the ledger row has all of it
_ALL = 2**31 - 1


class CatalogRecords:
    """clearspan.deletion.job.DeletionCatalog over the Catalog; safe from any thread of one process."""

    def __init__(self, catalog: Catalog, clock: Clock, ids: IdSource) -> None:
        self._catalog = catalog
        self._database = catalog.database
        self._clock = clock
        self._owner = ids.new_id("run")
        self._claimed: dict[str, Job] = {}  # by deletion_id: the leases we hold
        self._lock = threading.Lock()

    # -- reading --------------------------------------------------------------------------------------------------

    def get_deletion(self, deletion_id: str) -> DeletionJob | None:
        with self._database.read() as db:
            return _find(db, deletion_id)

    def project_ids(self, org_id: int) -> tuple[int, ...]:
        mine = select(project.c.id).where(project.c.org_id == org_id, project.c.state == ProjectState.LIVE)
        with self._database.read() as db:
            return tuple(db.scalars(mine.order_by(project.c.id)))

    def dataset_policies(self, org_id: int) -> dict[int, SourcePolicy]:
        return self._catalog.datasets.policies(org_id)

    def unfinished_deletions(self) -> list[DeletionJob]:
        with self._database.read() as db:
            return [_deletion(db, row) for row in _open_rows(db) if not _is_newer(row)]

    def newer_deletions(self) -> list[str]:
        with self._database.read() as db:
            return [row.id for row in _open_rows(db) if _is_newer(row)]

    def list_deletions(self, query: DeletionQuery) -> DeletionPage:
        with self._database.read() as db:
            rows, cursor = listing.page(db, KIND, query, is_readable=lambda row: not _is_newer(row))
            return DeletionPage([_deletion(db, row) for row in rows], cursor)

    def receipt(self, deletion_id: str) -> str | None:
        with self._database.read() as db:
            return receipts.find(db, deletion_id)

    # -- moving ---------------------------------------------------------------------------------------------------

    def create_deletion(self, job: DeletionJob) -> DeletionJob:
        assert job.state in FIRST, "a deletion begins planned, or blocked by a hold"
        now_ns = self._clock.now_ns()
        body = {name: getattr(job, name) for name in _FIXED}
        with self._lock, self._database.write() as db:
            known = _find(db, job.deletion_id)
            if known is not None:
                return known
            jobs.create(db, now_ns, job.deletion_id, KIND, body, org_id=job.org_id)
            _append(db, now_ns, None, job, body)
            claimed = jobs.claim(db, now_ns, self._owner, kind=KIND, job_id=job.deletion_id, lease_s=LEASE_S)
            assert claimed is not None, "a job made in this transaction is free"
            self._claimed[job.deletion_id] = jobs.advance(db, now_ns, claimed, lease_s=LEASE_S, cursor=job.state.value)
            return _deletion(db, claimed)

    def move_deletion(
        self,
        job: DeletionJob,
        *,
        before: DeletionState,
        audit: Audit | None = None,
        commitment: Commitment | None = None,
    ) -> None:
        now_ns = self._clock.now_ns()
        with self._lock, self._database.write() as db:
            if before in FINAL:
                self._reopen(db, now_ns, job.deletion_id)
            claimed = self._claimed.get(job.deletion_id)
            stored = _find(db, job.deletion_id)
            if claimed is None or stored is None or stored.state is not before:
                raise Conflict("This deletion was moved by another process.", code="lease_lost")
            entry = _append(db, now_ns, before, job, {} if audit is None else dict(audit._asdict()))
            if job.state is DeletionState.VERIFIED:
                assert commitment is not None, "a receipt says what was purged"
                # The caller's job knows the times of when it was read; the ledger knows all of them.
                told = replace(job, times_ns=stored.times_ns)
                payload = receipt_payload(told, commitment, verified_ns=entry.at_ns)
                receipts.issue(db, self._catalog.signer, payload, entry)
            claimed = jobs.advance(db, now_ns, claimed, lease_s=LEASE_S, cursor=job.state.value)
            if job.state in FINAL:
                jobs.finish(db, now_ns, claimed, _FINISHED[job.state], error=job.problem and job.problem[:_ERROR_CHARS])
                del self._claimed[job.deletion_id]
            else:
                self._claimed[job.deletion_id] = claimed

    def _reopen(self, db: Connection, now_ns: int, deletion_id: str) -> None:
        """Make the job of a failed deletion claimable again, and claim it."""
        jobs.reopen(db, now_ns, deletion_id, from_state="failed")
        claimed = jobs.claim(db, now_ns, self._owner, kind=KIND, job_id=deletion_id, lease_s=LEASE_S)
        if claimed is not None:
            self._claimed[deletion_id] = claimed

    def lease_deletion(self, deletion_id: str) -> bool:
        now_ns = self._clock.now_ns()
        with self._lock, self._database.write() as db:
            mine = self._claimed.pop(deletion_id, None)
            if mine is not None:
                try:
                    self._claimed[deletion_id] = jobs.advance(db, now_ns, mine, lease_s=LEASE_S)
                    return True
                except Conflict:
                    pass  # ran out and was taken: claim it like anybody
            claimed = jobs.claim(db, now_ns, self._owner, kind=KIND, job_id=deletion_id, lease_s=LEASE_S)
            if claimed is not None:
                self._claimed[deletion_id] = claimed
            return claimed is not None

    def take_over(self) -> None:
        self._catalog.release_jobs_of_others(self._owner)

    def record_event(self, org_id: int, kind: str, subject: str, step: str, body: Mapping[str, object]) -> int:
        with self._lock, self._database.write() as db:
            return ledger.append(db, self._clock.now_ns(), kind, subject, body, org_id=org_id, step=step).seq

    # -- shares ---------------------------------------------------------------------------------------------------

    def drop_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        now_ns = self._clock.now_ns()
        with self._lock, self._database.write() as db:
            claimed = self._claimed.get(job.deletion_id)
            if claimed is None:
                raise Conflict("This deletion is in other hands.", code="lease_lost")
            secret, named = self._catalog.tombstone_secret, _in_shared_projects(db, traces)
            gone = shares.drop_shares(db, secret, named) + run_shares.drop(db, secret, named)
            total = claimed.counts.get(_SHARE, 0) + gone
            self._claimed[job.deletion_id] = jobs.advance(db, now_ns, claimed, lease_s=LEASE_S, counts={_SHARE: total})
            return total

    def count_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        with self._database.read() as db:
            secret, named = self._catalog.tombstone_secret, _in_shared_projects(db, traces)
            return shares.count_shares(db, secret, named) + run_shares.count(db, secret, named)


def _in_shared_projects(db: Connection, traces: Sequence[PlannedTrace]) -> list[tuple[int, str]]:
    """(project_id, trace_id) of those in projects that share anything: mostly none, and then nothing is hashed."""
    tables = (share, run_share) if traces else ()
    shared = {number for table in tables for number in db.scalars(select(table.c.project_id).distinct())}
    return [(trace.project_id, trace.trace_id) for trace in traces if trace.project_id in shared]


def _append(
    db: Connection, now_ns: int, before: DeletionState | None, job: DeletionJob, more: Mapping[str, Any]
) -> ledger.LedgerEntry:
    """One ledger row for one move; the first also says what was asked for, in shape, others who made the move."""
    body = {"before": before and before.value, "after": job.state.value, **more}
    body |= {name: getattr(job, name) for name in _MOVING}
    step = f"{job.moves}.{job.state.value}"
    return ledger.append(db, now_ns, KIND, job.deletion_id, body, org_id=job.org_id, step=step)


def _open_rows(db: Connection) -> list[Job]:
    return jobs.list_(db, states=_OPEN, kind=KIND, limit=_ALL)


def _is_newer(row: Job) -> bool:
    """Whether a newer program wrote the row: its states and fields may mean what we do not know."""
    known = {state.value for state in DeletionState}
    return int(row.body.get("version", 1)) > JOB_VERSION or (row.cursor is not None and row.cursor not in known)


def _find(db: Connection, deletion_id: str) -> DeletionJob | None:
    try:
        found = jobs.get(db, deletion_id)
    except NotFound:
        return None
    if found.kind != KIND:
        return None
    if _is_newer(found):
        raise Conflict("This deletion was written by a newer version of the server.", code="newer_version")
    return _deletion(db, found)


def _deletion(db: Connection, row: Job) -> DeletionJob:
    fixed: dict[str, Any] = {name: row.body.get(name, _BEFORE_VERSION_2.get(name)) for name in _FIXED}
    fixed |= {"project_ids": tuple(fixed["project_ids"]), "shape": tuple(fixed["shape"])}
    entries = [entry for entry in ledger.entries(db, deletion_id=row.id) if entry.kind == KIND]
    last = entries[-1].body
    moving: dict[str, Any] = {name: last.get(name, _BEFORE_VERSION_2.get(name)) for name in _MOVING}
    assert row.org_id is not None, "every deletion belongs to an organisation"
    return DeletionJob(
        deletion_id=row.id,
        org_id=row.org_id,
        **fixed,
        state=DeletionState(last["after"]),
        **moving,
        times_ns={entry.body["after"]: entry.at_ns for entry in entries},
        created_ns=row.created_at_ns,
    )
