"""What becomes of planned annotations: hit, held, no longer matching or absent. Reads only, in a snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw
import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.compile_condition import HIDDEN_ANNOTATION
from clearspan.store.annotation_deletion import PlannedAnnotation
from clearspan.store.annotations import AnnotationQuery
from clearspan.store.port import HideOutcome, HoldRow
from clearspan.store.sqlite import annotation_listing, holds

_AMONG = "json_each(:numbers) AS w CROSS JOIN annotation a NOT INDEXED ON a.annotation_no = w.value"


class AnnotationQuestion(NamedTuple):
    """What a hide asks of each planned annotation."""

    scope: Scope
    query: AnnotationQuery
    mine_no: int | None = None  # lines that this deletion hid already are hits without being asked again


class Judged(NamedTuple):
    """The answers, in the order of the lines."""

    hit: list[PlannedAnnotation]
    held: list[PlannedAnnotation]
    no_longer_matching: int
    absent: int

    @property
    def outcome(self) -> HideOutcome:
        return HideOutcome(len(self.hit), self.no_longer_matching, self.absent, len(self.held))


def judge(conn: apsw.Connection, question: AnnotationQuestion, lines: Sequence[PlannedAnnotation]) -> Judged:
    """Judge lines. Cost: about 10 µs a line, and what active holds cost."""
    numbers = [line.row_no for line in lines]
    # By the number alone: an annotation that has changed is there, whatever project and scope it has now.
    there = {
        number
        for (number,) in conn.execute(
            f"SELECT a.annotation_no FROM {_AMONG} WHERE NOT {HIDDEN_ANNOTATION} "
            "AND (a.trace_pk IS NULL OR a.trace_pk NOT IN (SELECT trace_pk FROM hidden))",
            {"numbers": orjson.dumps(numbers).decode()},
        )
    }
    mine = _marked(conn, question.mine_no, numbers)
    matching = _matching(conn, question, numbers)
    free = [line for line in lines if line.row_no in mine or line.row_no in there & matching]
    absent = sum(line.row_no not in there and line.row_no not in mine for line in lines)
    held = kept(conn, holds.rows(conn), [line.row_no for line in free])
    return Judged(
        [line for line in free if line.row_no not in held],
        [line for line in free if line.row_no in held],
        len(lines) - len(free) - absent,
        absent,
    )


def _matching(conn: apsw.Connection, question: AnnotationQuestion, numbers: Sequence[int]) -> set[int]:
    parts, params = annotation_listing.matching(question.scope, question.query)
    found = conn.execute(
        f"SELECT a.annotation_no FROM {_AMONG} WHERE {' AND '.join(parts)}",
        params | {"numbers": orjson.dumps(numbers).decode()},
    )
    return {number for (number,) in found}


def _marked(conn: apsw.Connection, deletion_no: int | None, numbers: Sequence[int]) -> set[int]:
    found = conn.execute(
        "SELECT annotation_no FROM hidden_annotation WHERE deletion_no = ? "
        "AND annotation_no IN (SELECT value FROM json_each(?)) "
        "AND annotation_no IN (SELECT annotation_no FROM annotation)",
        (deletion_no, orjson.dumps(numbers).decode()),
    )
    return {number for (number,) in found}


def kept(conn: apsw.Connection, active: Sequence[HoldRow], numbers: Sequence[int]) -> set[int]:
    """Those of the annotations, hidden or not, that some of the holds covers."""
    found: set[int] = set()
    if not active:
        return found
    whole = {project_id for hold in active if _is_of_everything(hold) for project_id in hold.scope.project_ids}
    of_trace: defaultdict[int, list[int]] = defaultdict(list)
    rows: list[Any] = conn.execute(
        "SELECT a.annotation_no, a.project_id, a.trace_pk, a.session_id FROM json_each(?) AS w "
        "CROSS JOIN annotation a ON a.annotation_no = w.value",
        (orjson.dumps(list(numbers)).decode(),),
    ).fetchall()
    for number, project_id, trace_pk, session_id in rows:
        pks = [trace_pk] if trace_pk is not None else _traces_of_session(conn, project_id, session_id)
        if not pks and project_id in whole:
            found.add(number)
        for pk in pks:
            of_trace[pk].append(number)
    for pk in holds.kept(conn, active, sorted(of_trace)):
        found.update(of_trace[pk])
    return found


def _is_of_everything(hold: HoldRow) -> bool:
    return hold.where is None and hold.trace_ids is None and hold.window == Window() and hold.scope.environment is None


def _traces_of_session(conn: apsw.Connection, project_id: int, session_id: str | None) -> list[int]:
    if session_id is None:
        return []
    found = conn.execute("SELECT trace_pk FROM trace WHERE project_id = ? AND session_id = ?", (project_id, session_id))
    return [pk for (pk,) in found]
