"""Traces after a position, and sessions: the reader's part of sessions.SessionReader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import apsw
import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.sessions import (
    SessionPage,
    SessionRow,
    SessionTrace,
    TraceOrder,
    TracePosition,
    TraceWalk,
    grouped,
)
from clearspan.store.sqlite import select, textsearch
from clearspan.store.sqlite.rows import TRACE_COLUMNS, trace_row
from clearspan.store.sqlite.select import Entry, Plan
from clearspan.store.sqlite.span_finding import SpanFinding

_TRACE: Final = ", ".join(f"t.{name}" for name in SessionTrace._fields)
_PK_MAX: Final = 2**63 - 1


class SessionListing(SpanFinding):
    """Mixed into reader.SqliteReader."""

    _limited: Callable[[], AbstractContextManager[tuple[apsw.Connection, Callable[[], None]]]]

    def walk_traces(
        self,
        scope: Scope,
        where: Expr | None,
        window: Window,
        *,
        order: TraceOrder,
        after: TracePosition | None = None,
        skip: int = 0,
        limit: int,
    ) -> TraceWalk:
        """See SessionReader.walk_traces. Cost: what lies between the position and the last row that matches; of several
        projects what is skipped is held too, 0.2 KB a trace."""
        with self._limited() as (conn, check), textsearch.searching(conn, unlimited=True, check=check):
            found = _positions(conn, scope, where, window, order, after, skip, limit + 1)
            pks = [position.trace_pk for position in found[:limit]]
            columns = conn.execute(
                f"SELECT {TRACE_COLUMNS} FROM trace WHERE trace_pk IN (SELECT value FROM json_each(?))",
                (orjson.dumps(pks).decode(),),
            )
            rows = {values[0]: trace_row(values) for values in columns}
        return TraceWalk([rows[pk] for pk in pks], found[limit - 1] if len(found) > limit else None)

    def list_sessions(
        self, scope: Scope, *, descending: bool = False, after: int | None = None, limit: int
    ) -> SessionPage:
        """See SessionReader.list_sessions. Cost: the index entries of every trace of the scope that has a session,
        40 ms for 100,000, and the rows of the page's traces."""
        better, direction = ("<", "DESC") if descending else (">", "ASC")
        bound = after if after is not None else _PK_MAX if descending else -1
        found: list[tuple[int, int, str]] = []
        with self._limited() as (conn, _):
            for project_id, plan in _by_session(conn, scope):
                rows: Any = conn.execute(
                    f"SELECT min(t.trace_pk) AS first_pk, t.session_id FROM {plan.table} WHERE {plan.sql} "
                    f"GROUP BY t.session_id HAVING first_pk {better} ? ORDER BY first_pk {direction} LIMIT ?",
                    (*plan.params, bound, limit + 1),
                )
                found += [(first_pk, project_id, session_id) for first_pk, session_id in rows]
            found.sort(reverse=descending)
            wanted = [(project_id, session_id) for _, project_id, session_id in found[:limit]]
            sessions = {(each.project_id, each.session_id): each for each in _sessions(conn, scope, wanted)}
        return SessionPage([sessions[key] for key in wanted], found[limit - 1][0] if len(found) > limit else None)

    def find_sessions(self, scope: Scope, session_ids: Sequence[str]) -> list[SessionRow]:
        """See SessionReader.find_sessions. Cost: the rows of their traces."""
        with self._limited() as (conn, _):
            wanted = [(project_id, each) for project_id in scope.project_ids for each in session_ids]
            return _sessions(conn, scope, wanted)


def _by_session(conn: apsw.Connection, scope: Scope) -> list[tuple[int, Plan]]:
    any_hidden = _any_hidden(conn)
    return [
        (
            project_id,
            select.plan(
                scope, project_id, None, Window(), entry=Entry.INDEX, index="trace_by_session", any_hidden=any_hidden
            ),
        )
        for project_id in scope.project_ids
    ]


def _sessions(conn: apsw.Connection, scope: Scope, wanted: Sequence[tuple[int, str]]) -> list[SessionRow]:
    """Those of these (project_id, session_id) that are there."""
    traces: list[tuple[int, str, SessionTrace]] = []
    for project_id, plan in _by_session(conn, scope):
        ids = sorted({session_id for where, session_id in wanted if where == project_id})
        if not ids:
            continue
        rows: Any = conn.execute(
            f"SELECT t.session_id, {_TRACE} FROM {plan.table} WHERE {plan.sql} "
            "AND t.session_id IN (SELECT value FROM json_each(?))",
            (*plan.params, orjson.dumps(ids).decode()),
        )
        traces += [(project_id, session_id, SessionTrace._make(columns)) for session_id, *columns in rows]
    return grouped(traces)


def _positions(
    conn: apsw.Connection,
    scope: Scope,
    where: Expr | None,
    window: Window,
    order: TraceOrder,
    after: TracePosition | None,
    skip: int,
    limit: int,
) -> list[TracePosition]:
    key = "t.start_ns" if order.is_by_start else "t.duration_ns"
    better, direction = ("<", "DESC") if order.is_descending else (">", "ASC")
    beyond, params = "", ()
    if after is not None:
        # The first part is a range of the index, the second decides among those of one value.
        beyond = f" AND {key} {better}= ? AND ({key} {better} ? OR t.trace_pk {better} ?)"
        params = (after.value, *after)  # type: ignore[assignment]
    any_hidden = _any_hidden(conn)
    # Of several projects each may have all that is skipped.
    first, offset = (limit, skip) if len(scope.project_ids) == 1 else (skip + limit, 0)
    found: list[TracePosition] = []
    for project_id in scope.project_ids:
        entry, index = select.entry_of(conn, project_id, where)
        if index == "trace_by_start" and not order.is_by_start:
            index = "trace_by_duration"
        rare = select.rare_keys(conn, project_id, where)
        plan = select.plan(
            scope, project_id, where, window, entry=entry, index=index, any_hidden=any_hidden, rare_keys=rare
        )
        rows: Any = conn.execute(
            f"SELECT {key}, t.trace_pk FROM {plan.table} WHERE {plan.sql}{beyond} "
            f"ORDER BY {key} {direction}, t.trace_pk {direction} LIMIT ? OFFSET ?",
            (*plan.params, *params, first, offset),
        )
        found += [TracePosition._make(row) for row in rows]
    return sorted(found, reverse=order.is_descending)[skip - offset :][:limit]


def _any_hidden(conn: apsw.Connection) -> bool:
    return bool(conn.execute("SELECT EXISTS (SELECT 1 FROM hidden)").get)
