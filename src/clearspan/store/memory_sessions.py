"""Traces after a position, and sessions, in the in-memory store: obvious, not fast."""

from __future__ import annotations

from collections.abc import Sequence

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.memory_deleting import DeletingMemory
from clearspan.store.port import TraceRow
from clearspan.store.sessions import (
    SessionPage,
    SessionRow,
    SessionTrace,
    TraceOrder,
    TracePosition,
    TraceWalk,
    grouped,
)


class SessionMemory(DeletingMemory):
    """sessions.SessionReader over dictionaries."""

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
        """See SessionReader.walk_traces."""
        with self._lock:
            found = [(_position(trace.row, order), trace.row) for trace in self._matching(scope, where, window)]
        found.sort(key=lambda each: each[0], reverse=order.is_descending)
        if after is not None:
            found = [each for each in found if (each[0] < after if order.is_descending else each[0] > after)]
        found = found[skip:]
        # Lists leave `metadata_all` out.
        rows = [row._replace(summary=row.summary._replace(metadata_all=())) for _, row in found[:limit]]
        return TraceWalk(rows, found[limit - 1][0] if len(found) > limit else None)

    def list_sessions(
        self, scope: Scope, *, descending: bool = False, after: int | None = None, limit: int
    ) -> SessionPage:
        """See SessionReader.list_sessions."""
        found = sorted(self._sessions(scope), key=lambda each: each.first_pk, reverse=descending)
        if after is not None:
            found = [each for each in found if (each.first_pk < after if descending else each.first_pk > after)]
        return SessionPage(found[:limit], found[limit - 1].first_pk if len(found) > limit else None)

    def find_sessions(self, scope: Scope, session_ids: Sequence[str]) -> list[SessionRow]:
        """See SessionReader.find_sessions."""
        return [each for each in self._sessions(scope) if each.session_id in session_ids]

    def _sessions(self, scope: Scope) -> list[SessionRow]:
        with self._lock:
            rows = [trace.row for trace in self._matching(scope, None, Window())]
        return grouped(
            (row.project_id, row.summary.session_id, _trace(row)) for row in rows if row.summary.session_id is not None
        )


def _position(row: TraceRow, order: TraceOrder) -> TracePosition:
    return TracePosition(row.summary.start_ns if order.is_by_start else row.summary.duration_ns, row.trace_pk)


def _trace(row: TraceRow) -> SessionTrace:
    told = row.summary
    return SessionTrace(
        row.trace_pk, told.trace_id, told.start_ns, told.end_ns, told.error_count, told.llm_call_count,
        told.prompt_tokens, told.completion_tokens, told.total_tokens, told.cost_pico,
    )  # fmt: skip
