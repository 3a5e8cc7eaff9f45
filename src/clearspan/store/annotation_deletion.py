"""The store contract for deleting annotations by themselves: a part of port.DeletionStore.

A deletion is of one kind for life: it lists traces or annotations. `progress`, `cancel`, `leaves`, `purge_batch`,
`purge_survivors`, `settle` and `remaining` serve both kinds; of a deletion of annotations `manifest` is empty.

A hidden annotation does not exist for any read, nor for filters that ask for annotations. No tombstone is left: the
same thing may be said again at any time. What is written after the hide, be it under the same key or id, is another
row, and the deletion does not take it. An annotation is held where its trace is held; one of a session where a trace
of the session is; one without a trace where a hold keeps everything of its project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from clearspan.model.trace import Scope
from clearspan.store.annotations import AnnotationQuery, AnnotationRow

if TYPE_CHECKING:
    from clearspan.store.port import Breakdown, HideOutcome


class PlannedAnnotation(NamedTuple):
    """One line of a manifest of annotations."""

    row_no: int
    project_id: int
    annotation_id: str


def named(lines: Sequence[PlannedAnnotation]) -> list[tuple[int, str]]:
    """What the leaves of a manifest of annotations are made of, as those of traces are of (project, trace)."""
    return [(line.project_id, f"annotation:{line.annotation_id}") for line in lines]


class AnnotationDeletionStore(Protocol):
    """Deletion of annotations. Counts of a HideOutcome are annotations here."""

    def plan_annotations(self, scope: Scope, query: AnnotationQuery, *, limit: int) -> list[PlannedAnnotation]:
        """At most `limit` + 1 annotations that match and show, those that wait included, sorted by row_no."""
        ...

    def count_annotations(self, scope: Scope) -> int:
        """How many annotations show in that scope, those that wait included. Cost O(annotations of its projects)."""
        ...

    def annotations_held(self, row_nos: Sequence[int]) -> dict[str, int]:
        """hold_id → how many of those annotations it keeps; holds that keep none are left out."""
        ...

    def annotations_held_among(self, row_nos: Sequence[int]) -> int:
        """How many of those annotations some hold keeps."""
        ...

    def annotation_samples(self, row_nos: Sequence[int]) -> list[AnnotationRow]:
        """Those of the first SUMMARIES_MAX of the annotations that show, by row_no."""
        ...

    def annotation_breakdown(self, row_nos: Sequence[int]) -> Breakdown:
        """Counts, by day of creation and by project, of those of the annotations that show."""
        ...

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
        """As port.DeletionStore.hide, of annotations. Raises Conflict as it does."""
        ...

    def hide_annotation_child(self, deletion_id: str, scope: Scope, query: AnnotationQuery) -> HideOutcome | None:
        """As port.DeletionStore.hide_child, of annotations."""
        ...

    def annotation_manifest(self, deletion_id: str) -> list[PlannedAnnotation]:
        """As port.DeletionStore.manifest, of annotations."""
        ...
