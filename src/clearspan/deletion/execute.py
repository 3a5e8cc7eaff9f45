"""Carrying a deletion out: guard, plan, hide, then purge, settle and verify step by step, over any number of restarts.

Every step is safe to repeat: its effect and its count are one transaction in the store that owns the rows, and the
job's new state is written after the effect is known. So a process may die anywhere; the next one asks the store how
far it came (`DeletionStore.progress`) and goes on from there.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from clearspan.deletion import plan as planning
from clearspan.deletion.guard import AFTER_PLAN, BEFORE_PLAN
from clearspan.deletion.job import DeletionCatalog, DeletionJob
from clearspan.deletion.plan import Plan, freeze_plan
from clearspan.deletion.request import DeletionRequest
from clearspan.deletion.result import DeletionResult, result_of
from clearspan.deletion.state import FINAL, DeletionState, check_move
from clearspan.deletion.targets import NAMES
from clearspan.deletion.verify import Recount, recount
from clearspan.faults import fault
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import ClearspanError, Conflict, NotFound, Overloaded
from clearspan.store.port import DeletionProgress, DeletionStore, HideOutcome

WAIT_S = 10.0
"""How long `delete` waits for `verified` before it answers `hidden`."""
ROWS_MAX = 2000
"""Rows of one purge batch: well under 100 ms of the writer's time."""
HIDE_TRIES = 3
REREAD_S = 0.05
"""How often a caller who waits for a deletion that nobody here has in hand looks at its row in the Catalog."""
ATTEMPTS_MAX = 5
"""Failures in a row after which a deletion is called blocked. It is still tried, once a minute."""
RETRY_S = (0.05, 0.2, 1.0, 5.0, 60.0)
LEASE_RENEWAL_S = 10.0
_MOVED = "lease_lost"

_RECORDED = {state: f"deletion.after_{state.value}_recorded" for state in DeletionState}
_log = logging.getLogger("clearspan.deletion")
_S = DeletionState


class _Stuck(Exception):
    """A step could not be done; the text is a code and target names, never a value."""


@dataclass(slots=True, eq=False)
class _Task:
    """A deletion in this process's hands."""

    job: DeletionJob
    due_s: float = 0.0  # monotonic; not before then
    lease_s: float = float("-inf")  # monotonic: when our lease should be renewed
    progress: DeletionProgress | None = None  # read once, then kept in step with what the batches answer
    shares_dropped: bool = False
    attempts: int = 0  # failures in a row

    @property
    def is_over(self) -> bool:
        return self.job.state in FINAL


class Deleter:
    """The one road by which trace data leaves. Safe to call from many threads.

    Until `start` is called everything happens in the calling thread; after it a worker thread carries deletions
    out, taking one batch of each in turn so that a large one does not hold up the small ones.
    """

    def __init__(
        self,
        store: DeletionStore,
        catalog: DeletionCatalog,
        clock: Clock,
        ids: IdSource,
        *,
        secret: bytes,
        rows_max: int = ROWS_MAX,
    ) -> None:
        """
        Args:
            secret: keys the hashes of idempotency keys; the instance's, from the Catalog.
            rows_max: rows of one purge batch.
        """
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._secret = secret
        self._rows_max = rows_max
        self._tasks: dict[str, _Task] = {}
        self._queue: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._stepping = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False

    # -- asking -----------------------------------------------------------------------------------------------

    def plan(self, request: DeletionRequest) -> Plan:
        """What a request would delete, past every guard; nothing is recorded or changed.

        Raises:
            InvalidFilter, Unguarded, Conflict: a guard objects.
        """
        for check_request in BEFORE_PLAN:
            check_request(request)
        plan = freeze_plan(
            self._store,
            request,
            deletion_id=self._attempt(request)[0] or self._ids.new_id("del"),
            salt=self._ids.token_bytes(planning.SALT_BYTES),
        )
        for check_matches in AFTER_PLAN:
            check_matches(request, len(plan.traces))
        return plan

    def delete(self, request: DeletionRequest, *, wait_s: float = WAIT_S) -> DeletionResult:
        """Delete what the request names, and wait up to `wait_s` for the proof.

        Returns:
            The deletion as it stood then: `verified`, or `hidden`/`purged` when erasure goes on by itself.
        Raises:
            InvalidFilter, Unguarded, Conflict: a guard objects; nothing was deleted.
            Overloaded: the store cannot take it now; nothing was deleted.
        Cost: one plan, one hide transaction, then batches of `rows_max` rows.
        """
        deadline = self._clock.monotonic_s() + wait_s
        for check_request in BEFORE_PLAN:
            check_request(request)  # an idempotency key does not make a bad request good
        task = self._repeated(request)
        if task is None:
            task = self._accept(self.plan(request))
        self._wait(task, deadline)
        job = task.job
        if job.hidden is None:  # a repeat that came while the first was being accepted
            job = self._catalog.get_deletion(job.deletion_id) or job
        if job.state is _S.CANCELLED:
            raise Overloaded("This deletion was given up before anything was deleted; send it again.")
        if job.hidden is None:
            raise Conflict("This deletion is still being accepted.", code="deletion_in_progress")
        return result_of(job)

    def status(self, deletion_id: str) -> tuple[DeletionJob, DeletionProgress | None]:
        """A deletion's row in the Catalog and how far the store has come with it. Raises NotFound."""
        job = self._catalog.get_deletion(deletion_id)
        if job is None:
            raise NotFound("There is no such deletion.")
        return job, self._store.progress(deletion_id)

    # -- running ----------------------------------------------------------------------------------------------

    def resume(self, *, take_over: bool = True) -> int:
        """Take up every unfinished deletion; call once at start-up, before serving. Returns how many there are.

        Args:
            take_over: former leases are void, because the data directory's lock proves their owner dead.
        """
        if take_over:
            self._catalog.take_over()
        jobs = self._catalog.unfinished_deletions()
        for job in jobs:
            mine = self._catalog.lease_deletion(job.deletion_id)
            if mine and job.hidden is None and self._store.progress(job.deletion_id) is None:
                # Nothing was hidden, nobody was told it was, and no transaction of the dead process is left.
                self._save(job, _S.CANCELLED, problem="interrupted_before_hiding")
            else:
                self._enqueue(_Task(job, due_s=self._clock.monotonic_s() + (0.0 if mine else RETRY_S[-1])))
        return len(jobs)

    def start(self) -> None:
        """Carry deletions out in a thread of our own from now on."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, name="deleter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the step at hand. Unfinished deletions go on at the next `resume`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def run_due(self, deadline: float = float("inf")) -> None:
        """Carry out, in this thread, whatever is due before the monotonic `deadline`."""
        while self._clock.monotonic_s() < deadline:
            task = self._next_due()
            if task is None:
                return
            self._advance(task)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                now = self._clock.monotonic_s()
                if not any(task.due_s <= now for task in self._queue):
                    waits = [task.due_s - now for task in self._queue]
                    self._changed.wait(min(waits, default=None))
                    continue
            task = self._next_due()
            if task is not None:
                self._advance(task)

    def _next_due(self) -> _Task | None:
        """Take the first task whose time has come off the queue."""
        with self._changed:
            now = self._clock.monotonic_s()
            for task in self._queue:
                if task.due_s <= now:
                    self._queue.remove(task)
                    return task
        return None

    def _enqueue(self, task: _Task) -> None:
        with self._changed:
            if task.is_over:
                self._tasks.pop(task.job.deletion_id, None)
            else:
                self._tasks[task.job.deletion_id] = task
                self._queue.append(task)
            self._changed.notify_all()

    def _wait(self, task: _Task, deadline: float) -> None:
        """Until the task is over or the deadline has passed; does the work itself while no thread does."""
        if self._thread is None:
            self._work_until_over(task, deadline)
            return
        while True:
            in_hand = self._reread(task)
            with self._changed:
                left = deadline - self._clock.monotonic_s()
                if left <= 0 or task.is_over or self._closing:
                    return
                self._changed.wait(left if in_hand else min(left, REREAD_S))

    def _reread(self, task: _Task) -> bool:
        """Bring up to date a task that is not the one being worked on; whether it is the one."""
        with self._changed:
            if task.is_over or self._tasks.get(task.job.deletion_id) is task:
                return True
        task.job = self._catalog.get_deletion(task.job.deletion_id) or task.job
        return False

    def _work_until_over(self, task: _Task, deadline: float) -> None:
        while not task.is_over and self._clock.monotonic_s() < deadline:
            due = self._next_due()
            if due is not None:
                self._advance(due)
                continue
            self._reread(task)
            with self._changed:
                if task in self._queue or task.job.deletion_id not in self._tasks:
                    return  # it waits for its time, or is not ours
                self._changed.wait(0.05)  # another caller has it in hand

    # -- accepting --------------------------------------------------------------------------------------------

    def _repeated(self, request: DeletionRequest) -> _Task | None:
        """The deletion that this idempotency key already stands for."""
        _, job = self._attempt(request)
        return None if job is None else self._same(job, request)

    def _attempt(self, request: DeletionRequest) -> tuple[str | None, DeletionJob | None]:
        """The id that this idempotency key stands for, and its job if there is one; attempts that hid nothing
        and were given up do not count, so that the key can be used again."""
        for number in itertools.count():
            deletion_id = planning.repeatable_id(self._secret, request, attempt=number)
            job = None if deletion_id is None else self._catalog.get_deletion(deletion_id)
            if job is None or job.state is not _S.CANCELLED or job.hidden is not None:
                break
        return deletion_id, job

    def _same(self, job: DeletionJob, request: DeletionRequest) -> _Task:
        if job.request_hash != planning.request_hash(self._secret, request):
            raise Conflict(
                "This idempotency key was used for another deletion; nothing was deleted.",
                code="idempotency_key_reused",
                fields=("idempotency_key",),
            )
        with self._changed:
            return self._tasks.get(job.deletion_id) or _Task(job)

    def _accept(self, plan: Plan) -> _Task:
        """Record the deletion, then hide. From the hide's commit on it will be carried to its end."""
        new = planning.job_of(plan, self._secret)
        job = self._catalog.create_deletion(new)
        if job.scope_hash != new.scope_hash:  # another thread was first with this idempotency key
            return self._same(job, plan.request)
        fault("deletion.before_hide")
        outcome = self._hide(plan, job)
        fault("deletion.after_hide")
        task = _Task(self._hidden(job, outcome))
        self._enqueue(task)
        return task

    def _hide(self, plan: Plan, job: DeletionJob) -> HideOutcome:
        """Hide, over a lost connection to the writer too: a repeat under one deletion_id cannot act twice."""
        request = plan.request
        error: Exception = Overloaded()
        for _ in range(HIDE_TRIES):
            try:
                return self._store.hide(
                    plan.deletion_id, request.scope, plan.where, request.window, plan.traces, plan.private_bytes()
                )
            except Exception as failure:  # told apart below, when trying again has not helped
                error = failure
        if isinstance(error, ClearspanError):
            # Refused, or a writer that is dead by now: what it committed is in the store, and no more will come.
            progress = self._store.progress(plan.deletion_id)
            if progress is not None:
                return progress.outcome
            self._save(job, _S.CANCELLED, problem=error.code)
        else:
            # Done or not, nobody can say yet: a planned job is looked after by the queue and by `resume`.
            self._enqueue(_Task(job, due_s=self._clock.monotonic_s() + RETRY_S[-1]))
        raise error

    def _hidden(self, job: DeletionJob, outcome: HideOutcome) -> DeletionJob:
        return self._save(
            job,
            _S.HIDDEN,
            hidden=outcome.hidden,
            already_absent=outcome.already_absent,
            no_longer_matching=outcome.no_longer_matching,
        )

    # -- one step ---------------------------------------------------------------------------------------------

    def _advance(self, task: _Task) -> None:
        """Take one task one step on and put it back, in whatever state that leaves it."""
        with self._stepping:
            try:
                self._renew_lease(task)
                task.job = self._steps()[task.job.state](task)
                task.attempts, task.due_s = 0, 0.0
            except Exception as error:  # the task's edge: whatever it was, it is counted, named and tried again
                self._note_failure(task, error)
        self._enqueue(task)

    def _steps(self) -> dict[DeletionState, Callable[[_Task], DeletionJob]]:
        return {
            _S.PLANNED: self._confirm,
            _S.HIDDEN: self._purge,
            _S.PURGED: self._verify,
            _S.BLOCKED: self._unblock,
        }

    def _confirm(self, task: _Task) -> DeletionJob:
        """Find out whether a hide whose answer was lost took place."""
        progress = self._store.progress(task.job.deletion_id)
        if progress is None:
            raise _Stuck("hide_unconfirmed")
        return self._hidden(task.job, progress.outcome)

    def _purge(self, task: _Task) -> DeletionJob:
        """One batch; after the last one, recount, erase the request itself and empty the log."""
        deletion_id = task.job.deletion_id
        progress = task.progress or self._store.progress(deletion_id)
        if progress is None:
            raise _Stuck("hide_lost")
        if not task.shares_dropped:
            fault("deletion.before_shares")
            self._catalog.drop_shares(task.job, self._store.manifest(deletion_id))
            task.shares_dropped = True
        if progress.more:
            fault("deletion.before_batch")
            _, more = self._store.purge_batch(deletion_id, progress.batches, rows_max=self._rows_max)
            fault("deletion.after_batch")
            task.progress = progress._replace(batches=progress.batches + 1, more=more)
            return task.job
        if not task.job.matched:
            return self._purged(task.job)  # no row was removed and no request written down: nothing to settle
        if not progress.settled:
            found = recount(self._store, self._catalog, task.job)
            if not found.is_clean:
                return self._not_clean(task.job, found)
            fault("deletion.before_settle")
        # Settled says that the request is erased, not that the log was emptied after it: a reader or a crash may have
        # come between the two. So it is said again, until both have succeeded in one call.
        self._store.settle(deletion_id)
        fault("deletion.after_settle")
        return self._purged(task.job)

    def _purged(self, job: DeletionJob) -> DeletionJob:
        progress = self._store.progress(job.deletion_id)
        if progress is None:
            raise _Stuck("hide_lost")
        purged = {**dict.fromkeys(NAMES, 0), **progress.purged, "share": self._catalog.drop_shares(job, ())}
        return self._save(job, _S.PURGED, purged=purged)

    def _verify(self, task: _Task) -> DeletionJob:
        fault("deletion.before_verify")
        found = recount(self._store, self._catalog, task.job)
        if not found.is_clean:
            return self._not_clean(task.job, found)
        return self._save(task.job, _S.VERIFIED, remaining=found.remaining)

    def _not_clean(self, job: DeletionJob, found: Recount) -> DeletionJob:
        """A survivor ends the deletion as failed; a target nobody could count is tried again."""
        if found.survivors:
            problem = "survivors:" + ",".join(found.survivors)
            return self._save(job, _S.FAILED, remaining=found.remaining, problem=problem)
        raise _Stuck("uncounted:" + ",".join(found.uncounted))

    def _unblock(self, task: _Task) -> DeletionJob:
        """Try again what the store's own facts say is next. The state changes when that succeeds, not before."""
        job = task.job
        progress = task.progress = self._store.progress(job.deletion_id)
        if progress is None:
            raise _Stuck("hide_unconfirmed")
        if job.hidden is None:
            return self._hidden(job, progress.outcome)
        if job.purged:
            found = recount(self._store, self._catalog, job)
            return self._save(job, _S.PURGED) if found.is_clean else self._not_clean(job, found)
        moved = self._purge(task)
        return self._save(moved, _S.HIDDEN) if moved.state is _S.BLOCKED else moved

    def _note_failure(self, task: _Task, error: Exception) -> None:
        """Count a failed step; after ATTEMPTS_MAX in a row say so in the job and the ledger. Holds no values."""
        job = task.job
        problem = _problem(error)
        if problem == _MOVED:  # whoever moved it looks after it; nothing to count
            task.job = self._catalog.get_deletion(job.deletion_id) or job
            task.due_s = self._clock.monotonic_s() + RETRY_S[-1]
            return
        task.attempts += 1
        _log.warning("deletion %s: step %s failed (%d): %s", job.deletion_id, job.state, task.attempts, problem)
        task.due_s = self._clock.monotonic_s() + RETRY_S[min(task.attempts, len(RETRY_S)) - 1]
        task.progress = None
        if task.attempts >= ATTEMPTS_MAX and job.state is not _S.BLOCKED:
            try:
                task.job = self._save(job, _S.BLOCKED, problem=problem)
            except Exception as second:  # the Catalog itself is the trouble: the task stays in the queue
                _log.error("deletion %s: cannot record that it is blocked: %s", job.deletion_id, _problem(second))

    # -- recording --------------------------------------------------------------------------------------------

    def _save(self, job: DeletionJob, state: DeletionState, **changes: object) -> DeletionJob:
        """Move a job to another state, durably, with its ledger row."""
        check_move(job.state, state)
        changes.setdefault("problem", None)
        moved = replace(job, state=state, moves=job.moves + 1, **changes)  # type: ignore[arg-type]
        self._catalog.move_deletion(moved, before=job.state)
        fault(_RECORDED[state])
        return moved

    def _renew_lease(self, task: _Task) -> None:
        now = self._clock.monotonic_s()
        if now < task.lease_s:
            return
        if not self._catalog.lease_deletion(task.job.deletion_id):
            raise Conflict("This deletion is in another server's hands.", code=_MOVED)
        task.lease_s = now + LEASE_RENEWAL_S


def _problem(error: Exception) -> str:
    """An exception as a code: its message may hold values and is left out."""
    if isinstance(error, _Stuck):
        return str(error)
    return error.code if isinstance(error, ClearspanError) else type(error).__name__
