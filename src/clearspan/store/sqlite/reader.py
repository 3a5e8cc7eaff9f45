"""The read side of traces.db: each call is one snapshot on a connection of the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw
import orjson

from clearspan.ingest.payload import Block, decode_block, record_bytes, records_by_id
from clearspan.model.span import LogRecord, SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.port import LogDetail, PlannedTrace, SpanDetail, TraceDetail, TracePage, TraceRow, TraceSums
from clearspan.store.sqlite import textsearch
from clearspan.store.sqlite.rows import (
    HOUR_NS,
    LOG_COLUMNS,
    SPAN_COLUMNS,
    TRACE_COLUMNS,
    block_range,
    context_of,
    span_of,
    trace_row,
)
from clearspan.store.sqlite.select import Selection, selection

_WIDE_SHARE = 0.25
"""A window that keeps more than this share of a project's traces is tested row by row, not used as an index."""


class SqliteReader:
    """port.TraceReader over traces.db; safe for many threads, each of which gets its own connection."""

    def __init__(self, open_connection: Callable[[], apsw.Connection]) -> None:
        """
        Args:
            open_connection: makes a read-only connection (files.vfs.open_reader).
        """
        self._open = open_connection
        self._local = threading.local()
        self._all: list[apsw.Connection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection; call after the reading threads have ended."""
        with self._lock:
            for conn in self._all:
                conn.close()
            self._all.clear()
            self._local = threading.local()

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """This thread's connection inside one read transaction."""
        conn = getattr(self._local, "conn", None)
        if conn is None:
            conn = self._local.conn = self._open()
            textsearch.register(conn)
            with self._lock:
                self._all.append(conn)
        conn.execute("BEGIN")
        try:
            yield conn
        finally:
            conn.execute("ROLLBACK")

    def list_traces(
        self, scope: Scope, where: Expr | None, window: Window, sort: SortKey, page: OffsetPage
    ) -> TracePage:
        if not scope.project_ids:
            return TracePage([], 0)
        with self.snapshot() as conn, textsearch.narrowed(conn, where) as search:
            total, exact = self._total(conn, scope, where, window)
            if total <= page.offset and exact:
                return TracePage([], total)
            pks = _page_pks(conn, scope, where, window, sort, page)
            return TracePage(_rows_of(conn, pks), total, exact and not search.gave_up)

    def count_traces(self, scope: Scope, where: Expr | None, window: Window) -> int:
        if not scope.project_ids:
            return 0
        with self.snapshot() as conn, textsearch.narrowed(conn, where, unlimited=True):
            return self._total(conn, scope, where, window)[0]

    def sum_traces(self, scope: Scope, where: Expr | None, window: Window) -> TraceSums:
        if not scope.project_ids:
            return TraceSums(0, 0, 0, None, None)
        with self.snapshot() as conn, textsearch.narrowed(conn, where, unlimited=True):
            matches = _selection(conn, scope, where, window)
            found = conn.execute(
                "SELECT count(*), coalesce(sum(t.error_count), 0), coalesce(sum(t.duration_ns), 0), "
                f"sum(t.total_tokens), sum(t.cost_pico) FROM trace t WHERE {matches.sql}",
                matches.params,
            ).fetchone()
            assert found is not None, "an aggregate always has a row"
            return TraceSums._make(found)

    def _total(self, conn: apsw.Connection, scope: Scope, where: Expr | None, window: Window) -> tuple[int, bool]:
        """How many match, and whether that is exact (a text search may stop early)."""
        if where is None:
            return count_visible(conn, scope, window), True
        matches = _selection(conn, scope, where, window)
        try:
            return conn.execute(f"SELECT count(*) FROM trace t WHERE {matches.sql}", matches.params).get, True
        except textsearch.GaveUp as stopped:
            return stopped.found, False

    def get_trace(self, scope: Scope, trace_id: str) -> TraceDetail | None:
        with self.snapshot() as conn:
            values = conn.execute(
                f"SELECT {TRACE_COLUMNS} FROM trace WHERE project_id IN (SELECT value FROM json_each(?)) "
                "AND trace_id = ? AND (?3 IS NULL OR environment = ?3) "
                "AND trace_pk NOT IN (SELECT trace_pk FROM hidden) ORDER BY received_ns DESC, trace_pk DESC LIMIT 1",
                (orjson.dumps(scope.project_ids).decode(), trace_id, scope.environment),
            ).fetchone()
            return None if values is None else _detail(conn, values)

    def root_records(self, rows: Sequence[TraceRow]) -> dict[int, tuple[bytes | None, list[bytes]]]:
        with self.snapshot() as conn:
            return {row.trace_pk: _root_record(conn, row) for row in rows}

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        """See port.DeletionStore.plan."""
        if not scope.project_ids:
            return []
        with self.snapshot() as conn, textsearch.narrowed(conn, where, unlimited=True):
            matches = _selection(conn, scope, where, window)
            found = conn.execute(
                "SELECT t.trace_pk, t.project_id, t.trace_id FROM trace t "
                f"WHERE {matches.sql} AND t.received_ns < ? ORDER BY t.trace_pk LIMIT ?",
                (*matches.params, received_before_ns, limit + 1),
            )
            return [PlannedTrace._make(row) for row in found]

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        """See port.DeletionStore.plan_ids."""
        if not scope.project_ids:
            return []
        with self.snapshot() as conn:
            matches = selection(scope, None, window, by_start=False)
            found = conn.execute(
                "SELECT t.trace_pk, t.project_id, t.trace_id FROM trace t "
                f"WHERE t.trace_id IN (SELECT value FROM json_each(?)) AND {matches.sql} ORDER BY t.trace_pk",
                (orjson.dumps(trace_ids).decode(), *matches.params),
            )
            return [PlannedTrace._make(row) for row in found]


def count_visible(conn: apsw.Connection, scope: Scope, window: Window) -> int:
    """Exactly how many visible traces start in a window: whole hours from the counters, the edges from the index."""
    first = None if window.start_ns is None else -(-window.start_ns // HOUR_NS)  # the first hour wholly inside
    last = None if window.end_ns is None else window.end_ns // HOUR_NS  # the first hour not wholly inside
    if first is not None and last is not None and first >= last:
        return _count_rows(conn, scope, window)
    total = conn.execute(
        "SELECT coalesce(sum(traces), 0) FROM trace_count WHERE project_id IN (SELECT value FROM json_each(?1)) "
        "AND (?2 IS NULL OR environment = ?2) AND (?3 IS NULL OR hour >= ?3) AND (?4 IS NULL OR hour < ?4)",
        (orjson.dumps(scope.project_ids).decode(), scope.environment, first, last),
    ).get
    if first is not None and first * HOUR_NS != window.start_ns:
        total += _count_rows(conn, scope, Window(window.start_ns, first * HOUR_NS))
    if last is not None and last * HOUR_NS != window.end_ns:
        total += _count_rows(conn, scope, Window(last * HOUR_NS, window.end_ns))
    return int(total)


def _count_rows(conn: apsw.Connection, scope: Scope, window: Window) -> int:
    matches = selection(scope, None, window, any_hidden=_any_hidden(conn))
    return int(conn.execute(f"SELECT count(*) FROM trace t WHERE {matches.sql}", matches.params).get)


def _any_hidden(conn: apsw.Connection) -> bool:
    return bool(conn.execute("SELECT EXISTS (SELECT 1 FROM hidden)").get)


def _selection(conn: apsw.Connection, scope: Scope, where: Expr | None, window: Window) -> Selection:
    """The WHERE of one query, its window used as an index only where that leaves little to read."""
    by_start = True
    if window != Window() and count_visible(conn, scope, window) > _WIDE_SHARE * count_visible(conn, scope, Window()):
        by_start = False
    return selection(scope, where, window, any_hidden=_any_hidden(conn), by_start=by_start)


def _page_pks(
    conn: apsw.Connection, scope: Scope, where: Expr | None, window: Window, sort: SortKey, page: OffsetPage
) -> list[int]:
    """The trace_pks of one page, in order. Several projects are merged, each read in the order of its index."""
    order = f"{'DESC' if sort.descending else 'ASC'}"
    column = sort.field.sql
    arms: list[str] = []
    params: list[Any] = []
    for project_id in scope.project_ids:
        matches = _selection(conn, Scope((project_id,), scope.environment), where, window)
        arms.append(f"SELECT t.trace_pk AS pk, {column} AS sort_key FROM trace t WHERE {matches.sql}")
        params.extend(matches.params)
    sql = " UNION ALL ".join(arms) + f" ORDER BY sort_key {order} NULLS LAST, pk {order} LIMIT ? OFFSET ?"
    found: list[int] = []
    try:
        for pk, _ in conn.execute(sql, (*params, page.page_size, page.offset)):
            found.append(pk)
    except textsearch.GaveUp:
        pass  # what was found so far is right; the page says that its total is not exact
    return found


def _rows_of(conn: apsw.Connection, pks: Sequence[int]) -> list[TraceRow]:
    rows = {
        values[0]: trace_row(values)
        for values in conn.execute(
            f"SELECT {TRACE_COLUMNS} FROM trace WHERE trace_pk IN (SELECT value FROM json_each(?))",
            (orjson.dumps(pks).decode(),),
        )
    }
    return [rows[pk] for pk in pks]


def _blocks(conn: apsw.Connection, trace_pk: int) -> dict[int, dict[str | int, bytes]]:
    first, last = block_range(trace_pk)
    return {
        block_id - first: records_by_id(decode_block(data))
        for block_id, data in conn.execute(
            "SELECT block_id, data FROM block WHERE block_id BETWEEN ? AND ?", (first, last)
        )
    }


def _detail(conn: apsw.Connection, values: tuple[Any, ...]) -> TraceDetail:
    trace_pk = values[0]
    contexts: dict[int, SpanContext] = {
        key: context_of(body)
        for key, body in conn.execute("SELECT context_key, body FROM context WHERE trace_pk = ?", (trace_pk,))
    }
    records = _blocks(conn, trace_pk)
    spans = []
    for *columns, block_no in conn.execute(
        f"SELECT {SPAN_COLUMNS}, block_no FROM span WHERE trace_pk = ? ORDER BY start_ns, span_id", (trace_pk,)
    ):
        span = span_of(columns)
        spans.append(SpanDetail(span, contexts[span.context_key], records[block_no][span.span_id]))
    logs = []
    for *columns, block_no in conn.execute(
        f"SELECT {LOG_COLUMNS}, block_no FROM log WHERE trace_pk = ? ORDER BY time_ns, log_hash", (trace_pk,)
    ):
        log = LogRecord._make(columns)
        logs.append(LogDetail(log, contexts[log.context_key], records[block_no][log.log_hash]))
    pairs = tuple(sorted({pair for context in contexts.values() for pair in context.metadata}))
    return TraceDetail(trace_row(values, metadata_all=pairs), spans, logs)


def _root_record(conn: apsw.Connection, row: TraceRow) -> tuple[bytes | None, list[bytes]]:
    root_id = row.summary.root_span_id
    blocks: dict[int, Block] = {}

    def record(block_no: int, record_id: str | int) -> bytes:
        if block_no not in blocks:
            data = conn.execute(
                "SELECT data FROM block WHERE block_id = ?", (block_range(row.trace_pk)[0] + block_no,)
            ).get
            blocks[block_no] = decode_block(data)
        block = blocks[block_no]
        return next(record_bytes(block, each) for each in block.records if each.id == record_id)

    root = None
    if root_id is not None:
        block_no = conn.execute(
            "SELECT block_no FROM span WHERE trace_pk = ? AND span_id = ?", (row.trace_pk, root_id)
        ).get
        root = None if block_no is None else record(block_no, root_id)
    logs = conn.execute(
        "SELECT log_hash, block_no FROM log WHERE trace_pk = ? AND span_id IS ? ORDER BY time_ns, log_hash",
        (row.trace_pk, root_id),
    ).fetchall()
    return root, [record(block_no, log_hash) for log_hash, block_no in logs]
