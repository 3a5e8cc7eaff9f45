"""Deleting annotations by themselves, as the server sees the embedded store: see annotation_deletion.py."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import Any, Protocol, TypeVar

import apsw
import orjson

from clearspan.model.errors import Conflict, Overloaded
from clearspan.model.trace import Scope
from clearspan.query.compile_condition import HIDDEN_ANNOTATION
from clearspan.store.annotation_deletion import PlannedAnnotation
from clearspan.store.annotations import AnnotationQuery, AnnotationRow
from clearspan.store.port import SUMMARIES_MAX, Breakdown, HideOutcome
from clearspan.store.sqlite import annotation_hiding, annotation_listing, hiding, holds
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite.annotation_hiding import SLICE
from clearspan.store.sqlite.annotation_judge import AnnotationQuestion, judge, kept
from clearspan.store.sqlite.annotation_rows import ROW_COLUMNS, row_of
from clearspan.store.sqlite.reader import SqliteReader

STAGE_TRIES = 5
REFRESHES_MAX = 50
_Item = TypeVar("_Item")
_DAY_NS = 86_400_000_000_000
_SHOWS = f"NOT {HIDDEN_ANNOTATION} AND (a.trace_pk IS NULL OR a.trace_pk NOT IN (SELECT trace_pk FROM hidden))"


class Caller(Protocol):
    """The writer, wherever it runs."""

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Run a method of process.Service."""
        ...


class SqliteAnnotationDeletions:
    """annotation_deletion.AnnotationDeletionStore; a part of SqliteDeletionStore. Safe to call from many threads."""

    def __init__(self, reader: SqliteReader, caller: Caller) -> None:
        self.direct_max = hiding.SLICE
        """A larger manifest is staged."""
        self._annotation_reader = reader
        self._annotation_caller = caller
        self._hiding_annotations = threading.Lock()  # one hide or let-go of annotations at a time

    # -- planning -------------------------------------------------------------------------------------------------

    def plan_annotations(self, scope: Scope, query: AnnotationQuery, *, limit: int) -> list[PlannedAnnotation]:
        """See AnnotationDeletionStore.plan_annotations. Cost: 10 µs for each that the narrowest condition finds."""
        if not scope.project_ids:
            return []
        parts, params = annotation_listing.matching(scope, query)
        sql = (
            f"SELECT a.annotation_no, a.project_id, a.annotation_id FROM annotation a "
            f"{annotation_listing.entry_of(scope, query)} WHERE {' AND '.join(parts)} ORDER BY 1 LIMIT :limit"
        )
        with self._annotation_reader.snapshot() as conn:
            return [PlannedAnnotation._make(row) for row in conn.execute(sql, params | {"limit": limit + 1})]

    def count_annotations(self, scope: Scope) -> int:
        if not scope.project_ids:
            return 0
        parts, params = annotation_listing.matching(scope, AnnotationQuery())
        entry = annotation_listing.entry_of(scope, AnnotationQuery())
        with self._annotation_reader.snapshot() as conn:
            found = conn.execute(f"SELECT count(*) FROM annotation a {entry} WHERE {' AND '.join(parts)}", params)
            return int(found.get)

    def annotations_held(self, row_nos: Sequence[int]) -> dict[str, int]:
        numbers = sorted(set(row_nos))
        with self._annotation_reader.snapshot() as conn:
            counts = {
                hold.hold_id: sum(len(kept(conn, [hold], chunk)) for chunk in _chunks(numbers))
                for hold in holds.rows(conn)
            }
        return {hold_id: count for hold_id, count in counts.items() if count}

    def annotations_held_among(self, row_nos: Sequence[int]) -> int:
        with self._annotation_reader.snapshot() as conn:
            active = holds.rows(conn)
            return sum(len(kept(conn, active, chunk)) for chunk in _chunks(sorted(set(row_nos))))

    def annotation_samples(self, row_nos: Sequence[int]) -> list[AnnotationRow]:
        with self._annotation_reader.snapshot() as conn:
            found = conn.execute(
                f"SELECT {ROW_COLUMNS} FROM json_each(?) AS w CROSS JOIN annotation a ON a.annotation_no = w.value "
                f"WHERE {_SHOWS} ORDER BY a.annotation_no",
                (_json(row_nos[:SUMMARIES_MAX]),),
            )
            return [row_of(values) for values in found]

    def annotation_breakdown(self, row_nos: Sequence[int]) -> Breakdown:
        days: Counter[int] = Counter()
        projects: Counter[int] = Counter()
        with self._annotation_reader.snapshot() as conn:
            for chunk in _chunks(sorted(set(row_nos))):
                for project_id, created_ns in conn.execute(
                    "SELECT a.project_id, a.created_ns FROM json_each(?) AS w "
                    f"CROSS JOIN annotation a ON a.annotation_no = w.value WHERE {_SHOWS}",
                    (_json(chunk),),
                ):
                    projects[project_id] += 1
                    days[created_ns // _DAY_NS] += 1
        epoch = date(1970, 1, 1)
        return Breakdown({str(epoch + timedelta(days=day)): n for day, n in sorted(days.items())}, dict(projects))

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
        """See AnnotationDeletionStore.hide_annotations. Cost: 20 to 40 µs each, in short transactions."""
        question = AnnotationQuestion(scope, query)
        call = self._annotation_caller.call
        with self._hiding_annotations:
            if len(manifest) <= self.direct_max:
                outcome: HideOutcome = call(
                    "hide_annotations",
                    deletion_id,
                    question,
                    list(manifest),
                    request,
                    manifest_salt,
                    exact,
                    preview_key,
                )
                return outcome
            for _ in range(STAGE_TRIES):
                try:
                    staged = self._stage_annotations(
                        deletion_id, question, manifest, request, (manifest_salt, exact, preview_key)
                    )
                except Exception:
                    with suppress(Exception):  # what is left of it counts for nothing, and goes at the next start
                        self._drop_annotation_stage()
                    raise
                if staged is not None:
                    return staged
        raise Overloaded("Holds keep being set; nothing was deleted. Try again.")

    def _stage_annotations(
        self,
        deletion_id: str,
        question: AnnotationQuestion,
        manifest: Sequence[PlannedAnnotation],
        request: bytes,
        conditions: tuple[bytes, bool, bytes | None],
    ) -> HideOutcome | None:
        """Stage and activate a large hide; None: a hold was set meanwhile."""
        call = self._annotation_caller.call
        _, exact, preview_key = conditions
        self._drop_annotation_stage()
        begun: HideOutcome | list[str] = call("annotation_stage_begin", deletion_id, preview_key)
        if isinstance(begun, HideOutcome):
            return begun
        for chunk in _chunks(sorted(manifest)):
            judged: HideOutcome = call("annotation_stage_lines", deletion_id, question, chunk)
            rows.check_exact(exact, judged)
        for _ in range(REFRESHES_MAX):
            if not call("annotation_stage_refresh", deletion_id, question):
                break
        outcome: HideOutcome | None = call(
            "annotation_stage_activate", deletion_id, question, request, begun, *conditions
        )
        return outcome

    def _drop_annotation_stage(self) -> None:
        while self._annotation_caller.call("annotation_stage_drop"):
            pass

    def hide_annotation_child(self, deletion_id: str, scope: Scope, query: AnnotationQuery) -> HideOutcome | None:
        question = AnnotationQuestion(scope, query)
        with self._hiding_annotations:
            with self._annotation_reader.snapshot() as conn:
                row = rows.known(conn, deletion_id)
                if row.phase == rows.CANCELLED:
                    raise Conflict("This deletion was cancelled.", code="cancelled")
                if row.phase != rows.WAITING:
                    return row.outcome
                if not hiding.may_go(conn, row) or not _any_can_go(conn, row, question):
                    return None
            above = -1
            outcome: HideOutcome | None = None
            while outcome is None:
                above, outcome = self._annotation_caller.call(
                    "hide_annotation_child_slice", deletion_id, question, above
                )
            return outcome

    def annotation_manifest(self, deletion_id: str) -> list[PlannedAnnotation]:
        with self._annotation_reader.snapshot() as conn:
            row = rows.find(conn, deletion_id)
            if row is None or row.settled or row.phase == rows.CANCELLED:
                return []
            return annotation_hiding.manifest_lines(conn, row.deletion_no)


def _any_can_go(conn: apsw.Connection, row: rows.DeletionRow, question: AnnotationQuestion) -> bool:
    """Whether a waiting child can hide anything, or has nothing that is held."""
    any_held = False
    for chunk in _chunks(annotation_hiding.manifest_lines(conn, row.deletion_no)):
        judged = judge(conn, question._replace(mine_no=row.deletion_no), chunk)
        if judged.hit:
            return True
        any_held = any_held or bool(judged.held)
    return not any_held


def _json(numbers: Sequence[int]) -> str:
    return orjson.dumps(list(numbers)).decode()


def _chunks(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    for start in range(0, len(items), SLICE):
        yield list(items[start : start + SLICE])
