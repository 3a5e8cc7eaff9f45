"""Figures over many traces: the reader's part of figures.FigureReader."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Final

import apsw
import numpy as np

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.figures import Ints, ScoreColumn, TraceFigures, last_of_key
from clearspan.store.sqlite import textsearch
from clearspan.store.sqlite.listing import Listing, count_visible
from clearspan.store.sqlite.score_columns import score_columns
from clearspan.store.sqlite.session_listing import SessionListing
from clearspan.store.sqlite.span_listing import SpanListing

CHUNK: Final = 2_000
_PLACE: Final = ("t.start_ns", "t.trace_pk")
_NUMBERS: Final = (
    *_PLACE, "t.duration_ns", "t.error_count", "t.unpriced_count", "coalesce(t.cost_pico, 0)",
    "t.cost_pico IS NOT NULL",
    "(SELECT s.status FROM span s WHERE s.trace_pk = t.trace_pk AND s.span_id = t.root_span_id) IS 'pending'",
)  # fmt: skip


class FigureListing(SessionListing):
    """Mixed into reader.SqliteReader."""

    _listing: Callable[..., AbstractContextManager[tuple[Listing, apsw.Connection, textsearch.Search]]]
    _span_listing: Callable[[Scope, Expr | None, Window], AbstractContextManager[SpanListing]]

    def score_columns(
        self, scope: Scope, where: Expr | None, window: Window, *, name: str | None = None, in_words: bool = False
    ) -> list[ScoreColumn]:
        """See figures.FigureReader.score_columns. Cost: finding the traces, 0.3 µs each, and score_columns.py."""
        if not scope.project_ids:
            return []
        with self._listing(scope, where, window, unlimited=True) as (listing, conn, _):
            pks = np.fromiter((pk for (pk,) in listing.rows("t.trace_pk", "1", ())), np.int64)
            pks.sort()
            traces = count_visible(conn, scope, Window())
            return score_columns(conn, scope.project_ids, pks, traces, name, in_words=in_words)

    def trace_figures(self, scope: Scope, where: Expr | None, window: Window, *, key: str, limit: int) -> TraceFigures:
        """See figures.FigureReader.trace_figures. Cost: 4 µs a trace that matches; 0.25 KB for each of `limit`."""
        first = self._first(_NUMBERS, scope, where, window, key, limit)
        _, trace_pks, duration_ns, errors, unpriced, cost_pico, has_cost, pending = first.numbers
        return TraceFigures(
            trace_pks, first.ids, first.values, duration_ns, errors, unpriced, cost_pico, has_cost > 0, pending > 0
        )

    def trace_values(
        self, scope: Scope, where: Expr | None, window: Window, *, key: str, limit: int
    ) -> list[str | None]:
        """See figures.FigureReader.trace_values. Cost: 2 µs a trace that matches; 0.2 KB for each of `limit`."""
        return self._first(_PLACE, scope, where, window, key, limit).values

    def _first(
        self, numbers: Sequence[str], scope: Scope, where: Expr | None, window: Window, key: str, limit: int
    ) -> _First:
        first = _First(len(numbers), key, limit)
        if scope.project_ids:
            with self._listing(scope, where, window, unlimited=True) as (listing, _, _):
                rows = listing.rows(", ".join((*numbers, "t.trace_id", "t.metadata")), "1", ())
                while chunk := list(islice(rows, CHUNK)):
                    first.add(chunk)
        first.cut()
        return first

    def first_tokens(self, scope: Scope, where: Expr | None, window: Window) -> tuple[int, float]:
        """See figures.FigureReader.first_tokens. Cost: 1 µs a span of the traces that match."""
        if not scope.project_ids:
            return 0, 0.0
        with self._listing(scope, where, window, unlimited=True) as (listing, _, _):
            seconds = [each for (each,) in listing.span_rows("s.ttft_s", "s.ttft_s IS NOT NULL")]
        return len(seconds), math.fsum(seconds)

    def span_statuses(self, scope: Scope, where: Expr | None, window: Window) -> dict[str, int]:
        """See figures.FigureReader.span_statuses. Cost: 2 µs a span of the traces within the window."""
        with self._span_listing(scope, where, window) as listing:
            return listing.statuses()


class _First:
    """The first traces of some rows by start and trace_pk, as columns: numbers, those two before all, and texts.

    Args:
        width: how many numbers a row begins with; its trace id and metadata follow.
    """

    def __init__(self, width: int, key: str, limit: int) -> None:
        self._key = key
        self._limit = limit
        self._more: list[Ints] = []  # numbers of later rows
        self.numbers: Ints = np.empty((width, 0), np.int64)
        self.ids: list[str] = []
        self.values: list[str | None] = []

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Some more rows."""
        *numbers, ids, metadata = zip(*rows, strict=True)
        self._more.append(np.stack([np.fromiter(each, np.int64, len(rows)) for each in numbers]))
        self.ids += ids
        self.values += [last_of_key(each, self._key) for each in metadata]
        if len(self.ids) >= self._limit + 10 * CHUNK:
            self.cut()

    def cut(self) -> None:
        """Leave out what is not among the first."""
        numbers = np.concatenate([self.numbers, *self._more], axis=1)
        order = np.lexsort((numbers[1], numbers[0]))[: self._limit]
        self.numbers, self._more = numbers[:, order], []
        places = order.tolist()
        self.ids = [self.ids[at] for at in places]
        self.values = [self.values[at] for at in places]
