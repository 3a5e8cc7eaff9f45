"""Removing a project: an ordinary deletion of all its traces, and then everything that was written about it.

The project leaves every list at once and takes no more writes; its name is free. What a request that was under way
wrote into it all the same is found by `sweep` and deleted like the rest. The row itself stays, emptied: its number
stands in tombstones, deletions and receipts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from clearspan.catalog import Catalog, Project, ProjectState
from clearspan.catalog.projects import DEFAULT_PROJECT
from clearspan.deletion.execute import Deleter
from clearspan.deletion.plan import REMOVAL_WORD
from clearspan.deletion.policy import ANYTHING, Policy
from clearspan.deletion.request import ByFilter, DeletionRequest
from clearspan.deletion.result import DeletionResult, result_of
from clearspan.deletion.state import FINAL, DeletionState
from clearspan.model.clock import Clock
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.annotations import AnnotationWriter
from clearspan.store.port import TraceReader

_SHAPE_BEFORE = "span_count:gte:1"
_REMOVING_BEFORE = frozenset({"langsmith", "phoenix"})
"""How the condition of a removal (`_any_trace`) stands in ledgers from before REMOVAL_WORD, and which dialects removed
projects then; none of their other deletions could ask for a number of spans."""
WATCHED_S = 3600.0
"""How long after a project is gone it is still looked at for traces that some slow request brought."""

_log = logging.getLogger("clearspan.deletion")
_S = DeletionState


@dataclass(frozen=True, slots=True)
class RemovalRequest:
    """Who wants a project removed, through which dialect, and within which limits."""

    org_id: int
    requested_by: str
    dialect: str
    reason: str | None = None
    idempotency_key: str | None = None
    policy: Policy = ANYTHING
    reach: Scope | None = None  # where copies of the project's traces are taken as well; None: from it alone


class ProjectRemoval:
    """Removes projects. Safe to call from many threads; a restart goes on where it was, by `sweep`."""

    def __init__(
        self, catalog: Catalog, deleter: Deleter, reader: TraceReader, annotating: AnnotationWriter, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._deleter = deleter
        self._reader = reader
        self._annotating = annotating
        self._clock = clock
        deleter.add_chore(self.sweep)

    def remove(self, project: Project, request: RemovalRequest, *, wait_s: float) -> DeletionResult:
        """Remove a project and wait up to `wait_s` for the proof that its traces are erased.

        The project `default` is only emptied: writes that name no project need it.

        Returns:
            The deletion of its traces as it stood then. Once that is verified the project is gone.
        Raises:
            Unguarded, Conflict: a guard objects. Held: holds keep every trace. Nothing was changed.
        """
        deadline = self._clock.monotonic_s() + wait_s
        result = self._deleter.delete(_all_of(project, request), wait_s=0.0, wait_for="hidden", refuse_held=True)
        if project.name != DEFAULT_PROJECT:
            project = self._catalog.project_leaves(project.id, result.deletion_id)
        status = self._deleter.status(result.deletion_id)
        while status.job.state not in FINAL and status.waits_for(self._clock.now_ns()) is None:
            left_s = deadline - self._clock.monotonic_s()
            if left_s <= 0:
                break
            status = self._deleter.wait_change(result.deletion_id, status.seen, left_s)
        if project.state is ProjectState.LEAVING:
            self._advance(project)
        return result_of(status.job)

    def sweep(self) -> None:
        """Look after every project that is being removed, and after those that went a short while ago."""
        since_ns = self._clock.now_ns() - round(WATCHED_S * 1e9)
        for project in self._catalog.removed_projects(gone_after_ns=since_ns):
            self._advance(project)

    def _advance(self, project: Project) -> None:
        assert project.deletion_id is not None, "a project leaves by a deletion"
        end = self._end_of(project.deletion_id)
        if end is None or end is _S.FAILED:  # on its way, or waiting for somebody's explicit retry
            return
        if end is _S.CANCELLED:
            self._catalog.project_comes_back(project.id)
        elif self._reader.count_traces(Scope((project.id,)), None, Window()):
            self._delete_rest(project)
        else:
            self._annotating.purge_project_annotations(project.id)
            self._catalog.erase_project(project.id)

    def _end_of(self, deletion_id: str) -> DeletionState | None:
        """How a deletion and the remainders that holds kept of it ended; None: not all of them have."""
        job = self._deleter.status(deletion_id).job
        while job.state is _S.VERIFIED and job.child_id is not None:
            job = self._deleter.status(job.child_id).job
        return job.state if job.state in FINAL else None

    def _delete_rest(self, project: Project) -> None:
        assert project.deletion_id is not None
        before = self._deleter.status(project.deletion_id).job
        _log.info("project %s: traces came while it was being removed", project.public_id)
        request = RemovalRequest(project.org_id, before.requested_by, before.dialect)
        result = self._deleter.delete(_all_of(project, request), wait_s=0.0, wait_for="hidden")
        self._catalog.project_leaves(project.id, result.deletion_id)


def is_removal(dialect: str, shape: Sequence[str]) -> bool:
    """Whether a deletion, by what the ledger says of it, is the removal of a project."""
    return REMOVAL_WORD in shape or (dialect in _REMOVING_BEFORE and _SHAPE_BEFORE in shape)


def _all_of(project: Project, request: RemovalRequest) -> DeletionRequest:
    return DeletionRequest(
        org_id=request.org_id,
        requested_by=request.requested_by,
        dialect=request.dialect,
        scope=Scope((project.id,)),
        selection=ByFilter(_any_trace()),
        delete_all=True,
        reason=request.reason,
        idempotency_key=request.idempotency_key,
        policy=request.policy,
        reach=request.reach,
        removes_project=True,
    )


def _any_trace() -> Condition:
    """What every trace fulfils: a deletion needs a condition, and this one is said on purpose."""
    return make_condition("span_count", field_named("span_count"), Operator.GTE, [0])
