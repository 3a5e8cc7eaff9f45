"""Deleting annotations by themselves in the in-memory store: a part of memory_deleting.py."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from clearspan.model.errors import Conflict
from clearspan.model.trace import Scope, Window
from clearspan.proof.manifest import manifest_leaf
from clearspan.store.annotation_deletion import PlannedAnnotation, named
from clearspan.store.annotations import AnnotationQuery, AnnotationRow
from clearspan.store.memory_annotations import MemoryAnnotations
from clearspan.store.port import SUMMARIES_MAX, Breakdown, HideOutcome, HoldRow, child_id_of

if TYPE_CHECKING:
    from clearspan.store.memory_deleting import Deletion

_NOTHING = HideOutcome(0, 0, 0, 0)


class MemoryAnnotationDeletions(ABC):
    """annotation_deletion.AnnotationDeletionStore over dictionaries; DeletingMemory sets these."""

    _lock: threading.RLock
    _annotations: MemoryAnnotations
    _deletions: dict[str, Deletion]
    _previews: dict[bytes, tuple[bytes, int]]
    _holds: Mapping[str, HoldRow]

    @abstractmethod
    def _known(self, deletion_id: str) -> Deletion:
        """The deletion of that id. Raises ValueError if there is none."""

    @abstractmethod
    def _has_more(self, deletion_id: str | None) -> bool:
        """Whether it has anything left to purge."""

    @abstractmethod
    def _holds_on(self, trace_pk: int) -> Iterable[HoldRow]:
        """The holds that keep a trace."""

    @abstractmethod
    def _new_deletion(self, deletion_id: str, request: bytes | None, salt: bytes, parent_id: str | None) -> Deletion:
        """One of annotations, still empty."""

    # -- planning -------------------------------------------------------------------------------------------------

    def plan_annotations(self, scope: Scope, query: AnnotationQuery, *, limit: int) -> list[PlannedAnnotation]:
        with self._lock:
            found = self._annotations.selected(scope, query)
        return [_line(row) for row in found[: limit + 1]]

    def count_annotations(self, scope: Scope) -> int:
        with self._lock:
            return len(self._annotations.selected(scope, AnnotationQuery()))

    def annotations_held(self, row_nos: Sequence[int]) -> dict[str, int]:
        with self._lock:
            return dict(Counter(hold_id for row_no in set(row_nos) for hold_id in self._holders(row_no)))

    def annotations_held_among(self, row_nos: Sequence[int]) -> int:
        with self._lock:
            return sum(bool(self._holders(row_no)) for row_no in set(row_nos))

    def annotation_samples(self, row_nos: Sequence[int]) -> list[AnnotationRow]:
        with self._lock:
            shown = [row_no for row_no in sorted(row_nos[:SUMMARIES_MAX]) if self._annotations.shows(row_no)]
            return [self._annotations.row(row_no) for row_no in shown]

    def annotation_breakdown(self, row_nos: Sequence[int]) -> Breakdown:
        with self._lock:
            rows = [self._annotations.row(row_no) for row_no in set(row_nos) if self._annotations.shows(row_no)]
        days = Counter(_day_of(row.annotation.created_ns) for row in rows)
        return Breakdown(dict(days), dict(Counter(row.project_id for row in rows)))

    def _holders(self, row_no: int) -> set[str]:
        """The holds that keep an annotation."""
        if not self._annotations.exists(row_no):
            return set()
        pks = self._annotations.traces_of(row_no)
        if pks:
            return {hold.hold_id for pk in pks for hold in self._holds_on(pk)}
        project_id = self._annotations.row(row_no).project_id
        return {
            hold.hold_id
            for hold in self._holds.values()
            if hold.released_ns is None and hold.where is None and hold.trace_ids is None
            and hold.window == Window() and hold.scope.environment is None and project_id in hold.scope.project_ids
        }  # fmt: skip

    # -- hiding ---------------------------------------------------------------------------------------------------

    def hide_annotations(
        self,
        deletion_id: str,
        scope: Scope,
        query: AnnotationQuery,
        manifest: Sequence[PlannedAnnotation],
        request: bytes,
        *,
        manifest_salt: bytes = b"",
        exact: bool = False,
        preview_key: bytes | None = None,
    ) -> HideOutcome:
        with self._lock:
            if deletion_id in self._deletions:
                return self._deletions[deletion_id].outcome
            if preview_key is not None and preview_key not in self._previews:
                raise Conflict("This plan was used before, or is not known.", code="plan_used_or_unknown")
            hit, held, outcome = self._judge_annotations(manifest, scope, query)
            if exact and (outcome.already_absent or outcome.no_longer_matching):
                raise Conflict("The planned annotations have changed; nothing was deleted.", code="plan_mismatch")
            if preview_key is not None:
                del self._previews[preview_key]
            deletion = self._new_deletion(deletion_id, request, manifest_salt, None)
            deletion.outcome, deletion.annotations = outcome, sorted(hit)
            self._annotations.hidden_by |= {line.row_no: deletion_id for line in hit}
            self._hand_annotations_over(deletion_id, held)
            return outcome

    def hide_annotation_child(self, deletion_id: str, scope: Scope, query: AnnotationQuery) -> HideOutcome | None:
        with self._lock:
            child = self._known(deletion_id)
            if child.cancelled:
                raise Conflict("This deletion was cancelled.", code="cancelled")
            if not child.is_waiting:
                return child.outcome
            if self._has_more(child.parent_id):
                return None
            hit, held, outcome = self._judge_annotations(child.annotations or (), scope, query, mine=deletion_id)
            if held and not hit:
                return None
            child.is_waiting, child.outcome, child.annotations = False, outcome, sorted(hit)
            self._annotations.hidden_by |= {line.row_no: deletion_id for line in hit}
            self._hand_annotations_over(deletion_id, held)
            return outcome

    def _judge_annotations(
        self, lines: Iterable[PlannedAnnotation], scope: Scope, query: AnnotationQuery, mine: str = ""
    ) -> tuple[list[PlannedAnnotation], list[PlannedAnnotation], HideOutcome]:
        matching = {row.row_no for row in self._annotations.selected(scope, query)}
        hit: list[PlannedAnnotation] = []
        held: list[PlannedAnnotation] = []
        changed = absent = 0
        for line in lines:
            is_mine = bool(mine) and self._annotations.hidden_by.get(line.row_no) == mine
            is_mine = is_mine and self._annotations.exists(line.row_no)
            if not is_mine and not self._annotations.shows(line.row_no):
                absent += 1
            elif not is_mine and line.row_no not in matching:
                changed += 1
            else:
                (held if self._holders(line.row_no) else hit).append(line)
        return hit, held, HideOutcome(len(hit), changed, absent, len(held))

    def _hand_annotations_over(self, deletion_id: str, lines: Sequence[PlannedAnnotation]) -> None:
        if not lines:
            return
        child_id = child_id_of(deletion_id)
        child = self._deletions.get(child_id)
        if child is None:
            child = self._new_deletion(child_id, self._deletions[deletion_id].request, b"", deletion_id)
            child.is_waiting = True
        child.annotations = sorted({*(child.annotations or ()), *lines})
        for line in lines:
            if self._annotations.hidden_by.get(line.row_no) == deletion_id:
                self._annotations.hidden_by[line.row_no] = child_id

    def _cancel_annotations(self, deletion_id: str) -> int:
        freed = sorted(no for no, by in self._annotations.hidden_by.items() if by == deletion_id)
        there = sum(map(self._annotations.exists, freed))
        for row_no in freed:
            self._annotations.show_again(row_no)
        return there

    # -- erasing --------------------------------------------------------------------------------------------------

    def annotation_manifest(self, deletion_id: str) -> list[PlannedAnnotation]:
        with self._lock:
            deletion = self._deletions.get(deletion_id)
            return [] if deletion is None or deletion.settled else list(deletion.annotations or ())

    def _purge_annotations(self, deletion_id: str, deletion: Deletion, rows_max: int) -> dict[str, int]:
        mine = [line for line in deletion.annotations or () if self._annotations.hidden_by.get(line.row_no)]
        mine = [line for line in mine if self._annotations.hidden_by[line.row_no] == deletion_id]
        held = [line for line in mine if self._holders(line.row_no)]
        self._hand_annotations_over(deletion_id, held)
        deletion.annotations = sorted(set(deletion.annotations or ()) - set(held))
        hidden, changed, absent, kept = deletion.outcome
        deletion.outcome = HideOutcome(hidden - len(held), changed, absent, kept + len(held))
        free = [line for line in mine if line not in held]
        return {"annotation": sum(self._annotations.remove(line.row_no) for line in free[:rows_max])}

    def _count_annotations(self, lines: Iterable[PlannedAnnotation]) -> int:
        return sum(self._annotations.exists(line.row_no) for line in lines)


def leaves_of_annotations(salt: bytes, lines: Sequence[PlannedAnnotation]) -> list[bytes]:
    """The sorted leaves of a manifest of annotations."""
    return sorted(manifest_leaf(salt, project_id, name) for project_id, name in named(lines))


def _line(row: AnnotationRow) -> PlannedAnnotation:
    return PlannedAnnotation(row.row_no, row.project_id, row.annotation.annotation_id)


def _day_of(ns: int) -> str:
    return str(date(1970, 1, 1) + timedelta(days=ns // 86_400_000_000_000))
