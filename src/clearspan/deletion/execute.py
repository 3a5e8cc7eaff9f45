"""The Deleter: everything that may be asked of deletions, in one place. README.md tells the way through it.

accept.py  guard, plan, record, hide        steps.py   purge, settle, verify, one step at a time
worker.py  whose turn it is, waiting        acts.py    cancel, retry, lift
watch.py   how far, how long, overdue       holds.py   what may not be deleted
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Literal

from clearspan.deletion import preview as previews
from clearspan.deletion.accept import Acceptance
from clearspan.deletion.acts import Acts
from clearspan.deletion.follow_up import FollowUps
from clearspan.deletion.guard import check_request
from clearspan.deletion.job import HELD, DeletionCatalog, DeletionJob, DeletionPage, DeletionQuery
from clearspan.deletion.plan import Plan
from clearspan.deletion.policy import Policy
from clearspan.deletion.preview import Preview
from clearspan.deletion.recording import move
from clearspan.deletion.redaction import Redactor
from clearspan.deletion.request import DeletionRequest
from clearspan.deletion.result import DeletionResult, result_of
from clearspan.deletion.state import DeletionState
from clearspan.deletion.steps import ROWS_MAX, Steps
from clearspan.deletion.watch import DeletionStatus, why_overdue
from clearspan.deletion.worker import Task, Worker
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, Held, NotFound, NotPermitted, Overloaded
from clearspan.proof.manifest import Claim, claim_of, manifest_leaves
from clearspan.store.port import DeletionStore

WAIT_S = 10.0
"""How long `delete` waits for `verified` before it answers `hidden`."""
LEASE_LOOK_AGAIN_S = 60.0
WATCH_S = 0.5
"""How often at least a watcher looks at a deletion, besides being told of each step."""
WaitFor = Literal["none", "hidden", "verified"]

_log = logging.getLogger("clearspan.deletion")
_S = DeletionState


class Deleter:
    """The one road by which trace data leaves. Safe to call from many threads.

    Until `start` is called everything happens in the calling thread; after it a few threads carry deletions out,
    taking one batch of each in turn so that a large one does not hold up the small ones.
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
        is_ingest_waiting: Callable[[], bool] = lambda: False,
        previews_max: int = previews.PREVIEWS_MAX,
    ) -> None:
        """
        Args:
            secret: keys the hashes of idempotency keys; the instance's, from the Catalog.
            rows_max: rows of one purge batch at most.
            is_ingest_waiting: whether clients wait for the writer; batches leave it some air then.
            previews_max: open plan tokens of one API key at once.
        """
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._worker = Worker(clock, advance=self._advance, reread=catalog.get_deletion, housekeeping=self._keep_house)
        self._steps = Steps(
            store,
            catalog,
            clock,
            rows_max=rows_max,
            adopt=self._worker.adopt,
            is_ingest_waiting=is_ingest_waiting,
        )
        self._acceptance = Acceptance(store, catalog, clock, ids, self._worker, secret=secret)
        self._steps.follow_ups = FollowUps(store, catalog, ids, accept=self._acceptance.accept)
        self._acts = Acts(store, catalog, ids, self._steps, self._worker)
        self._shelf = previews.Shelf(store, previews_max=previews_max)
        self._alarmed: set[tuple[str, str]] = set()
        self._chores: list[Callable[[], None]] = []

    # -- asking ---------------------------------------------------------------------------------------------------

    def plan(self, request: DeletionRequest) -> Plan:
        """What a request would delete, past every guard; nothing is recorded or changed.

        Raises:
            InvalidFilter, Unguarded, Conflict: a guard objects.
        """
        return self._acceptance.plan(request)

    def preview(self, request: DeletionRequest) -> Preview:
        """The same with samples and breakdowns, kept for a quarter of an hour under a token that executes it once.

        Raises: as `plan`; Conflict `plan_mismatch`: a listed trace was deleted meanwhile; `too_many_plans`: the API key
            has as many open tokens as it may.
        Cost: as `plan`, and one write of about 50 bytes a trace.
        """
        owner = previews.owner_of(request.org_id, request.requested_by)
        self._shelf.check_room(owner, self._clock.now_ns())  # before the work as well
        plan = self._acceptance.plan(replace(request, idempotency_key=None))
        token = previews.render_token(self._ids.token_bytes(previews.TOKEN_BYTES))
        key, expires_ns = self._shelf.keep(token, owner, plan, now_ns=self._clock.now_ns())
        told = previews.breakdown_of(self._store, plan)
        if sum(told.by_project.values()) != plan.matched:
            # Asked after the preview was saved: whoever deletes those traces later finds it and erases it.
            self._store.void_preview(key)
            raise Conflict(
                f"Some of these {request.kind} were deleted meanwhile; make a new preview.", code="plan_mismatch"
            )
        return Preview(
            plan=plan,
            token=token,
            expires_ns=expires_ns,
            by_day=told.by_day,
            by_project=told.by_project,
            **previews.sight_of(self._store, plan)._asdict(),
        )

    def delete(
        self,
        request: DeletionRequest,
        *,
        wait_s: float = WAIT_S,
        wait_for: WaitFor = "verified",
        refuse_held: bool = False,
    ) -> DeletionResult:
        """Delete what the request names, and wait up to `wait_s` for the proof.

        Args:
            wait_for: anything but `verified` answers as soon as the traces are hidden, which is done here. Not before:
                until then request and list are in memory only, and whoever was told `planned` might find nothing done.
            refuse_held: where holds keep every match, refuse rather than record a deletion that only waits for them.
        Returns:
            The deletion as it stood then: `verified`, or `hidden`/`purged` when erasure goes on by itself.
        Raises:
            InvalidFilter, Unguarded, Conflict: a guard objects; nothing was deleted.
            Held: holds keep every match (`refuse_held`); nothing was deleted, now or later.
            Overloaded: the store cannot take it now; nothing was deleted.
        Cost: one plan, one hide, then batches of `rows_max` rows.
        """
        deadline = self._deadline(wait_s, wait_for)
        check_request(request)  # an idempotency key does not make a bad request good
        asked = self._acceptance.hash_of(request)
        task = self._acceptance.repeated(request, lambda: asked)
        if task is None:
            keyed = None if request.idempotency_key is None else asked
            plan = self._acceptance.plan(request)
            if refuse_held and plan.matched and previews.held_among(self._store, plan) == plan.matched:
                raise Held(f"A hold keeps all {request.kind} that match; nothing was deleted.")
            task = self._acceptance.accept(plan, request_hash=keyed)
        return self._answer(task, deadline)

    def delete_planned(
        self,
        token: str,
        *,
        org_id: int,
        requested_by: str,
        project_ids: tuple[int, ...] | None = None,
        expected_count: int | None = None,
        idempotency_key: str | None = None,
        policy: Policy | None = None,
        wait_s: float = WAIT_S,
        wait_for: WaitFor = "verified",
    ) -> DeletionResult:
        """Delete exactly what a preview listed, once.

        Args:
            project_ids: what the key may touch now; a preview that reaches further is refused.
            policy: the key's policy now.
        Raises:
            Conflict: `plan_used_or_unknown` (used, swept, another organisation's or key's, or never given out),
                `plan_expired`, `plan_mismatch` (a listed trace is gone or no longer matches, or one that is not listed
                has a copy of one by now), or a guard's.
            NotPermitted: the key has lost a project since.
            Unguarded: the policy objects. In every case nothing was deleted.
        """
        deadline = self._deadline(wait_s, wait_for)
        asked = self._acceptance.hash_of_token(token)
        who = DeletionRequest(
            org_id, requested_by, "", previews.NOWHERE, previews.NO_SELECTION, idempotency_key=idempotency_key
        )
        task = self._acceptance.repeated(who, lambda: asked)
        if task is None:
            plan = self._kept_plan(token, who)
            request = replace(plan.request, policy=policy or plan.request.policy)
            if expected_count is not None:
                request = replace(request, expected_count=expected_count)
            plan = replace(plan, request=request)
            if project_ids is not None and not set(plan.carried.scope.project_ids) <= set(project_ids):
                raise NotPermitted("This API key may no longer touch every project of the plan; nothing was deleted.")
            check_request(request)
            self._acceptance.check_matches(plan)
            self._acceptance.check_copies(plan)
            keyed = None if idempotency_key is None else asked
            task = self._acceptance.accept(
                self._acceptance.identified(plan), request_hash=keyed, preview_key=_kept_under(token, who)
            )
        return self._answer(task, deadline)

    def _kept_plan(self, token: str, who: DeletionRequest) -> Plan:
        """The plan under a token, as a request of the one who shows it."""
        kept = self._store.get_preview(_kept_under(token, who))
        if kept == b"":
            raise Conflict(
                "A trace of this plan was deleted since; make a new preview. Nothing was deleted.",
                code="plan_mismatch",
                fields=("plan_token",),
            )
        plan, expires_ns = (None, 0) if kept is None else previews.parse_kept(kept)
        if plan is None or (plan.request.org_id, plan.request.requested_by) != (who.org_id, who.requested_by):
            raise Conflict(
                "This plan was used before or is not known; nothing was deleted.",
                code="plan_used_or_unknown",
                fields=("plan_token",),
            )
        if expires_ns <= self._clock.now_ns():
            raise Conflict(
                "This plan has expired; make a new preview. Nothing was deleted.",
                code="plan_expired",
                fields=("plan_token",),
            )
        request = replace(plan.request, idempotency_key=who.idempotency_key)
        return replace(plan, request=request, salt=self._ids.token_bytes(len(plan.salt)))

    def _deadline(self, wait_s: float, wait_for: WaitFor) -> float:
        return self._clock.monotonic_s() + (wait_s if wait_for == "verified" else 0.0)

    def _answer(self, task: Task, deadline: float) -> DeletionResult:
        if (task.job.not_before_ns or 0) <= self._clock.now_ns():
            self._worker.wait(task, deadline)
        job = task.job
        if job.hidden is None:  # a repeat that came while the first was being accepted
            job = self._catalog.get_deletion(job.deletion_id) or job
        if job.hidden is None and job.state is _S.CANCELLED:
            raise Overloaded("This deletion was given up before anything was deleted; send it again.")
        if job.hidden is None:
            raise Conflict("This deletion is still being accepted.", code="deletion_in_progress")
        return result_of(job)

    # -- acting ---------------------------------------------------------------------------------------------------

    def cancel(self, deletion_id: str, *, by: str, reason: str | None = None) -> DeletionStatus:
        """Undo a deletion of which nothing has been purged: every trace is as before. Repeating it changes nothing.

        A held remainder can be cancelled too: what the hold keeps then simply stays.

        Raises:
            NotFound: there is no such deletion.
            Conflict: `purge_begun`, `parent_unfinished`, or `deletion_in_progress` while it is being accepted.
        """
        self._acts.cancel(deletion_id, by=by, reason=reason)
        return self.status(deletion_id)

    def retry(self, deletion_id: str, *, by: str) -> DeletionStatus:
        """Take a failed deletion up again, or try a blocked one now. Raises NotFound, Conflict (`deletion_over`)."""
        self._acts.retry(deletion_id, by=by)
        return self.status(deletion_id)

    def lift_tombstone(
        self,
        org_id: int,
        project_id: int,
        trace_id: str,
        *,
        by: str,
        reason: str | None = None,
        sees: Callable[[DeletionJob], bool] | None = None,
    ) -> str | None:
        """Accept data of a deleted trace again. Recorded in the ledger before it is done.

        Args:
            sees: whether the caller may see a deletion; None: it sees all of its organisation.
        Returns:
            The deletion it belonged to; None: there was no tombstone, or none of a deletion that the caller sees.
        Raises:
            Conflict: `still_erasing`: its deletion is not verified yet.
        """
        return self._acts.lift_tombstone(org_id, project_id, trace_id, by=by, reason=reason, sees=sees)

    def erase_note(self, ref: str) -> bool:
        """Erase the private words of a ledger entry (its `private_ref`); every proof still verifies."""
        return self._store.erase_note(ref)

    def wake_held(self) -> None:
        """Holds have changed: let every held remainder look whether it may go on."""
        self._worker.wake(lambda task: task.job.state is _S.BLOCKED and task.job.problem == HELD)

    # -- looking --------------------------------------------------------------------------------------------------

    def status(self, deletion_id: str, *, sees: Callable[[DeletionJob], bool] | None = None) -> DeletionStatus:
        """A deletion's row in the Catalog and how far the store has come with it.

        Args:
            sees: whether the caller may see it; None: everybody may.
        Raises:
            NotFound: there is none, or the caller may not see it; which one is not told, by the time it takes neither.
        """
        job = self._catalog.get_deletion(deletion_id)
        if job is None or (sees is not None and not sees(job)):
            raise NotFound("There is no such deletion.")
        return DeletionStatus(job, self._store.progress(deletion_id))

    def list_deletions(self, query: DeletionQuery) -> DeletionPage:
        """Deletions, newest first, page by page. Raises InvalidPage for a foreign cursor."""
        return self._catalog.list_deletions(query)

    def wait_change(self, deletion_id: str, seen: tuple[int, int] | None, timeout_s: float) -> DeletionStatus:
        """The status as soon as it differs from `seen` (`DeletionStatus.seen`), or when the time is up.

        Raises NotFound.
        """
        deadline = self._clock.monotonic_s() + timeout_s
        while True:
            status = self.status(deletion_id)
            left = deadline - self._clock.monotonic_s()
            if status.seen != seen or left <= 0:
                return status
            self._worker.wait_changed(min(left, WATCH_S))

    def blocked_by(self, deletion_id: str) -> dict[str, int]:
        """hold id → how many traces (annotations) of a deletion it keeps now; for a held remainder."""
        if lines := self._store.annotation_manifest(deletion_id):
            return self._store.annotations_held([line.row_no for line in lines])
        return self._store.count_held([trace.trace_pk for trace in self._store.manifest(deletion_id)])

    def receipt(self, deletion_id: str) -> str:
        """The signed receipt (a compact JWS). Raises NotFound before the deletion is verified."""
        found = self._catalog.receipt(deletion_id)
        if found is None:
            raise NotFound("There is no receipt: only a verified deletion has one.")
        return found

    def membership(self, deletion_id: str, project_id: int, trace_id: str) -> Claim | None:
        """The proof that a trace was among those a verified deletion removed; None: it was not.

        Raises NotFound before the deletion is verified. Cost: 1 µs a trace of the deletion.
        """
        job, progress = self.status(deletion_id)
        if job.state is not _S.VERIFIED or progress is None or progress.manifest_salt is None:
            raise NotFound("There is no receipt: only a verified deletion has one.")
        return claim_of(self._store.leaves(deletion_id), progress.manifest_salt, project_id, trace_id)

    def takes(self, deletion_id: str, traces: Collection[tuple[int, str]]) -> set[tuple[int, str]]:
        """Which of these (project_id, trace_id) a deletion, or the remainder that holds kept of it, has in its list.

        Known before and after the ids themselves are erased; of a cancelled one nothing is. Cost: 3 µs a trace.
        """
        found: set[tuple[int, str]] = set()
        each: str | None = deletion_id
        while each is not None and (progress := self._store.progress(each)) is not None:
            if progress.manifest_salt is not None:
                leaves = set(self._store.leaves(each))
                made = manifest_leaves(progress.manifest_salt, traces)
                found |= {trace for trace, leaf in zip(traces, made, strict=True) if leaf in leaves}
            each = progress.child_id
        return found

    def tombstones(self, deletion_id: str, after: bytes = b"", limit: int = 1000) -> list[bytes]:
        """The next tombstone keys of a deletion above `after`."""
        return self._store.tombstones(deletion_id, after, limit)

    def overdue(self, now_ns: int | None = None) -> list[tuple[str, str]]:
        """(deletion_id, why) of every deletion that somebody should look at; see docs/deletion.md.

        Cheap: it looks at what is in hand and asks the Catalog one question.
        """
        now_ns, now_s = self._clock.now_ns() if now_ns is None else now_ns, self._clock.monotonic_s()
        found = [(task.job.deletion_id, why_overdue(task, now_ns, now_s)) for task in self._worker.tasks()]
        newer: list[tuple[str, str | None]] = [(each, "newer_version") for each in self._catalog.newer_deletions()]
        return [(deletion_id, why) for deletion_id, why in [*found, *newer] if why is not None]

    # -- running --------------------------------------------------------------------------------------------------

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
            if mine and self._was_never_hidden(job):
                # Nothing was hidden, nobody was told it was, and no transaction of the dead process is left.
                move(self._catalog, job, _S.CANCELLED, problem="interrupted_before_hiding")
            else:
                self._worker.adopt(Task(job, due_s=self._clock.monotonic_s() + (0.0 if mine else LEASE_LOOK_AGAIN_S)))
        return len(jobs)

    def _was_never_hidden(self, job: DeletionJob) -> bool:
        return job.hidden is None and self._store.progress(job.deletion_id) is None

    def start(self) -> None:
        """Carry deletions out in threads of our own from now on."""
        self._worker.start()

    def close(self) -> None:
        """Stop after the step at hand. Unfinished deletions go on at the next `resume`."""
        self._worker.close()

    def run_due(self, deadline: float = float("inf")) -> None:
        """Carry out, in this thread, whatever is due before the monotonic `deadline`."""
        self._worker.run_due(deadline)

    def _advance(self, task: Task) -> None:
        before = task.before  # somebody may cancel it meanwhile
        if before is not None:
            before(task)
        self._steps.advance(task)

    def add_chore(self, chore: Callable[[], None]) -> None:
        """Something else to do once a minute, until it succeeds each time. Call before `start`."""
        self._chores.append(chore)

    def redact_with(self, redactor: Redactor) -> None:
        """Who writes empty items in place of redacted ones; without it a deletion that owes some is blocked."""
        self._steps.redactor = redactor

    def settle_links_with(self, settle: Callable[[], None]) -> None:
        """What makes public links name the projects that their traces are in; called before links are removed."""
        self._steps.settle_links = settle

    def _keep_house(self) -> None:
        """Erase expired previews, do the chores, say once of each overdue deletion that it is. Each by itself."""
        for chore in (self._sweep_previews, *self._chores, self._alarm):
            try:
                chore()
            except Exception as error:  # it is tried again; no deletion depends on it
                _log.warning("housekeeping of deletions failed: %s", type(error).__name__)

    def _sweep_previews(self) -> None:
        self._store.sweep_previews(self._clock.now_ns())

    def _alarm(self) -> None:
        overdue = set(self.overdue())
        for deletion_id, why in sorted(overdue - self._alarmed):
            _log.warning("deletion %s is overdue: %s", deletion_id, why)
        self._alarmed = overdue


def _kept_under(token: str, who: DeletionRequest) -> bytes:
    return previews.token_key(token, previews.owner_of(who.org_id, who.requested_by))
