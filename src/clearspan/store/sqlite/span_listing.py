"""Lists and figures of single spans out of one snapshot; see docs/adr/0020-span-lists-without-a-time-index.md.

A page by start takes slices of time, the newest (or oldest) first, until it is full: a slice begins where the next few
traces do, and twice as many each time. Only the spans of the traces that reach into a slice are read. A filter that
names a trace, a metadata value or a text is entered by that instead: the slices are then cut out of those traces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import apsw
import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr
from clearspan.query.compile_condition import Sets
from clearspan.query.compile_span import CompiledSpan, compile_span
from clearspan.query.fields import IS_ROOT
from clearspan.query.operators import Operator
from clearspan.store.span_figures import FIGURE_COLUMNS, SpanTally
from clearspan.store.spans import SpanOrder, SpanPage, SpanPosition, SpanStats
from clearspan.store.sqlite import textsearch
from clearspan.store.sqlite.select import rare_keys
from clearspan.store.sqlite.span_entry import Entry, enter, span_conjuncts
from clearspan.store.sqlite.span_rows import span_rows
from clearspan.store.sqlite.span_slices import BEGINNING, END, IndexedTraces, Traces, as_bound, given_traces, visible

SLICE_TRACES_MIN = 16
SLICE_TRACES_MAX = 4_096
"""How many traces begin in a slice: the first, and at most."""
PROJECTS_ASKED_MAX = 20
SPANS_A_TRACE = 4
"""About how many spans of a trace are taken to match, when the first slice is cut."""


class _Key(NamedTuple):
    start_ns: int
    trace_pk: int
    span_id: str


class SpanListing:
    """A query of scope, filter and window inside the caller's read transaction."""

    def __init__(
        self,
        conn: apsw.Connection,
        scope: Scope,
        where: Expr | None,
        window: Window,
        search: textsearch.Search,
        check: Callable[[], None],
    ) -> None:
        self._conn = conn
        self._scope = scope
        self._check = check
        self._low_ns = BEGINNING if window.start_ns is None else window.start_ns
        self._high_ns = END if window.end_ns is None else window.end_ns
        self._where: CompiledSpan = compile_span(where, _sets(conn, scope, where))
        self._roots_only = where is not None and any(_means_root(part) for part in span_conjuncts(where))
        self._entry: Entry = enter(conn, scope, where, search)
        self._traces: Traces = (
            IndexedTraces(conn, scope)
            if self._entry.trace_pks is None
            else given_traces(conn, scope, self._entry.trace_pks)
        )

    def page(self, order: SpanOrder, after: SpanPosition | None, limit: int, *, records: bool) -> SpanPage:
        """One page; see spans.SpanReader.list_spans."""
        assert limit > 0
        by_start = order in (SpanOrder.START_DESC, SpanOrder.START_ASC)
        keys: list[_Key] = []
        pieces = self._slices(order, after, limit + 1) if by_start else self._arrivals(order, after)
        for low_ns, high_ns, pks in pieces:
            self._check()
            keys += self._spans(pks, (low_ns, high_ns), order, after, limit + 1 - len(keys))
            if len(keys) > limit:
                break
        rows = span_rows(self._conn, [(key.trace_pk, key.span_id) for key in keys[:limit]], records=records)
        return SpanPage(rows, SpanPosition._make(keys[limit - 1]) if len(keys) > limit else None)

    def stats(self) -> SpanStats:
        """See spans.SpanReader.span_stats. Cost: about 3 µs a span that matches."""
        tally = SpanTally()
        columns = ", ".join(f"s.{name}" for name in FIGURE_COLUMNS)
        for low_ns, high_ns, pks in self._slices(SpanOrder.START_DESC, None, SLICE_TRACES_MAX * SPANS_A_TRACE):
            self._check()
            sql, params = self._from(pks, (low_ns, high_ns))
            rows: Any = self._conn.execute(
                f"SELECT {columns} {sql} AND {self._where.sql}", (*params, *self._where.params)
            )
            for row in rows:
                tally.add(*row)
        return tally.stats()

    def statuses(self) -> dict[str, int]:
        """See figures.FigureReader.span_statuses."""
        found: Counter[str] = Counter()
        for low_ns, high_ns, pks in self._slices(SpanOrder.START_DESC, None, SLICE_TRACES_MAX * SPANS_A_TRACE):
            self._check()
            sql, params = self._from(pks, (low_ns, high_ns))
            rows: Any = self._conn.execute(
                f"SELECT s.status, count(*) {sql} AND {self._where.sql} GROUP BY s.status",
                (*params, *self._where.params),
            )
            found.update(dict(rows))
        return dict(found)

    def _slices(
        self, order: SpanOrder, after: SpanPosition | None, wanted: int
    ) -> Iterator[tuple[int, int, Sequence[int]]]:
        """(from, to, traces that may hold spans of it), each beside the one before, until the window is used up."""
        low_ns, high_ns = self._low_ns, self._high_ns
        count = min(max(wanted // (1 if self._roots_only else SPANS_A_TRACE), SLICE_TRACES_MIN), SLICE_TRACES_MAX)
        if order is SpanOrder.START_DESC:
            high_ns = high_ns if after is None else min(high_ns, after.start_ns + 1)
            while low_ns < high_ns:
                begun_ns = self._traces.begun_below(high_ns, count)
                slice_ns = low_ns if begun_ns is None else max(low_ns, begun_ns)
                yield slice_ns, high_ns, self._reaching(slice_ns, high_ns)
                high_ns, count = slice_ns, min(2 * count, SLICE_TRACES_MAX)
        else:
            low_ns = low_ns if after is None else max(low_ns, after.start_ns)
            while low_ns < high_ns:
                begun_ns = self._traces.begun_from(low_ns, count)
                slice_ns = high_ns if begun_ns is None else min(high_ns, begun_ns + 1)
                yield low_ns, slice_ns, self._reaching(low_ns, slice_ns)
                low_ns, count = slice_ns, min(2 * count, SLICE_TRACES_MAX)

    def _reaching(self, low_ns: int, high_ns: int) -> Sequence[int]:
        return self._entry.keep(self._traces.lasting(low_ns, high_ns))

    def _arrivals(self, order: SpanOrder, after: SpanPosition | None) -> Iterator[tuple[int, int, Sequence[int]]]:
        """(window's start, window's end, the next traces in order of arrival)."""
        newest_first = order is SpanOrder.ARRIVAL_DESC
        count = SLICE_TRACES_MIN
        is_bounded = self._low_ns != BEGINNING or self._high_ns != END
        if is_bounded or self._entry.trace_pks is not None:
            pks = sorted(self._reaching(self._low_ns, self._high_ns), reverse=newest_first)
            if after is not None:
                pks = [pk for pk in pks if (pk <= after.trace_pk if newest_first else pk >= after.trace_pk)]
            at = 0
            while at < len(pks):
                yield self._low_ns, self._high_ns, pks[at : at + count]
                at, count = at + count, min(2 * count, SLICE_TRACES_MAX)
            return
        from_pk = after.trace_pk if after is not None else None
        while True:
            pks = self._arrived(from_pk, count, newest_first=newest_first)
            if not pks:
                return
            yield self._low_ns, self._high_ns, self._entry.keep(pks)
            from_pk, count = pks[-1] + (-1 if newest_first else 1), min(2 * count, SLICE_TRACES_MAX)

    def _arrived(self, from_pk: int | None, count: int, *, newest_first: bool) -> list[int]:
        where, params = visible(self._scope.environment)
        bound, direction = ("<=", "DESC") if newest_first else (">=", "ASC")
        rows = self._conn.execute(
            f"SELECT t.trace_pk FROM trace t NOT INDEXED WHERE {where} AND t.trace_pk {bound} ? "
            f"AND t.project_id IN (SELECT value FROM json_each(?)) ORDER BY t.trace_pk {direction} LIMIT ?",
            (
                *params,
                (END - 1 if newest_first else BEGINNING) if from_pk is None else from_pk,
                orjson.dumps(self._scope.project_ids).decode(),
                count,
            ),
        )
        return [pk for (pk,) in rows]

    def _from(self, pks: Sequence[int], window: tuple[int, int]) -> tuple[str, list[Any]]:
        """FROM and the start of WHERE over the spans of some traces that start in a window."""
        root = " AND s.span_id = t.root_span_id" if self._roots_only else ""
        sql = (
            "FROM json_each(?) g CROSS JOIN trace t NOT INDEXED ON t.trace_pk = g.value "
            f"CROSS JOIN span s ON s.trace_pk = t.trace_pk{root} WHERE s.start_ns >= ? AND s.start_ns < ?"
        )
        return sql, [orjson.dumps(list(pks)).decode(), as_bound(window[0]), as_bound(window[1])]

    def _spans(
        self, pks: Sequence[int], window: tuple[int, int], order: SpanOrder, after: SpanPosition | None, limit: int
    ) -> list[_Key]:
        """The first spans of some traces that start in a window and match, in order, strictly after a position."""
        if not pks:
            return []
        sql, params = self._from(pks, window)
        is_down = order in (SpanOrder.START_DESC, SpanOrder.ARRIVAL_DESC)
        terms = (
            ("s.start_ns", "s.trace_pk", "s.span_id")
            if order in (SpanOrder.START_DESC, SpanOrder.START_ASC)
            else ("s.trace_pk", "s.start_ns", "s.span_id")
        )
        if after is not None:
            sql += f" AND ({', '.join(terms)}) {'<' if is_down else '>'} (?, ?, ?)"
            values = after._asdict()
            params += [values[term.removeprefix("s.")] for term in terms]
        by = ", ".join(f"{term} {'DESC' if is_down else 'ASC'}" for term in terms)
        rows: Any = self._conn.execute(
            f"SELECT s.start_ns, s.trace_pk, s.span_id {sql} AND {self._where.sql} ORDER BY {by} LIMIT ?",
            (*params, *self._where.params, limit),
        )
        return [_Key._make(row) for row in rows]


def _sets(conn: apsw.Connection, scope: Scope, where: Expr | None) -> Sets | None:
    """The metadata keys of a filter that are rare in every project; None of many projects, where asking costs more."""
    if not 0 < len(scope.project_ids) <= PROJECTS_ASKED_MAX:
        return None
    rare = [rare_keys(conn, project_id, where) for project_id in scope.project_ids]
    return Sets(None, tuple(scope.project_ids), frozenset.intersection(*rare))


def _means_root(part: Expr) -> bool:
    return (
        isinstance(part, Condition)
        and part.field == IS_ROOT
        and part.operator in (Operator.EQUALS, Operator.IN)
        and all(part.values)
    )
