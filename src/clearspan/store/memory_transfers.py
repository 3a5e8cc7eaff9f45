"""Transfers between projects in the in-memory store; store/memory.py holds the lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clearspan.model.errors import Conflict, NotFound
from clearspan.model.trace import Scope, Window
from clearspan.store.memory_deleting import DeletingMemory
from clearspan.store.memory_trace import Trace
from clearspan.store.span_deletion import parse_name, render_name
from clearspan.store.tombstone import tombstone_key
from clearspan.store.transfer import OpenTransfer, TransferOrder


class TransferringMemory(DeletingMemory):
    """transfer.TransferStore over dictionaries."""

    def __init__(self, tombstone_secret: bytes) -> None:
        super().__init__(tombstone_secret)
        self._moved: dict[tuple[int, str], int] = {}  # (old project, trace_id) → new project
        self._moved_from: dict[tuple[int, str], set[int]] = {}  # (project, trace_id) → those it was in before
        self._open: dict[str, OpenTransfer] = {}
        self._annotations.home_of, self._annotations.homes_of = self.home_of, self.homes_of

    def transfer(
        self, scope: Scope, trace_ids: Sequence[str], to_project_id: int, *, moved_ns: int, order: TransferOrder
    ) -> int:
        with self._lock:
            found = [each for each in self._matching(scope, None, Window()) if each.trace_id in trace_ids]
            if {each.trace_id for each in found} != set(trace_ids):
                raise NotFound("One or more traces not found")
            if len({each.project_id for each in found}) > 1:
                raise Conflict("The traces lie in more than one project.", code="several_projects")
            moving = [each for each in found if each.project_id != to_project_id]
            for trace in moving:
                self._check_move(trace, to_project_id)
            for trace in moving:
                self._move(trace, to_project_id, moved_ns)
            if moving:
                moved = tuple(sorted(each.trace_id for each in moving))
                self._open[order.transfer_id] = OpenTransfer(*order, moving[0].project_id, to_project_id, moved)
            return len(found)

    def open_transfers(self) -> list[OpenTransfer]:
        with self._lock:
            return list(self._open.values())

    def close_transfer(self, transfer_id: str) -> None:
        with self._lock:
            self._open.pop(transfer_id, None)

    def home_of(self, project_id: int, trace_id: str) -> int:
        """The project that data of a trace belongs to which was sent to `project_id`."""
        while (project_id, trace_id) in self._moved:
            project_id = self._moved[project_id, trace_id]
        return project_id

    def homes_of(self, project_id: int, trace_id: str) -> list[int]:
        """The project that a trace is in, and those that it was in before."""
        return [project_id, *self._moved_from.get((project_id, trace_id), ())]

    def _check_move(self, trace: Trace, to_project_id: int) -> None:
        if self._is_held(trace.trace_pk):
            raise Conflict("A hold keeps one of the traces in its project.", code="held")
        parts = (each for project_id, each in self._pk_of if project_id == trace.project_id)
        waiting = [each for each in self._deletions.values() if each.is_waiting]
        listed = {line[:2] for each in waiting for line in each.manifest}
        listed_parts = (line.trace_id for each in waiting for line in each.manifest if line[1] == trace.project_id)
        said = {line.row_no for each in waiting for line in each.annotations or ()}
        if (
            self._annotations.hides_of(trace.trace_pk)
            or (trace.trace_pk, trace.project_id) in listed
            or any(self._is_part(each, trace) for each in (*parts, *listed_parts))
            or any(self._annotations.row_is_of(row_no, trace.trace_pk) for row_no in said)
        ):
            raise Conflict("A part of one of the traces is being deleted: try again later.", code="being_deleted")
        if self._is_taken(trace, to_project_id):
            raise Conflict("The destination has or has deleted a trace with one of these ids.", code="taken")

    def _is_part(self, name: str, trace: Trace) -> bool:
        parsed = parse_name(name)
        return parsed is not None and parsed.trace_id == trace.trace_id

    def _is_taken(self, trace: Trace, to_project_id: int) -> bool:
        names = [trace.trace_id, *(render_name(trace.trace_id, span_id) for span_id in trace.spans)]
        return (
            (to_project_id, trace.trace_id) in self._pk_of
            or self.home_of(to_project_id, trace.trace_id) not in (to_project_id, trace.project_id)
            or any(tombstone_key(self._secret, to_project_id, name) in self._tombstones for name in names)
        )

    def _move(self, trace: Trace, to_project_id: int, moved_ns: int) -> None:
        new = replace(trace, project_id=to_project_id)
        self._traces[trace.trace_pk] = new
        del self._pk_of[trace.project_id, trace.trace_id]
        self._pk_of[to_project_id, trace.trace_id] = trace.trace_pk
        self._moved.pop((to_project_id, trace.trace_id), None)
        self._moved[trace.project_id, trace.trace_id] = to_project_id
        homes = self.homes_of(trace.project_id, trace.trace_id)
        self._moved_from.pop((trace.project_id, trace.trace_id), None)
        self._moved_from[to_project_id, trace.trace_id] = set(homes) - {to_project_id}
        self._annotations.moved(trace, new, moved_ns)
