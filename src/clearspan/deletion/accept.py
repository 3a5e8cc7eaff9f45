"""From a request to a hidden deletion: guard, plan, record, hide. Once hidden, it is carried to its end."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from clearspan.deletion import plan as planning
from clearspan.deletion.annotations import count_visible
from clearspan.deletion.guard import check_matches, check_request
from clearspan.deletion.job import DeletionCatalog, DeletionJob
from clearspan.deletion.linked import find_copies, reach_of
from clearspan.deletion.plan import Plan, Salts, freeze_plan
from clearspan.deletion.recording import move, problem_of, record_hidden
from clearspan.deletion.request import ByAnnotations, ByFilter, DeletionRequest
from clearspan.deletion.room import with_room
from clearspan.deletion.state import DeletionState
from clearspan.deletion.steps import RETRY_S
from clearspan.deletion.worker import Task, Worker
from clearspan.faults import fault
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import ClearspanError, Conflict, Overloaded
from clearspan.model.trace import Scope
from clearspan.store.port import DeletionKind, DeletionStore, HideOutcome

HIDE_TRIES = 3
KEPT_TRACES_MAX = 2_000_000
"""Traces of all plans whose hide is to be tried again, at some 200 bytes each in memory; of what comes beyond that is
found out whether it was hidden, and if not it is given up."""
_log = logging.getLogger("clearspan.deletion")
_S = DeletionState


class Acceptance:
    """Takes requests in. Safe to call from many threads."""

    def __init__(
        self,
        store: DeletionStore,
        catalog: DeletionCatalog,
        clock: Clock,
        ids: IdSource,
        worker: Worker,
        *,
        secret: bytes,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._worker = worker
        self._secret = secret

    # -- planning -------------------------------------------------------------------------------------------------

    def plan(self, request: DeletionRequest) -> Plan:
        """What a request would delete, past every guard; nothing is recorded or changed."""
        check_request(request)
        plan = freeze_plan(
            self._store,
            request,
            Scope(self._catalog.project_ids(request.org_id)),
            self._catalog.dataset_policies(request.org_id),
            deletion_id=self._attempt(request)[0] or self._ids.new_id("del"),
            salts=Salts(self._ids.token_bytes(planning.SALT_BYTES), self._ids.token_bytes(planning.SALT_BYTES)),
        )
        self.check_matches(plan)
        return plan

    def check_matches(self, plan: Plan) -> None:
        """The guards that need the number of matches."""
        scope = plan.carried.scope
        kind = plan.request.kind
        check_matches(plan.request, plan.matched, lambda: count_visible(self._store, scope, kind), len(plan.copies))

    def check_copies(self, plan: Plan) -> None:
        """Raise Conflict (`plan_mismatch`) when a kept plan's traces have copies that it does not know of."""
        if plan.request.kind is DeletionKind.ANNOTATIONS or not plan.matched:
            return
        org_id = plan.request.org_id
        found = find_copies(
            self._store,
            plan.traces,
            reach_of(plan.request),
            Scope(self._catalog.project_ids(org_id)),
            self._catalog.dataset_policies(org_id),
            limit=0,
            known=plan.copies_left,
            runs=plan.runs,
        )
        if found.traces or found.left:
            raise Conflict(
                "Copies of these traces were made since the preview; make a new preview. Nothing was deleted.",
                code="plan_mismatch",
                fields=("plan_token",),
            )

    # -- repeats --------------------------------------------------------------------------------------------------

    def repeated(self, request: DeletionRequest, request_hash: Callable[[], str]) -> Task | None:
        """The deletion that this idempotency key already stands for.

        Raises:
            Conflict: the key stands for another request.
        """
        _, job = self._attempt(request)
        return None if job is None else self._same(job, request_hash())

    def hash_of(self, request: DeletionRequest) -> str:
        """See plan.request_hash."""
        return planning.request_hash(self._secret, request)

    def hash_of_token(self, token: str) -> str:
        """See plan.token_hash."""
        return planning.token_hash(self._secret, token)

    def identified(self, plan: Plan) -> Plan:
        """The plan under the id of its request's idempotency key, or under a new one."""
        deletion_id = self._attempt(plan.request)[0] or self._ids.new_id("del")
        return replace(plan, deletion_id=deletion_id)

    def _attempt(self, request: DeletionRequest) -> tuple[str | None, DeletionJob | None]:
        """The id that this idempotency key stands for, and its job if there is one; attempts that hid nothing
        and were given up do not count, so that the key can be used again."""
        for number in itertools.count():
            deletion_id = planning.repeatable_id(self._secret, request, attempt=number)
            job = None if deletion_id is None else self._catalog.get_deletion(deletion_id)
            if job is None or job.state is not _S.CANCELLED or job.hidden is not None:
                break
        return deletion_id, job

    def _same(self, job: DeletionJob, request_hash: str) -> Task:
        if job.request_hash != request_hash:
            raise Conflict(
                "This idempotency key was used for another deletion; nothing was deleted.",
                code="idempotency_key_reused",
                fields=("idempotency_key",),
            )
        return self._worker.find(job.deletion_id) or Task(job)

    # -- accepting ------------------------------------------------------------------------------------------------

    def accept(self, plan: Plan, *, request_hash: str | None = None, preview_key: bytes | None = None) -> Task:
        """Record the deletion, then hide.

        Args:
            request_hash: tells repeats of the plan's idempotency key apart from other requests.
            preview_key: the plan is a preview's: exactly its traces or none, and only once.
        """
        new = replace(planning.job_of(plan, self._secret), request_hash=request_hash)
        job = with_room(self._store, lambda: self._catalog.create_deletion(new))
        if job.scope_hash != new.scope_hash:  # another thread was first with this idempotency key
            assert request_hash is not None, "only such keys give two requests one id"
            return self._same(job, request_hash)
        fault("deletion.before_hide")
        outcome = self._hide(plan, job, preview_key)
        fault("deletion.after_hide")
        task = Task(job)
        try:
            task.job = with_room(self._store, lambda: record_hidden(self._catalog, job, outcome))
        finally:
            self._worker.enqueue(task)  # hidden is hidden: should the Catalog fail now, the first step records it
        return task

    def _hide(self, plan: Plan, job: DeletionJob, preview_key: bytes | None) -> HideOutcome:
        """Hide, over a lost connection to the writer too: a repeat under one deletion_id cannot act twice."""
        error: Exception = Overloaded()
        for _ in range(HIDE_TRIES):
            try:
                return with_room(self._store, lambda: self._hide_once(plan, preview_key))
            except Conflict as refusal:
                error = refusal
                break
            except Exception as failure:  # told apart below, when trying again has not helped
                error = failure
        if isinstance(error, ClearspanError):
            # Refused, or a writer that is dead by now: what it committed is in the store, and no more will come.
            progress = self._store.progress(plan.deletion_id)
            if progress is not None:
                return progress.outcome
            self._give_up(job, error)
        else:
            kept = sum(task.kept_traces for task in self._worker.tasks() if task.before is not None)
            again = plan if kept + job.matched <= KEPT_TRACES_MAX else None
            self._look_after(job, again, preview_key, problem_of(error))
        raise error

    def _give_up(self, job: DeletionJob, error: Exception) -> None:
        """Record that nothing was hidden; should even that fail, it is tried again."""
        problem = problem_of(error)
        try:
            move(self._catalog, job, _S.CANCELLED, problem=problem)
        except Exception:
            self._look_after(job, None, None, problem)
            raise

    def _look_after(self, job: DeletionJob, plan: Plan | None, preview_key: bytes | None, problem: str) -> None:
        """Put a job of which no hide is known into the queue: what failed is tried again before each step, and the
        steps count, space out and tell the failures as those of any other. A restart finds out, too."""
        before = partial(self._find_out, plan, preview_key, problem)
        kept = 0 if plan is None else job.matched
        due_s = self._clock.monotonic_s() + RETRY_S[0]
        self._worker.enqueue(Task(job, due_s=due_s, before=before, kept_traces=kept))

    def _find_out(self, plan: Plan | None, preview_key: bytes | None, problem: str, task: Task) -> None:
        """Bring a job of which no hide is known on its way: it was hidden after all, or is now, or will never be.

        The store is asked first. Every call to it has ended by now, so what it does not know of was not hidden.

        Args:
            plan: is hidden again; None: the deletion is given up.
            problem: why it is given up then.
        """
        with task.lock:
            if task.is_over:
                return
            try:
                if self._store.progress(task.job.deletion_id) is None:
                    refusal = problem if plan is None else self._refusal_of(plan, preview_key)
                    if refusal is not None:
                        task.job = move(self._catalog, task.job, _S.CANCELLED, problem=refusal)
                task.before = None
            except Exception as error:  # the next step counts it
                _log.warning("deletion %s: cannot be hidden: %s", task.job.deletion_id, problem_of(error))

    def _refusal_of(self, plan: Plan, preview_key: bytes | None) -> str | None:
        """Hide; why the store refuses, None when it is done."""
        try:
            with_room(self._store, lambda: self._hide_once(plan, preview_key))
        except Conflict as refusal:
            return problem_of(refusal)
        return None

    def _hide_once(self, plan: Plan, preview_key: bytes | None) -> HideOutcome:
        request = plan.carried
        if isinstance(request.selection, ByAnnotations):
            return self._store.hide_annotations(
                plan.deletion_id,
                request.scope,
                request.selection.bounded(request.window),
                plan.annotations,
                plan.private_bytes(),
                manifest_salt=plan.manifest_salt,
                exact=preview_key is not None,
                preview_key=preview_key,
            )
        return self._store.hide(
            plan.deletion_id,
            request.scope,
            request.selection.where if isinstance(request.selection, ByFilter) else None,
            request.window,
            plan.traces,
            plan.private_bytes(),
            manifest_salt=plan.manifest_salt,
            exact=preview_key is not None,
            preview_key=preview_key,
        )
