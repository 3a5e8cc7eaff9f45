"""One filter over one snapshot: its exact total, its pages, its sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr, conditions
from clearspan.query.fields import FieldType
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.port import TraceSums
from clearspan.store.sqlite import select, textsearch
from clearspan.store.sqlite.rows import HOUR_NS
from clearspan.store.sqlite.select import Entry, Plan

ARMS_MAX = 50
"""SELECTs of one compound: SQLite takes 500. A page over more projects is merged from several queries."""
SKIP_MIN = 1_000
"""A page that begins so deep in the order of start is looked for by the hourly counters first."""
SAMPLE_FROM = 100_000
"""Of so many traces, a page in an order without an index leaves out what falls short of a sample."""
SAMPLE_TRACES = 10_000
MILLION = 1_000_000


class Listing:
    """A query of `scope`, `where` and `window` inside the caller's read transaction."""

    def __init__(
        self, conn: apsw.Connection, scope: Scope, where: Expr | None, window: Window, search: textsearch.Search
    ) -> None:
        self._conn = conn
        self._scope = scope
        self._where = where
        self._window = _without_idle_bounds(conn, scope, window)
        self._search = search
        self._is_search = where is not None and any(part.field.type is FieldType.SEARCH for part in conditions(where))
        self._any_hidden = bool(conn.execute("SELECT EXISTS (SELECT 1 FROM hidden)").get)

    def read(self, sort: SortKey, page: OffsetPage) -> tuple[list[int], int, bool]:
        """One page: its trace_pks in order, how many match, and whether that is exact or a floor."""
        if not self._is_search:
            total, exact = self.total()
            return (self.page(sort, page, total) if total > page.offset else []), total, exact
        # The page first: of a common text it needs few traces, a total all of them, and there is a limit.
        pks = self.page(sort, page, self._total_without_search())
        total, exact = self.total()
        return pks, max(total, page.offset + len(pks) if pks else 0), exact and not self._search.gave_up

    def total(self) -> tuple[int, bool]:
        """How many match, and whether that is exact: a text search may stop early, and then it is a floor."""
        if self._where is None:
            return count_visible(self._conn, self._scope, self._window), True
        if not self._is_search:
            return self._total_of_columns(), True
        found = 0
        try:
            for plan in self._narrow_plans():
                # One by one: when a text search gives up, what was seen so far did match the whole filter.
                for _ in self._conn.execute(f"SELECT 1 FROM {plan.table} WHERE {plan.sql}", plan.params):
                    found += 1
            return found, not self._search.gave_up
        except textsearch.GaveUp:
            return max(found, len(self._seen_matches())), False

    def _seen_matches(self) -> list[int]:
        """After a text search gave up: what was looked at and matches the whole filter."""
        if not textsearch.searches_of(self._where):
            return []
        plans = self._narrow_plans()
        try:
            return [pk for plan in plans for pk in self._pks(plan)]
        except textsearch.GaveUp:  # another part of the filter searches too
            return []

    def _pks(self, plan: Plan) -> list[int]:
        sql = f"SELECT t.trace_pk FROM {plan.table} WHERE {plan.sql}"
        return [pk for (pk,) in self._conn.execute(sql, plan.params)]

    def _total_without_search(self) -> int:
        """About how many traces a search has to choose from: those that meet its narrowest equality, else all."""
        part = select.narrow_part(self._where)
        return Listing(self._conn, self._scope, part, self._window, self._search).total()[0]

    def _total_of_columns(self) -> int:
        equals = None if self._where is None else select.only_metadata_equals(self._where)
        if equals is not None and self._scope.environment is None and not self._any_hidden:
            return sum(
                select.count_metadata(self._conn, project_id, equals, self._window)
                for project_id in self._scope.project_ids
            )
        return sum(self._count(plan) for plan in self._narrow_plans())

    def page(self, sort: SortKey, page: OffsetPage, total: int) -> list[int]:
        """The trace_pks of one page, in order; several projects are merged, each read in its own order.

        Args:
            total: about how many match: it decides how to read.
        """
        gave_up_before = self._search.gave_up
        found = self._page(sort, page, total)
        if self._search.gave_up and not gave_up_before and len(found) < page.page_size:
            return self._page(sort, page, total) or found  # now out of what was looked at
        return found

    def _page(self, sort: SortKey, page: OffsetPage, total: int) -> list[int]:
        if self._where is None and sort.field.name == "start_time" and page.offset >= SKIP_MIN:
            return self._page_by_hours(sort, page)
        plans = self._ordered_plans(sort, page, total)
        if self._where is None and total >= SAMPLE_FROM and len(plans) == 1 and not select.has_index(sort):
            plans = [self._above_sample(plans[0], sort, page)]
        return self._page_of(plans, sort, page)

    def _above_sample(self, plan: Plan, sort: SortKey, page: OffsetPage) -> Plan:
        """The plan without most rows that cannot be on the page: some rows have a full page of better ones already."""
        better, direction = (">=", "DESC") if sort.descending else ("<=", "ASC")
        key = sort.field.sql
        bound = self._conn.execute(
            f"SELECT sort_key FROM (SELECT {key} AS sort_key FROM {plan.table} WHERE {plan.sql} LIMIT ?) "
            f"WHERE sort_key IS NOT NULL ORDER BY sort_key {direction} LIMIT 1 OFFSET ?",
            (*plan.params, SAMPLE_TRACES, page.offset + page.page_size - 1),
        ).get
        if bound is None:
            return plan
        return plan._replace(sql=f"{plan.sql} AND {key} {better} ?", params=(*plan.params, bound))

    def _page_by_hours(self, sort: SortKey, page: OffsetPage) -> list[int]:
        """A deep page of all traces in order of start: the counters say in which hour it begins."""
        hour, skipped = _hour_at(self._conn, self._scope, self._window, page.offset, descending=sort.descending)
        start_ns, end_ns = self._window
        if hour is not None and sort.descending:
            end_ns = (hour + 1) * HOUR_NS if end_ns is None else min(end_ns, (hour + 1) * HOUR_NS)
        elif hour is not None:
            start_ns = hour * HOUR_NS if start_ns is None else max(start_ns, hour * HOUR_NS)
        plans = [
            select.plan(
                self._scope,
                project_id,
                None,
                Window(start_ns, end_ns),
                entry=Entry.INDEX,
                index="trace_by_start",
                any_hidden=self._any_hidden,
            )
            for project_id in self._scope.project_ids
        ]
        return self._page_of(plans, sort, page, skipped=skipped)

    def _page_of(self, plans: list[Plan], sort: SortKey, page: OffsetPage, *, skipped: int = 0) -> list[int]:
        """The page out of the rows of the plans, which leave out the first `skipped` rows."""
        offset = page.offset - skipped
        direction = "DESC" if sort.descending else "ASC"
        # SQLite takes NULL for the smallest value, so descending has it last anyway, and plain DESC can use an index.
        nulls = " NULLS LAST" if sort.field.nullable and not sort.descending else ""
        order = f" ORDER BY sort_key {direction}{nulls}, pk {direction} LIMIT ? OFFSET ?"
        if len(plans) > ARMS_MAX:
            return self._merged(plans, sort, order, offset, offset + page.page_size)
        return [pk for pk, _ in self._read(plans, sort, order, page.page_size, offset)]

    def _merged(self, plans: list[Plan], sort: SortKey, order: str, offset: int, wanted: int) -> list[int]:
        """Rows offset to wanted out of the first of each group of projects. Cost O(groups · wanted)."""
        rows: list[tuple[int, Any]] = []
        for start in range(0, len(plans), ARMS_MAX):
            rows += self._read(plans[start : start + ARMS_MAX], sort, order, wanted, 0)
        known = [(pk, key) for pk, key in rows if key is not None]
        known.sort(key=lambda row: (row[1], row[0]), reverse=sort.descending)
        unknown = sorted((pk for pk, key in rows if key is None), reverse=sort.descending)
        return ([pk for pk, _ in known] + unknown)[offset:wanted]

    def _read(self, plans: list[Plan], sort: SortKey, order: str, limit: int, offset: int) -> list[tuple[int, Any]]:
        """(trace_pk, sort key) of some projects' rows in order."""
        arms = [f"SELECT t.trace_pk AS pk, {sort.field.sql} AS sort_key FROM {p.table} WHERE {p.sql}" for p in plans]
        params = [value for plan in plans for value in plan.params]
        found: list[tuple[int, Any]] = []
        try:
            for pk, key in self._conn.execute(" UNION ALL ".join(arms) + order, (*params, limit, offset)):
                found.append((pk, key))
        except textsearch.GaveUp:
            pass  # what was found so far is right; the search says that it gave up
        return found

    def sums(self) -> TraceSums:
        """Sums over all matches."""
        # In two parts each: SQLite's sum of integers fails beyond 64 bits, and two large costs are enough for that.
        columns = (
            "t.error_count", "(t.end_ns - t.start_ns)",  # a column of its own is not in the index by start
            "t.prompt_tokens", "t.completion_tokens", "t.total_tokens", "t.cost_pico",
        )  # fmt: skip
        terms = ", ".join(f"sum({name} / {MILLION}), sum({name} % {MILLION})" for name in columns)
        traces = 0
        sums: list[int | None] = [None] * len(columns)
        for plan in self._narrow_plans():
            row: Any = self._conn.execute(
                f"SELECT count(*), {terms} FROM {plan.table} WHERE {plan.sql}", plan.params
            ).fetchone()
            count, *parts = row
            traces += count
            for at, (high, low) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
                if high is not None:
                    sums[at] = (sums[at] or 0) + high * MILLION + low
        errors, duration_ns, *tokens_and_cost = sums
        return TraceSums(traces, errors or 0, duration_ns or 0, *tokens_and_cost)

    def rows(self, columns: str, extra: str, params: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """`columns` of every match that also meets the condition `extra`, in no order."""
        for plan in self._narrow_plans():
            sql = f"SELECT {columns} FROM {plan.table} WHERE {plan.sql} AND {extra}"
            yield from self._conn.execute(sql, (*plan.params, *params))

    def span_rows(self, columns: str, extra: str) -> Iterator[tuple[Any, ...]]:
        """`columns` of every span `s` of the matches that meets the condition `extra`, in no order."""
        for plan in self._narrow_plans():
            sql = (
                f"SELECT {columns} FROM {plan.table} CROSS JOIN span s ON s.trace_pk = t.trace_pk "
                f"WHERE {plan.sql} AND {extra}"
            )
            yield from self._conn.execute(sql, plan.params)

    def _count(self, plan: Plan) -> int:
        return int(self._conn.execute(f"SELECT count(*) FROM {plan.table} WHERE {plan.sql}", plan.params).get)

    def _narrow_plans(self) -> list[Plan]:
        """Each project entered where the filter is narrowest."""
        plans = []
        given = self._search.candidates_of(self._where)
        for project_id in self._scope.project_ids:
            entry, index = select.entry_of(self._conn, project_id, self._where)
            plans.append(self._plan(project_id, entry, index, given=given))
        return plans

    def _ordered_plans(self, sort: SortKey, page: OffsetPage, total: int) -> list[Plan]:
        """Each project read in the order of the sort, where that visits less than sorting all matches would."""
        visible = count_visible(self._conn, self._scope, self._window if sort.field.name == "start_time" else Window())
        wanted = page.offset + page.page_size
        index = select.walk_index(sort, wanted=wanted, total=total, all_visible=visible)
        if index is None or self._search.candidates_of(self._where, textsearch.PAGE_GIVEN_MAX) is not None:
            return self._narrow_plans()
        return [self._plan(project_id, Entry.INDEX, index, given=None) for project_id in self._scope.project_ids]

    def _plan(self, project_id: int, entry: Entry, index: str, *, given: list[int] | None) -> Plan:
        if given is not None:
            entry = Entry.GIVEN
        made = select.plan(
            self._scope,
            project_id,
            self._where,
            self._window,
            entry=entry,
            index=index if entry is Entry.INDEX else "",
            any_hidden=self._any_hidden,
            rare_keys=select.rare_keys(self._conn, project_id, self._where),
        )
        if given is None:
            return made
        # In the order given: a search that gives up has then looked at the newest.
        table = "json_each(?) AS given CROSS JOIN trace t NOT INDEXED ON t.trace_pk = given.value"
        return made._replace(table=table, params=(orjson.dumps(given).decode(), *made.params))


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


def _hour_at(
    conn: apsw.Connection, scope: Scope, window: Window, offset: int, *, descending: bool
) -> tuple[int | None, int]:
    """The hour in which the row at `offset`, in order of start, lies; and how many rows of the window come before it.

    Cost: a row of the counters for each hour before it, and counting the rows of the hour that the window cuts.
    """
    start_ns, end_ns = window
    edge: Window | None = None  # what the window has of the hour that it begins in
    if descending and end_ns is not None and end_ns % HOUR_NS:
        begin = end_ns // HOUR_NS * HOUR_NS
        edge = Window(begin if start_ns is None else max(begin, start_ns), end_ns)
    elif not descending and start_ns is not None and start_ns % HOUR_NS:
        end = -(-start_ns // HOUR_NS) * HOUR_NS
        edge = Window(start_ns, end if end_ns is None else min(end, end_ns))
    skipped = 0 if edge is None else count_visible(conn, scope, edge)
    if skipped > offset:
        return None, 0
    counts = conn.execute(
        "SELECT hour, sum(traces) FROM trace_count WHERE project_id IN (SELECT value FROM json_each(?1)) "
        "AND (?2 IS NULL OR environment = ?2) AND (?3 IS NULL OR hour >= ?3) AND (?4 IS NULL OR hour < ?4) "
        f"GROUP BY hour ORDER BY hour {'DESC' if descending else 'ASC'}",
        (
            orjson.dumps(scope.project_ids).decode(),
            scope.environment,
            None if start_ns is None else -(-start_ns // HOUR_NS),
            None if end_ns is None else end_ns // HOUR_NS,
        ),
    )
    last: int | None = None
    for hour, traces in counts:
        last = hour
        if skipped + traces > offset:
            return hour, skipped
        skipped += traces
    if last is None:
        return None, 0
    # Past every whole hour: in the hour that the window ends in, or nowhere.
    return (last - 1 if descending else last + 1), skipped


def _count_rows(conn: apsw.Connection, scope: Scope, window: Window) -> int:
    total = 0
    for project_id in scope.project_ids:
        plan = select.plan(scope, project_id, None, window, entry=Entry.INDEX, index="trace_by_start")
        total += conn.execute(f"SELECT count(*) FROM {plan.table} WHERE {plan.sql}", plan.params).get
    return total


def _without_idle_bounds(conn: apsw.Connection, scope: Scope, window: Window) -> Window:
    """The window without a bound that leaves nothing visible out: each costs 20 ns a row to test."""
    first, last = conn.execute(
        "SELECT min(hour), max(hour) FROM trace_count WHERE project_id IN (SELECT value FROM json_each(?))",
        (orjson.dumps(scope.project_ids).decode(),),
    ).fetchone() or (None, None)
    start_ns, end_ns = window
    if first is not None and start_ns is not None and start_ns <= first * HOUR_NS:
        start_ns = None
    if last is not None and end_ns is not None and end_ns >= (last + 1) * HOUR_NS:
        end_ns = None
    return Window(start_ns, end_ns)
