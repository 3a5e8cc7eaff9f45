"""What people may do to a deletion that exists: cancel it, try it again, lift a tombstone of it.

Each act is one move or one audit row in the ledger, with who did it and the hash of why.
"""

from __future__ import annotations

from collections.abc import Callable

from clearspan.deletion.job import Audit, DeletionCatalog, DeletionJob
from clearspan.deletion.notes import write_note
from clearspan.deletion.recording import move
from clearspan.deletion.room import with_room
from clearspan.deletion.state import DeletionState
from clearspan.deletion.steps import Steps
from clearspan.deletion.worker import Task, Worker
from clearspan.faults import fault
from clearspan.model.clock import IdSource
from clearspan.model.errors import Conflict, NotFound
from clearspan.store.port import DeletionStore

LIFTED = "tombstone.lifted"
_S = DeletionState


class Acts:
    """Changes deletions from outside their steps; takes the task's lock, so that none runs meanwhile."""

    def __init__(
        self, store: DeletionStore, catalog: DeletionCatalog, ids: IdSource, steps: Steps, worker: Worker
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._ids = ids
        self._steps = steps
        self._worker = worker

    def cancel(self, deletion_id: str, *, by: str, reason: str | None) -> DeletionJob:
        """See Deleter.cancel."""
        task = self._task(deletion_id)
        with task.lock:
            job = task.job
            if job.state is _S.CANCELLED:
                return job
            if job.state in (_S.PURGED, _S.VERIFIED, _S.FAILED):
                raise Conflict("Erasure has begun; it cannot be undone.", code="purge_begun")
            self._steps.renew_lease(task)
            progress = self._store.progress(deletion_id)
            if progress is None and task.before is None:
                raise Conflict("This deletion is still being accepted; try again.", code="deletion_in_progress")
            audit = write_note(self._store, self._ids, f"{deletion_id}.cancelled", by, {"reason": reason})
            if progress is None:  # its hide failed and would be tried again: there is nothing to make visible
                task.job, task.before = move(self._catalog, job, _S.CANCELLED, problem="cancelled", audit=audit), None
            else:
                fault("deletion.before_cancel")
                with_room(self._store, lambda: self._store.cancel(deletion_id))
                fault("deletion.after_cancel")
                task.progress = None
                task.job = self._steps.record_cancelled(job, progress, audit)
        self._worker.forget_if_over(task)
        return task.job

    def retry(self, deletion_id: str, *, by: str) -> DeletionJob:
        """See Deleter.retry."""
        task = self._task(deletion_id)
        with task.lock:
            job = task.job
            if job.state in (_S.VERIFIED, _S.CANCELLED):
                raise Conflict("This deletion has ended; there is nothing to try again.", code="deletion_over")
            if job.state is _S.FAILED:
                job = self._catalog.get_deletion(deletion_id) or job  # with the time of its failure
                again = _S.PURGED if job.purged else _S.HIDDEN
                task.job = move(self._catalog, job, again, audit=Audit(by))
                task.survivors_to, task.progress = -1, None
        self._worker.adopt(task)
        self._worker.wake(lambda each: each.job.deletion_id == deletion_id)
        return task.job

    def lift_tombstone(
        self,
        org_id: int,
        project_id: int,
        trace_id: str,
        *,
        by: str,
        reason: str | None,
        sees: Callable[[DeletionJob], bool] | None,
    ) -> str | None:
        """See Deleter.lift_tombstone."""
        deletion_id = self._store.find_tombstone(project_id, trace_id)
        if deletion_id is None:
            return None
        job = self._catalog.get_deletion(deletion_id)
        if sees is not None and (job is None or not sees(job)):
            return None
        if job is not None and job.state is not _S.VERIFIED:
            raise Conflict("That trace is still being erased; its tombstone stays.", code="still_erasing")
        # Said before it is done: an entry without an effect misleads nobody for long, an effect without one might.
        ref = self._ids.new_id("lift")
        audit = write_note(self._store, self._ids, ref, by, {"reason": reason, "trace_id": trace_id})
        body = {"by": by, "deletion_id": deletion_id, "project_id": project_id}
        body |= {"private_ref": audit.private_ref, "private_hash": audit.private_hash}
        self._catalog.record_event(org_id, LIFTED, ref, "", body)
        fault("deletion.before_lift")
        return self._store.lift_tombstone(project_id, trace_id)

    def _task(self, deletion_id: str) -> Task:
        """The deletion in hand, or as the Catalog has it. Raises NotFound."""
        task = self._worker.find(deletion_id)
        if task is not None:
            return task
        job = self._catalog.get_deletion(deletion_id)
        if job is None:
            raise NotFound("There is no such deletion.")
        return Task(job)
