"""The store contract for annotations; `store.sqlite` and `store.memory` pass one conformance suite.

An annotation of a trace shares its fate: hidden with it, purged with it, refused by its tombstone inside the
writer's transaction (counted as late data of that deletion). One whose target has not arrived yet waits, is not lost
and is not shown in lists by filter; it is attached in the transaction that brings its trace and its span. One that
waits for a span of a trace that is there belongs to that trace already.

An annotation of a session is shown while a trace of the session is; it is purged by the transaction that purges the
last one, and waits again if the traces leave the session otherwise. One of a project stays as long as the project.
A scope with an environment sees what belongs to a trace (or to a session with a trace) of that environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.trace import Scope, Window


class AnnotationWrite(NamedTuple):
    """One annotation to write.

    `project_ids` are the projects in which its target may live, the likeliest first: the first that holds the target
    gets it; if none does it waits for it in all of them, unless a tombstone of any of them refuses it. Whoever knows
    the trace of a span says so: without a trace_id it is not looked for, but waits until its span arrives (again).
    With NEW_PROJECTS as the last of them it waits in projects, too, that `widen_waiting` names later.
    """

    project_ids: tuple[int, ...]
    annotation: Annotation
    must_exist: bool = False  # True: refuse instead of waiting when there is no such target


NEW_PROJECTS: Final = 0
"""No project's number: stands for those that the organisation makes later."""


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
    key_ids: tuple[str, ...] = ()
    has_comment: bool | None = None
    has_score: bool | None = None
    created: Window = Window()  # of created_ns, half-open


class AnnotationChange(NamedTuple):
    """What to change of one annotation. Fields of Annotation by name; those that are not named stay."""

    fields: Mapping[str, object]  # of CHANGEABLE
    extra: Mapping[str, object]  # laid over `extra` key by key; None removes a key
    updated_ns: int
    key_id: str | None
    user_id: str | None


CHANGEABLE: Final = frozenset({"label", "score", "explanation", "value", "correction", "metadata", "kind"})
"""Fields that a change may name; the others are the annotation's key, or say who gave it and when."""


class AnnotationFigures(NamedTuple):
    """What an operator may want to know."""

    waiting: int  # annotations whose target is not there
    expired: int  # removed so far because their target never came


class AnnotationRow(NamedTuple):
    """A stored annotation; `row_no` grows with creation and is never handed out twice."""

    row_no: int
    project_id: int
    annotation: Annotation
    is_waiting: bool


class ScoreRow(NamedTuple):
    """What an annotation says of a trace or of its root span, as far as figures over many traces take it."""

    trace_pk: int
    name: str
    score: float | None
    label: str | None
    value: bytes | None
    metadata: bytes | None


class AnnotationReader(Protocol):
    """Read side. Rows of hidden traces do not exist."""

    def list_annotations(
        self, scope: Scope, query: AnnotationQuery, *, before_row: int | None = None, offset: int = 0, limit: int
    ) -> list[AnnotationRow]:
        """Newest row first; `before_row` or `offset` continue. Those that wait only if asked for by their ids."""
        ...

    def annotations_of(self, trace_pks: Sequence[int]) -> dict[int, list[AnnotationRow]]:
        """trace_pk → every annotation of that trace, its spans and documents, oldest first; traces without any are
        left out."""
        ...

    def annotation_figures(self) -> AnnotationFigures:
        """Over all organisations."""
        ...


class AnnotationWriter(Protocol):
    """Write side."""

    def put_annotations(self, writes: Sequence[AnnotationWrite], *, received_ns: int) -> list[AnnotationOutcome]:
        """Store all of them in one durable transaction; outcomes in their order. Of two with one key in one call the
        later wins and both get its id. One whose id is taken in its projects moves that row to its own key. With
        `must_exist` on any target that is missing or was deleted, nothing of the call is stored."""
        ...

    def patch_annotation(self, scope: Scope, annotation_id: str, change: AnnotationChange) -> AnnotationRow | None:
        """Change an annotation that the scope shows, in one durable transaction; as it is then. None: there is none."""
        ...

    def purge_project_annotations(self, project_id: int) -> int:
        """Remove what was said of a project that is gone, and what waits in it, files too: everything that no trace
        takes with it.

        Returns:
            How many were removed.
        """
        ...

    def widen_waiting(self, project_ids: Sequence[int]) -> int:
        """Let what waits in one of these projects and in NEW_PROJECTS wait in all of them; attach what came already.

        Args:
            project_ids: all projects of one organisation.
        Returns:
            How many annotations it was news to.
        """
        ...

    def expire_annotations(self, before_ns: int) -> int:
        """Remove what has waited for its target since before `before_ns`, count it for good, and leave no bytes of it.

        Returns:
            How many were removed; at most EXPIRE_MAX in one call.
        """
        ...


EXPIRE_MAX = 1_000
"""Waiting annotations that one transaction removes at most."""
