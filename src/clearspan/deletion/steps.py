"""One step of one deletion: confirm, purge a batch, settle, verify, or find out why it is blocked.

Every step is safe to repeat: its effect and its count are one transaction in the store that owns the rows, and the
job's new state is written after the effect is known. So a process may die anywhere; the next one asks the store how
far it came (`DeletionStore.progress`) and goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from clearspan.deletion.follow_up import FollowUps
from clearspan.deletion.job import JOB_VERSION, Audit, Commitment, DeletionCatalog, DeletionJob
from clearspan.deletion.plan import child_job_of, parse_private
from clearspan.deletion.preview import void_previews_of
from clearspan.deletion.recording import Stuck, move, problem_of, record_hidden
from clearspan.deletion.redaction import Redactor, placeholders_of
from clearspan.deletion.request import ByAnnotations, ByFilter
from clearspan.deletion.room import is_disk_full
from clearspan.deletion.spans import with_shares
from clearspan.deletion.state import DeletionState
from clearspan.deletion.targets import NAMES
from clearspan.deletion.verify import Recount, recount
from clearspan.deletion.worker import Task
from clearspan.faults import fault
from clearspan.model.clock import Clock
from clearspan.model.errors import Conflict, Overloaded
from clearspan.proof.manifest import manifest_root
from clearspan.store.port import DeletionProgress, DeletionStore, HideOutcome

ROWS_MAX = 2000
"""Rows of one purge batch at most; fewer when that takes the writer longer than BATCH_S."""
ROWS_MIN = 50
BATCH_S = 0.05
"""The time of the writer that one batch should take."""
PAUSE_SHARE = 0.5
"""Of a batch's time: the air that is left after it while ingest waits for the writer."""
ATTEMPTS_MAX = 5
"""Failures in a row after which a deletion is called blocked. It is still tried, once a minute."""
RETRY_S = (0.05, 0.2, 1.0, 5.0, 60.0)
LOOK_AGAIN_S = 60.0
"""How often a deletion that waits for a hold or for its time looks whether it may go on, besides being woken."""
LEASE_RENEWAL_S = 10.0
LOG_RETRY_S = 0.25
LOG_PATIENCE_S = 30.0
"""How long a reader may keep the write-ahead log from being emptied before that counts as a failed step."""
LEASE_LOST = "lease_lost"

_log = logging.getLogger("clearspan.deletion")
_S = DeletionState


class Steps:
    """Advances tasks. A task's lock is held during a step, and by whoever changes the deletion from outside."""

    def __init__(
        self,
        store: DeletionStore,
        catalog: DeletionCatalog,
        clock: Clock,
        *,
        rows_max: int,
        adopt: Callable[[Task], None],
        is_ingest_waiting: Callable[[], bool],
    ) -> None:
        """
        Args:
            adopt: takes up a new deletion, the held remainder of another one.
            is_ingest_waiting: whether clients wait for the writer at this moment.
        """
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._rows_max = rows_max
        self._adopt = adopt
        self._is_ingest_waiting = is_ingest_waiting
        self.redactor: Redactor | None = None
        self.follow_ups: FollowUps | None = None
        self.settle_links: Callable[[], None] = lambda: None
        self._steps: dict[DeletionState, Callable[[Task], DeletionJob]] = {
            _S.PLANNED: self._confirm,
            _S.HIDDEN: self._purge,
            _S.PURGED: self._verify,
            _S.BLOCKED: self._unblock,
        }

    def advance(self, task: Task) -> None:
        """Take one task one step on, in whatever state that leaves it. Failures are counted, named and tried again."""
        with task.lock:
            if task.is_over:  # ended from outside while it waited for its turn
                return
            moves = task.job.moves
            try:
                self.renew_lease(task)
                task.due_s, task.is_waiting = 0.0, False
                task.job = self._steps[task.job.state](task)
                task.attempts = 0
            except Exception as error:  # the task's edge: whatever it was, it is counted, named and tried again
                self._note_failure(task, error)
            if task.moved_s is None or task.is_waiting or task.job.moves != moves:
                task.moved_s = self._clock.monotonic_s()

    def renew_lease(self, task: Task) -> None:
        """Make sure that the deletion is ours. Raises Conflict when it is in another process's hands."""
        now = self._clock.monotonic_s()
        if now < task.lease_s:
            return
        if not self._catalog.lease_deletion(task.job.deletion_id):
            raise Conflict("This deletion is in another server's hands.", code=LEASE_LOST)
        task.lease_s = now + LEASE_RENEWAL_S

    # -- hidden ---------------------------------------------------------------------------------------------------

    def _confirm(self, task: Task) -> DeletionJob:
        """Find out whether a hide whose answer was lost took place."""
        progress = self._progress(task, "hide_unconfirmed")
        return record_hidden(self._catalog, task.job, progress.outcome)

    def _purge(self, task: Task) -> DeletionJob:
        """One batch; after the last one, take up the held remainder, recount, erase the request, empty the log."""
        job = task.job
        progress = task.progress or self._progress(task, "hide_lost")
        if progress.cancelled:
            return self.record_cancelled(job, progress)
        if self._is_too_early(task):
            return job
        if progress.more:
            if not progress.batches and self.follow_ups is not None:
                self.follow_ups.file(job, progress)
                self.follow_ups.detach(job, progress)
            self._purge_batch(task, progress)
            return job
        if not self._sweep(task):
            return job
        progress = self._progress(task, "hide_lost")  # a hold may have moved traces during the batches
        self._take_up_child(job, progress)
        if not job.matched:
            return self._record_purged(job, progress)  # no row was removed and no request written down
        if not progress.settled:
            # Not before: until it is purged, a hold or a cancel may still keep a trace, and its public link with it.
            fault("deletion.before_shares")
            self.settle_links()
            self._catalog.drop_shares(job, with_shares(self._store, self._store.manifest(job.deletion_id)))
            found = recount(self._store, self._catalog, job)
            if not found.is_clean:
                return self._not_clean(job, found)
            self._leave_placeholders(job, progress)
        return self._record_purged(job, progress) if self._settle(task) else job

    def _leave_placeholders(self, job: DeletionJob, progress: DeletionProgress) -> None:
        """Write the empty items that stand for redacted ones; a repeat finds them written."""
        owed = placeholders_of(progress.request, lambda: self._store.manifest(job.deletion_id))
        if not owed:
            return
        if self.redactor is None:
            raise Stuck("no_redactor")
        fault("deletion.before_placeholders")
        self.redactor(owed)
        fault("deletion.after_placeholders")

    def _is_too_early(self, task: Task) -> bool:
        """Whether the caller asked for a later time; then the task waits for it."""
        left_s = ((task.job.not_before_ns or 0) - self._clock.now_ns()) / 1e9
        if left_s <= 0:
            return False
        task.is_waiting = True
        task.due_s = self._clock.monotonic_s() + min(left_s, LOOK_AGAIN_S)  # the wall clock may be set meanwhile
        return True

    def _purge_batch(self, task: Task, progress: DeletionProgress) -> None:
        rows_max = task.rows_max or self._rows_max
        fault("deletion.before_batch")
        began = self._clock.monotonic_s()
        counts, more = self._store.purge_batch(task.job.deletion_id, progress.batches, rows_max=rows_max)
        now = self._clock.monotonic_s()
        fault("deletion.after_batch")
        purged = {name: progress.purged.get(name, 0) + counts.get(name, 0) for name in {**progress.purged, **counts}}
        task.progress = progress._replace(batches=progress.batches + 1, more=more, purged=purged)
        task.rows_max = next_rows(rows_max, now - began, most=self._rows_max)
        task.moved_s = now
        if more and self._is_ingest_waiting():
            task.due_s = now + PAUSE_SHARE * (now - began)

    def _take_up_child(self, job: DeletionJob, progress: DeletionProgress) -> None:
        """Make the held remainder a deletion of its own, before anything says that this one is purged."""
        child_id = progress.child_id
        if child_id is None or self._catalog.get_deletion(child_id) is not None:
            return
        fault("deletion.before_child")
        child = self._catalog.create_deletion(child_job_of(job, child_id, self._store))
        fault("deletion.after_child")
        self._adopt(Task(child))

    def _sweep(self, task: Task) -> bool:
        """Of a deletion that failed and was taken up again: remove one batch of what outlived the purge; whether
        nothing more is found. The recounts are made after it, as ever."""
        if _S.FAILED not in task.job.times_ns or task.survivors_to is None:
            return True
        rows_max = task.rows_max or self._rows_max
        _, above = self._store.purge_survivors(task.job.deletion_id, task.survivors_to, rows_max=rows_max)
        task.progress = None
        task.moved_s = self._clock.monotonic_s()
        if above is None and task.job.purged and not self._settle(task):  # the log has what was removed just now
            return False
        task.survivors_to = above
        return above is None

    def _settle(self, task: Task) -> bool:
        """Erase the request and empty the log; False when a reader is in the way and it is tried again soon.

        Settled says that the request is erased, not that the log was emptied after it: a reader or a crash may have
        come between the two. So it is said again, until both have succeeded in one call.
        """
        fault("deletion.before_settle")
        deletion_id = task.job.deletion_id
        void_previews_of(
            self._store,
            self._store.manifest(deletion_id),
            {line.row_no for line in self._store.annotation_manifest(deletion_id)},
        )
        now = self._clock.monotonic_s()
        try:
            self._store.settle(task.job.deletion_id)
        except Overloaded:
            task.settling_s = now if task.settling_s is None else task.settling_s
            if now - task.settling_s >= LOG_PATIENCE_S:
                raise
            task.due_s = self._clock.monotonic_s() + LOG_RETRY_S
            return False
        fault("deletion.after_settle")
        task.settling_s = None
        return True

    def _record_purged(self, job: DeletionJob, progress: DeletionProgress) -> DeletionJob:
        purged = {**dict.fromkeys(NAMES, 0), **progress.purged, "share": self._catalog.drop_shares(job, ())}
        follow_up = self.follow_ups.find(job) if self.follow_ups is not None and job.matched else None
        return move(
            self._catalog,
            job,
            _S.PURGED,
            purged=purged,
            hidden=progress.outcome.hidden,
            held=progress.outcome.held,
            child_id=progress.child_id,
            follow_up_id=None if follow_up is None else follow_up.deletion_id,
        )

    # -- purged ---------------------------------------------------------------------------------------------------

    def _verify(self, task: Task) -> DeletionJob:
        """Count once more; when nothing is left, the move and the receipt are one transaction of the Catalog."""
        fault("deletion.before_verify")
        job = task.job
        if not self._sweep(task):
            return job
        found = recount(self._store, self._catalog, job)
        if not found.is_clean:
            return self._not_clean(job, found)
        leaves = self._store.leaves(job.deletion_id)
        if len(leaves) != job.hidden and job.version >= JOB_VERSION:  # older ones kept none
            raise Stuck("leaves_incomplete")
        commitment = Commitment(manifest_root(leaves).hex(), len(leaves))
        fault("deletion.before_receipt")
        purged = job.purged
        if _S.FAILED in job.times_ns:
            purged = {**purged, **self._progress(task, "hide_lost").purged}
        return move(self._catalog, job, _S.VERIFIED, remaining=found.remaining, purged=purged, commitment=commitment)

    def _not_clean(self, job: DeletionJob, found: Recount) -> DeletionJob:
        """A survivor ends the deletion as failed; a target nobody could count is tried again."""
        if found.survivors:
            problem = "survivors:" + ",".join(found.survivors)
            return move(self._catalog, job, _S.FAILED, remaining=found.remaining, problem=problem)
        raise Stuck("uncounted:" + ",".join(found.uncounted))

    # -- blocked --------------------------------------------------------------------------------------------------

    def _unblock(self, task: Task) -> DeletionJob:
        """Try again what the store's own facts say is next. The state changes when that succeeds, not before."""
        job = task.job
        progress = self._progress(task, "hide_unconfirmed")
        if progress.cancelled:
            return self.record_cancelled(job, progress)
        if progress.is_waiting:
            outcome = self._let_go(job, progress)
            task.progress = None  # what was read before speaks of a deletion that only waited
            if outcome is None:
                task.is_waiting = True
                task.due_s = self._clock.monotonic_s() + LOOK_AGAIN_S
                return job
            return record_hidden(self._catalog, job, outcome)
        if job.hidden is None:
            return record_hidden(self._catalog, job, progress.outcome)
        if job.purged:
            if not self._sweep(task):
                return job
            found = recount(self._store, self._catalog, job)
            return move(self._catalog, job, _S.PURGED) if found.is_clean else self._not_clean(job, found)
        moved = self._purge(task)
        return move(self._catalog, moved, _S.HIDDEN) if moved.state is _S.BLOCKED else moved

    def _let_go(self, job: DeletionJob, progress: DeletionProgress) -> HideOutcome | None:
        """Hide what of a held remainder is free by now; None: nothing is."""
        if progress.request is None:
            raise Stuck("request_lost")
        request = parse_private(progress.request, job.org_id)
        if isinstance(request.selection, ByAnnotations):
            query = request.selection.bounded(request.window)
            fault("deletion.before_hide_child")
            outcome = self._store.hide_annotation_child(job.deletion_id, request.scope, query)
            fault("deletion.after_hide_child")
            return outcome
        where = request.selection.where if isinstance(request.selection, ByFilter) else None
        fault("deletion.before_hide_child")
        outcome = self._store.hide_child(job.deletion_id, request.scope, where, request.window)
        fault("deletion.after_hide_child")
        return outcome

    # -- ends and failures ----------------------------------------------------------------------------------------

    def record_cancelled(self, job: DeletionJob, progress: DeletionProgress, audit: Audit | None = None) -> DeletionJob:
        """The store has un-hidden everything: say so, also when the one who cancelled died before."""
        counts = {} if job.hidden is not None else progress.outcome._asdict()
        return move(self._catalog, job, _S.CANCELLED, problem="cancelled", audit=audit, **counts)

    def _progress(self, task: Task, problem: str) -> DeletionProgress:
        progress = task.progress = self._store.progress(task.job.deletion_id)
        if progress is None:
            raise Stuck(problem)
        return progress

    def _note_failure(self, task: Task, error: Exception) -> None:
        """Count a failed step; after ATTEMPTS_MAX in a row say so in the job and the ledger. Holds no values."""
        job = task.job
        problem = problem_of(error)
        if problem == LEASE_LOST:  # whoever moved it looks after it; nothing to count
            task.job = self._catalog.get_deletion(job.deletion_id) or job
            task.due_s = self._clock.monotonic_s() + RETRY_S[-1]
            return
        task.attempts += 1
        _log.warning("deletion %s: step %s failed (%d): %s", job.deletion_id, job.state, task.attempts, problem)
        task.due_s = self._clock.monotonic_s() + RETRY_S[min(task.attempts, len(RETRY_S)) - 1]
        task.progress = None
        if is_disk_full(error):
            self._make_room()
        if task.attempts >= ATTEMPTS_MAX and job.state is not _S.BLOCKED:
            self._record_blocked(task, problem)

    def _make_room(self) -> None:
        try:
            self._store.make_room()
        except Exception as error:  # the step is tried again in any case
            _log.error("cannot give up the reserve: %s", problem_of(error))

    def _record_blocked(self, task: Task, problem: str) -> None:
        try:
            task.job = move(self._catalog, task.job, _S.BLOCKED, problem=problem)
        except Exception as second:  # the Catalog itself is the trouble: the task stays in the queue
            _log.error("deletion %s: cannot record that it is blocked: %s", task.job.deletion_id, problem_of(second))


def next_rows(rows: int, seconds: float, *, most: int) -> int:
    """Rows of the next batch, after one of `rows` that took so long: towards BATCH_S, at most double or a quarter."""
    if seconds <= 0:
        return most
    wanted = round(rows * min(2.0, max(0.25, BATCH_S / seconds)))
    return min(most, max(min(ROWS_MIN, most), wanted))
