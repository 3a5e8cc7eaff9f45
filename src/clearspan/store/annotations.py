"""The store contract for annotations; `store.sqlite` and `store.memory` pass one conformance suite.

An annotation of a trace shares its fate: hidden with it, purged with it, refused by its tombstone inside the
writer's transaction (counted as late data of that deletion). One whose target has not arrived yet waits, is not lost
and is not shown in lists by filter; it is attached in the transaction that brings its trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.trace import Scope, Window


class AnnotationWrite(NamedTuple):
    """One annotation to write.

    `project_ids` are the projects in which its target may live, the likeliest first: the first that holds the target
    gets it; if none does it waits in the first, unless a tombstone of any of them refuses it.
    """

    project_ids: tuple[int, ...]
    annotation: Annotation
    must_exist: bool = False  # True: refuse instead of waiting when there is no such target


class AnnotationOutcome(NamedTuple):
    """What became of one AnnotationWrite: exactly one of the flags' cases."""

    annotation_id: str  # of the row that now holds the key: an older one's, if it was there
    project_id: int | None  # None: not stored
    is_waiting: bool = False
    is_missing: bool = False  # must_exist, and there is no such target
    deletion_id: str | None = None  # whose tombstone refused it


class AnnotationQuery(NamedTuple):
    """All given conditions hold; None or empty means: not asked for."""

    targets: tuple[AnnotationTarget, ...] = ()
    annotation_ids: tuple[str, ...] = ()
    trace_ids: tuple[str, ...] = ()
    span_ids: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    names_not: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    kinds: tuple[AnnotatorKind, ...] = ()
    sources: tuple[str, ...] = ()
    user_ids: tuple[str, ...] = ()
    has_comment: bool | None = None
    has_score: bool | None = None
    created: Window = Window()  # of created_ns, half-open


class AnnotationRow(NamedTuple):
    """A stored annotation; `row_no` grows with creation and is never handed out twice."""

    row_no: int
    project_id: int
    annotation: Annotation
    is_waiting: bool


class AnnotationStats(NamedTuple):
    """Of one name over some target."""

    n: int
    score_n: int
    score_sum: float
    score_sum_squares: float
    labels: dict[str, int]


class AnnotationReader(Protocol):
    """Read side. Rows of hidden traces do not exist."""

    def list_annotations(
        self, scope: Scope, query: AnnotationQuery, *, before_row: int | None = None, offset: int = 0, limit: int
    ) -> list[AnnotationRow]:
        """Newest row first; `before_row` or `offset` continue."""
        ...

    def annotations_of(self, trace_pks: Sequence[int]) -> dict[int, list[AnnotationRow]]:
        """trace_pk → every annotation of that trace, its spans and documents; traces without any are left out."""
        ...


class AnnotationWriter(Protocol):
    """Write side."""

    def put_annotations(self, writes: Sequence[AnnotationWrite], *, received_ns: int) -> list[AnnotationOutcome]:
        """Store all of them in one durable transaction; outcomes in their order. Of two with one key in one call the
        later wins and both get its id. With `must_exist` on any missing target, nothing of the call is stored."""
        ...
