"""What becomes of planned traces: hit, held, no longer matching or absent. Reads only, in the caller's snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import apsw
import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr, conditions
from clearspan.query.fields import FieldType
from clearspan.store.port import HoldRow, PlannedTrace
from clearspan.store.span_deletion import any_span, parse_name
from clearspan.store.sqlite import holds, select, textsearch
from clearspan.store.sqlite.holds import CHUNK

NARROW_FROM = 200
"""So many traces pay for asking the text index first."""


_IN_PKS = "IN (SELECT value FROM json_each(?))"


class Question(NamedTuple):
    """What a hide asks of each planned trace."""

    scope: Scope
    where: Expr | None
    window: Window
    mine_no: int | None = None  # lines that this deletion hid already are hits without being asked again

    @property
    def searches_text(self) -> bool:
        """Whether an answer may need a trace's unpacked text."""
        return _searches_text(self.where)

    def is_slow(self, active: Sequence[HoldRow]) -> bool:
        """Whether an answer may take a millisecond a trace: the text is asked for here or by a hold."""
        return self.searches_text or any(_searches_text(hold.where) for hold in active)


def _searches_text(where: Expr | None) -> bool:
    return where is not None and any(part.field.type is FieldType.SEARCH for part in conditions(where))


class Judged(NamedTuple):
    """The answers, in the order of the lines."""

    hit: list[PlannedTrace]
    held: list[PlannedTrace]
    no_longer_matching: list[PlannedTrace]
    absent: list[PlannedTrace]


def judge(
    conn: apsw.Connection,
    question: Question,
    lines: Sequence[PlannedTrace],
    *,
    is_over: Callable[[], bool] = lambda: False,
) -> tuple[Judged, int]:
    """Judge lines in pieces until all are done or the time is over; at least one piece. Those of spans, which are few,
    are judged at once: one that is still in its trace is what the trace is, as long as it is there.

    Returns:
        The answers, and how many lines they are about.
    Cost: about 5 µs a line; a text search unpacks traces.
    """
    if any_span(lines):
        return _judge_spans(conn, question, lines), len(lines)
    return _judge_traces(conn, question, lines, is_over=is_over)


def _judge_spans(conn: apsw.Connection, question: Question, lines: Sequence[PlannedTrace]) -> Judged:
    mine = conn.execute(
        f"SELECT trace_pk FROM hidden WHERE trace_pk {_IN_PKS} AND deletion_no = ?",
        (orjson.dumps([line.trace_pk for line in lines]).decode(), question.mine_no),
    )
    cut_out = {pk for (pk,) in mine}
    own, places = [], []
    for line in lines:
        name = parse_name(line.trace_id)
        if name is None or line.trace_pk in cut_out:
            own.append(line)
            continue
        pk = conn.execute(
            "SELECT t.trace_pk FROM trace t CROSS JOIN span s USING (trace_pk) "
            "WHERE t.project_id = ? AND t.trace_id = ? AND s.span_id = ?",
            (line.project_id, *name),
        ).get
        places.append((line, None if pk is None else PlannedTrace(pk, line.project_id, name.trace_id)))
    judged, _ = _judge_traces(conn, question, own)
    of_wholes, _ = _judge_traces(conn, question, sorted({whole for _, whole in places if whole is not None}))
    for answers, wholes in zip(judged, of_wholes, strict=True):
        answers += [line for line, whole in places if whole in wholes]
    judged.absent.extend(line for line, whole in places if whole is None)
    return judged


def _judge_traces(
    conn: apsw.Connection,
    question: Question,
    lines: Sequence[PlannedTrace],
    *,
    is_over: Callable[[], bool] = lambda: False,
) -> tuple[Judged, int]:
    judged = Judged([], [], [], [])
    active = holds.rows(conn)
    done = 0
    with textsearch.searching(conn, unlimited=True, narrow=len(lines) >= NARROW_FROM):
        for piece in _pieces(lines, CHUNK // 10 if question.is_slow(active) else CHUNK):
            if done and is_over():
                break
            _judge_piece(conn, question, piece, judged, active)
            done += len(piece)
    return judged, done


def _judge_piece(
    conn: apsw.Connection,
    question: Question,
    piece: Sequence[PlannedTrace],
    judged: Judged,
    active: Sequence[HoldRow],
) -> None:
    pks = orjson.dumps([line.trace_pk for line in piece]).decode()
    hidden_rows: list[Any] = conn.execute(
        f"SELECT trace_pk, deletion_no FROM hidden WHERE trace_pk {_IN_PKS}", (pks,)
    ).fetchall()
    hidden: dict[int, int] = dict(hidden_rows)
    there = {pk for (pk,) in conn.execute(f"SELECT trace_pk FROM trace WHERE trace_pk {_IN_PKS}", (pks,))}
    matching = _matching(conn, question, piece)
    free: list[PlannedTrace] = []
    for line in piece:
        hider = hidden.get(line.trace_pk)
        if line.trace_pk not in there or hider not in (None, question.mine_no):
            judged.absent.append(line)
        elif hider is None and line.trace_pk not in matching:
            judged.no_longer_matching.append(line)
        else:
            free.append(line)
    kept = holds.kept(conn, active, [line.trace_pk for line in free])
    for line in free:
        (judged.held if line.trace_pk in kept else judged.hit).append(line)


def _matching(conn: apsw.Connection, question: Question, piece: Sequence[PlannedTrace]) -> set[int]:
    by_project: dict[int, list[int]] = {}
    for line in piece:
        by_project.setdefault(line.project_id, []).append(line.trace_pk)
    found: set[int] = set()
    for project_id in by_project.keys() & set(question.scope.project_ids):
        plan = select.plan(
            question.scope,
            project_id,
            question.where,
            question.window,
            entry=select.Entry.GIVEN,
            any_hidden=False,
        )
        rows = conn.execute(
            f"SELECT t.trace_pk FROM {plan.table} WHERE t.trace_pk {_IN_PKS} AND {plan.sql}",
            (orjson.dumps(by_project[project_id]).decode(), *plan.params),
        )
        found.update(pk for (pk,) in rows)
    return found


def _pieces(lines: Sequence[PlannedTrace], size: int) -> Iterator[Sequence[PlannedTrace]]:
    for start in range(0, len(lines), size):
        yield lines[start : start + size]
