"""Copies that were made after a deletion was planned: looked for once more before its purge, while the rows that they
name are still there, and deleted by a deletion of their own, the follow-up.

The follow-up has its own manifest, counts, holds, empty items and receipt, and tells in its shape what stays: copies
beyond the reach, and items of datasets that keep them. It is filed where only such were found, too, and takes nothing
then. Before its own purge it looks for copies of what it took in turn.

Its id follows from that of the deletion it follows, and what is hidden is found no more: so a step that a crash made
anew files no second one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import orjson

from clearspan.catalog.datasets import SourcePolicy
from clearspan.deletion import spans
from clearspan.deletion.guard import PLAN_MAX
from clearspan.deletion.job import DeletionCatalog, DeletionJob
from clearspan.deletion.linked import SOURCE_KEYS, Copies, find_copies, find_detached
from clearspan.deletion.plan import SALT_BYTES, Plan, parse_request, root_of_traces
from clearspan.deletion.recording import Stuck
from clearspan.deletion.redaction import empty_items, versions_of
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.deletion.room import with_room
from clearspan.deletion.spans import SpanRuns
from clearspan.deletion.state import DeletionState
from clearspan.faults import fault
from clearspan.model.clock import IdSource
from clearspan.model.trace import Scope
from clearspan.store.port import METADATA_TRACES_MAX, DeletionKind, DeletionProgress, DeletionStore, PlannedTrace

UNCONFIRMED: Final = "follow_up_unconfirmed"
"""The problem of a deletion that may not purge yet: nobody knows whether its follow-up was hidden."""


def follow_up_id_of(deletion_id: str, attempt: int) -> str:
    """The id of a deletion's follow-up.

    Args:
        attempt: how many were given up before they hid anything.
    """
    return "del_" + hashlib.sha256(f"follow-up\0{deletion_id}\0{attempt}".encode()).hexdigest()[:32]


class FollowUps:
    """Files follow-ups. Call it from the step of the deletion that is followed, which nobody else takes meanwhile."""

    def __init__(
        self,
        store: DeletionStore,
        catalog: DeletionCatalog,
        ids: IdSource,
        *,
        accept: Callable[[Plan], object],
    ) -> None:
        """
        Args:
            accept: records a plan's deletion and hides it; durably, before it returns.
        """
        self._store = store
        self._catalog = catalog
        self._ids = ids
        self._accept = accept

    def find(self, job: DeletionJob) -> DeletionJob | None:
        """The follow-up of a deletion, if it has one."""
        return self._attempt(job)[1]

    def file(self, job: DeletionJob, progress: DeletionProgress) -> None:
        """Look for copies that the plan does not know of, and hide them; a repeat does so once.

        Args:
            job: hidden, and nothing of it purged.
        Raises:
            Stuck: a follow-up was filed and it is not known whether it is hidden; the deletion must not purge before.
        Cost: see linked.find_copies, and two short reads of the Catalog.
        """
        said = {} if progress.request is None else orjson.loads(progress.request)
        if job.kind is DeletionKind.ANNOTATIONS or "reach" not in said:  # a former version did not keep its reach
            return
        reach = Scope(tuple(said["reach"][0]), said["reach"][1])
        known = [*said["copies_left"], *self._held(progress)]
        copies = self._search(job, reach, known, spans.parse_runs(said.get("runs", ())))
        if not copies.traces and not copies.left:
            return
        deletion_id, filed = self._attempt(job)
        if filed is not None:  # before a crash: what is found now is held, stays, or came after that search
            if filed.hidden is None and self._store.progress(deletion_id) is None:
                raise Stuck(UNCONFIRMED)
            return
        asked = parse_request(said["request"], job.org_id)
        fault("deletion.before_follow_up")
        self._accept(self._plan(job, asked, reach, copies, deletion_id))
        fault("deletion.after_follow_up")

    def detach(self, job: DeletionJob, progress: DeletionProgress) -> None:
        """Take the link to what is about to be purged out of the items that stay: no id of it may be left with them.

        Args:
            job: hidden, and nothing of it purged. Whoever cancels it after a failure in between finds the traces back,
                and the items without their links.
        Cost: as a search for copies; then some 0.3 ms for each version, a transaction for METADATA_TRACES_MAX of them.
        """
        said = {} if progress.request is None else orjson.loads(progress.request)
        if job.kind is DeletionKind.ANNOTATIONS or "reach" not in said:
            return
        datasets = self._catalog.dataset_policies(job.org_id)
        if SourcePolicy.DETACH not in datasets.values():
            return
        traces, runs = self._listed(job, spans.parse_runs(said.get("runs", ())))
        reach = Scope(tuple(said["reach"][0]), said["reach"][1])
        found = find_detached(self._store, traces, reach, datasets, runs)
        [key] = SOURCE_KEYS
        for start in range(0, len(found), METADATA_TRACES_MAX):
            part = found[start : start + METADATA_TRACES_MAX]
            with_room(self._store, partial(self._store.purge_metadata, part, key))
            fault("deletion.after_detach")

    def _listed(self, job: DeletionJob, runs: Sequence[SpanRuns]) -> tuple[list[PlannedTrace], list[SpanRuns]]:
        """What a deletion has hidden, and the runs of the spans among it; the other ones are held."""
        traces = self._store.manifest(job.deletion_id)
        names = {trace[1:] for trace in traces}
        return traces, [each for each in runs if (each.project_id, each.name) in names]

    def _search(self, job: DeletionJob, reach: Scope, known: list[int], runs: Sequence[SpanRuns]) -> Copies:
        traces, runs = self._listed(job, runs)
        everywhere = Scope(self._catalog.project_ids(job.org_id))
        datasets = self._catalog.dataset_policies(job.org_id)
        search = partial(find_copies, self._store, traces, reach, everywhere, datasets, limit=PLAN_MAX, runs=runs)
        found = search(known=known)
        # An empty item names the item whose place it holds. The release of a held version may find one there.
        empty = empty_items(self._store, [trace for trace in found.traces if trace.project_id in datasets])
        return search(known=[*known, *empty]) if empty else found

    def _attempt(self, job: DeletionJob) -> tuple[str, DeletionJob | None]:
        """The id of the follow-up, and its job if there is one; one that was given up unhidden does not count."""
        for number in itertools.count():
            deletion_id = follow_up_id_of(job.deletion_id, number)
            filed = self._catalog.get_deletion(deletion_id)
            if filed is None or filed.state is not DeletionState.CANCELLED or filed.hidden is not None:
                break
        return deletion_id, filed

    def _held(self, progress: DeletionProgress) -> Iterator[int]:
        """What holds keep of the deletion: it is on the list of its remainder already."""
        child: DeletionProgress | None = progress
        while child is not None and child.child_id is not None:
            yield from (trace.trace_pk for trace in self._store.manifest(child.child_id))
            child = self._store.progress(child.child_id)

    def _plan(self, job: DeletionJob, asked: DeletionRequest, reach: Scope, copies: Copies, deletion_id: str) -> Plan:
        """The limits of the key and `expected_count` were held to the plan that is followed: what has copied its text
        since goes past them, for it must not stay."""
        traces = copies.traces
        pks = [trace.trace_pk for trace in traces]
        projects = tuple(sorted({trace.project_id for trace in traces})) or job.project_ids
        salt = self._ids.token_bytes(SALT_BYTES)
        return Plan(
            deletion_id,
            DeletionRequest(
                org_id=job.org_id,
                requested_by=job.requested_by,
                dialect=job.dialect,
                scope=Scope(projects, reach.environment),
                selection=ByIds(tuple(sorted({trace.trace_id for trace in traces}))),
                reason=asked.reason,
                reach=reach,
                leave_copies=asked.leave_copies,
            ),
            traces,
            planned=self._store.count_targets(pks) if pks else {},
            salt=self._ids.token_bytes(SALT_BYTES),
            manifest_salt=salt,
            manifest_root=root_of_traces(salt, traces),
            copies=frozenset(pks),
            copies_not_covered=copies.not_covered,
            copies_detached=copies.detached,
            copies_of_trace=copies.of_trace,
            copies_left=copies.left,
            redacted=versions_of(self._store, copies.redacted),
            follows=job.deletion_id,
        )
