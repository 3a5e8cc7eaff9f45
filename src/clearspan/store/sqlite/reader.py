"""The read side of traces.db: each call is one snapshot on a connection of the calling thread."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import apsw
import orjson

from clearspan.ingest.payload import decode_block, record_bytes, records_by_id
from clearspan.model.errors import Overloaded, ReadTooSlow
from clearspan.model.span import LogRecord, SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.annotations import AnnotationFigures, AnnotationQuery, AnnotationRow
from clearspan.store.port import LogDetail, PlannedTrace, SpanDetail, TraceDetail, TracePage, TraceRow, TraceSums
from clearspan.store.spans import SpanOrder, SpanPage, SpanPosition, SpanStats
from clearspan.store.sqlite import annotation_listing, select, textsearch
from clearspan.store.sqlite.figures import FigureListing
from clearspan.store.sqlite.listing import Listing
from clearspan.store.sqlite.rows import (
    LOG_COLUMNS,
    SPAN_COLUMNS,
    TRACE_COLUMNS,
    block_range,
    context_of,
    span_of,
    trace_row,
)
from clearspan.store.sqlite.span_listing import SpanListing

READ_S_MAX = 20.0
STEPS_BETWEEN_LOOKS = 50_000
"""How many instructions SQLite runs between two looks at the clock: about a millisecond."""


class _Reading:
    """One thread's connection and until when its snapshot may go on (of time.monotonic)."""

    def __init__(self, conn: apsw.Connection) -> None:
        self.conn = conn
        self.deadline = math.inf


class SqliteReader(FigureListing):
    """port.TraceReader, spans.SpanReader, sessions.SessionReader and figures.FigureReader over traces.db.

    Safe for many threads, each with its own connection.
    """

    def __init__(self, open_connection: Callable[[], apsw.Connection], *, seconds_max: float = READ_S_MAX) -> None:
        """
        Args:
            open_connection: makes a read-only connection (files.vfs.open_reader).
            seconds_max: how long one read may take before it ends with ReadTooSlow.
        """
        self.seconds_max = seconds_max
        self._stop_at = math.inf
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

    def end_reads(self, grace_s: float) -> None:
        """End what still reads after `grace_s`, and everything that begins then: the server is about to stop."""
        self._stop_at = time.monotonic() + grace_s

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """This thread's connection inside one read transaction, which may take as long as it needs."""
        reading = self._reading()
        reading.conn.execute("BEGIN")
        try:
            yield reading.conn
        finally:
            reading.conn.execute("ROLLBACK")

    @contextmanager
    def _limited(self) -> Iterator[tuple[apsw.Connection, Callable[[], None]]]:
        """A snapshot that ends when its time is over; also a function that raises then, for work outside SQLite.

        Raises:
            ReadTooSlow: `seconds_max` are over.
            Overloaded: the server stops.
        """
        reading = self._reading()
        reading.deadline = time.monotonic() + self.seconds_max

        def check() -> None:
            if self._is_over(reading):
                raise self._ended()

        try:
            check()
            with self.snapshot() as conn:
                yield conn, check
        except apsw.InterruptError:
            raise self._ended() from None
        finally:
            reading.deadline = math.inf

    def _is_over(self, reading: _Reading) -> bool:
        # A read without a limit of its own is part of a deletion, which a stop lets finish its step.
        return reading.deadline < math.inf and time.monotonic() > min(reading.deadline, self._stop_at)

    def _ended(self) -> ReadTooSlow | Overloaded:
        if time.monotonic() > self._stop_at:
            return Overloaded("The server is stopping.")
        return ReadTooSlow(
            f"This search took longer than {self.seconds_max:g} s and was ended; narrow the filter or the time window."
        )

    def _reading(self) -> _Reading:
        reading: _Reading | None = getattr(self._local, "reading", None)
        if reading is None:
            made = reading = self._local.reading = _Reading(self._open())
            textsearch.register(made.conn)
            made.conn.set_progress_handler(lambda: self._is_over(made), STEPS_BETWEEN_LOOKS)
            with self._lock:
                self._all.append(made.conn)
        return reading

    def list_traces(
        self, scope: Scope, where: Expr | None, window: Window, sort: SortKey, page: OffsetPage
    ) -> TracePage:
        if not scope.project_ids:
            return TracePage([], 0)
        with self._listing(scope, where, window) as (listing, conn, _):
            pks, total, exact = listing.read(sort, page)
            return TracePage(_rows_of(conn, pks), total, exact)

    def count_traces(self, scope: Scope, where: Expr | None, window: Window) -> int:
        if not scope.project_ids:
            return 0
        with self._listing(scope, where, window, unlimited=True) as (listing, _, _):
            return listing.total()[0]

    def sum_traces(self, scope: Scope, where: Expr | None, window: Window) -> TraceSums:
        if not scope.project_ids:
            return TraceSums(0, 0, 0, None, None, None, None)
        with self._listing(scope, where, window, unlimited=True) as (listing, _, _):
            return listing.sums()

    @contextmanager
    def _listing(
        self, scope: Scope, where: Expr | None, window: Window, *, unlimited: bool = False
    ) -> Iterator[tuple[Listing, apsw.Connection, textsearch.Search]]:
        with (
            self._limited() as (conn, check),
            textsearch.searching(conn, unlimited=unlimited, check=check) as search,
        ):
            yield Listing(conn, scope, where, window, search), conn, search

    def list_spans(
        self,
        scope: Scope,
        where: Expr | None,
        window: Window,
        *,
        order: SpanOrder = SpanOrder.START_DESC,
        after: SpanPosition | None = None,
        limit: int,
        records: bool = True,
    ) -> SpanPage:
        """See spans.SpanReader.list_spans."""
        with self._span_listing(scope, where, window) as listing:
            return listing.page(order, after, limit, records=records)

    def span_stats(self, scope: Scope, where: Expr | None, window: Window) -> SpanStats:
        """See spans.SpanReader.span_stats."""
        with self._span_listing(scope, where, window) as listing:
            return listing.stats()

    @contextmanager
    def _span_listing(self, scope: Scope, where: Expr | None, window: Window) -> Iterator[SpanListing]:
        with (
            self._limited() as (conn, check),
            textsearch.searching(conn, unlimited=True, check=check) as search,
        ):
            yield SpanListing(conn, scope, where, window, search, check)

    def get_trace(self, scope: Scope, trace_id: str) -> TraceDetail | None:
        with self._limited() as (conn, _):
            values = conn.execute(
                f"SELECT {TRACE_COLUMNS} FROM trace WHERE project_id IN (SELECT value FROM json_each(?)) "
                "AND trace_id = ? AND (?3 IS NULL OR environment = ?3) "
                "AND trace_pk NOT IN (SELECT trace_pk FROM hidden) ORDER BY received_ns DESC, trace_pk DESC LIMIT 1",
                (orjson.dumps(scope.project_ids).decode(), trace_id, scope.environment),
            ).fetchone()
            return None if values is None else _detail(conn, values)

    def root_records(self, rows: Sequence[TraceRow]) -> dict[int, tuple[bytes | None, list[bytes]]]:
        with self._limited() as (conn, _):
            return _root_records(conn, [(row.trace_pk, row.summary.root_span_id) for row in rows])

    def list_annotations(
        self, scope: Scope, query: AnnotationQuery, *, before_row: int | None = None, offset: int = 0, limit: int
    ) -> list[AnnotationRow]:
        """See annotations.AnnotationReader.list_annotations."""
        with self._limited() as (conn, _):
            return annotation_listing.rows(conn, scope, query, before_row=before_row, offset=offset, limit=limit)

    def annotations_of(self, trace_pks: Sequence[int]) -> dict[int, list[AnnotationRow]]:
        """See annotations.AnnotationReader.annotations_of."""
        with self._limited() as (conn, _):
            return annotation_listing.by_traces(conn, trace_pks)

    def annotation_figures(self) -> AnnotationFigures:
        """See annotations.AnnotationReader.annotation_figures."""
        with self._limited() as (conn, _):
            return annotation_listing.figures(conn)

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        """See port.DeletionStore.plan."""
        if not scope.project_ids:
            return []
        with self._listing(scope, where, window, unlimited=True) as (listing, _, _):
            found = listing.rows("t.trace_pk, t.project_id, t.trace_id", "t.received_ns < ?", (received_before_ns,))
            return sorted(PlannedTrace._make(row) for row in islice(found, limit + 1))

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        """See port.DeletionStore.plan_ids."""
        found: list[PlannedTrace] = []
        ids = orjson.dumps(sorted(set(trace_ids))).decode()
        with self._limited() as (conn, _):
            for project_id in scope.project_ids:
                plan = select.plan(scope, project_id, None, window, entry=select.Entry.INDEX, index="trace_by_id")
                rows = conn.execute(
                    f"SELECT t.trace_pk, t.project_id, t.trace_id FROM {plan.table} "
                    f"WHERE {plan.sql} AND t.trace_id IN (SELECT value FROM json_each(?))",
                    (*plan.params, ids),
                )
                found += [PlannedTrace._make(row) for row in rows]
        return sorted(found)


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


def _root_records(
    conn: apsw.Connection, roots: Sequence[tuple[int, str | None]]
) -> dict[int, tuple[bytes | None, list[bytes]]]:
    """The root's record and its logs' of each trace, by trace_pk; without those that a deletion hid meanwhile."""
    wanted = orjson.dumps(roots).decode()
    visible: list[Any] = conn.execute(
        f"SELECT t.trace_pk, s.block_no FROM ({_WANTED}) w CROSS JOIN trace t ON t.trace_pk = w.pk "
        "LEFT JOIN span s ON s.trace_pk = w.pk AND s.span_id = w.root "
        "WHERE t.trace_pk NOT IN (SELECT trace_pk FROM hidden)",
        (wanted,),
    ).fetchall()
    logs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for trace_pk, log_hash, block_no in conn.execute(
        f"SELECT l.trace_pk, l.log_hash, l.block_no FROM ({_WANTED}) w CROSS JOIN log l "
        "ON l.trace_pk = w.pk AND l.span_id IS w.root ORDER BY l.time_ns, l.log_hash",
        (wanted,),
    ):
        logs[trace_pk].append((block_no, log_hash))
    root_of = dict(roots)
    found: dict[int, tuple[bytes | None, list[bytes]]] = {}
    for trace_pk, block_no in visible:
        root_id = root_of[trace_pk]
        places: list[tuple[int, str | int]] = list(logs[trace_pk])
        if root_id is not None and block_no is not None:
            places.insert(0, (block_no, root_id))
            root, *records = _records_at(conn, trace_pk, places)
            found[trace_pk] = root, records
        else:
            found[trace_pk] = None, _records_at(conn, trace_pk, places)
    return found


_WANTED = "SELECT value ->> 0 AS pk, value ->> 1 AS root FROM json_each(?)"


def _records_at(conn: apsw.Connection, trace_pk: int, places: Sequence[tuple[int, str | int]]) -> list[bytes]:
    """The records of a trace at (block_no, id), in the order asked for."""
    zero, _ = block_range(trace_pk)
    blocks = {
        block_no: decode_block(conn.execute("SELECT data FROM block WHERE block_id = ?", (zero + block_no,)).get)
        for block_no in {block_no for block_no, _ in places}
    }
    return [
        next(record_bytes(blocks[block_no], each) for each in blocks[block_no].records if each.id == record_id)
        for block_no, record_id in places
    ]
