"""Figures over many traces: the reader's part of figures.FigureReader."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import apsw
import numpy as np

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.figures import ScoreColumn, TraceFigure, last_of_key
from clearspan.store.sqlite import textsearch
from clearspan.store.sqlite.listing import Listing, count_visible
from clearspan.store.sqlite.score_columns import score_columns
from clearspan.store.sqlite.session_listing import SessionListing
from clearspan.store.sqlite.span_listing import SpanListing

_PLACE = itemgetter(0, 1)  # of a TraceFigure: start_ns, trace_pk
_ROOT_STATUS = "(SELECT s.status FROM span s WHERE s.trace_pk = t.trace_pk AND s.span_id = t.root_span_id)"


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

    def trace_figures(
        self, scope: Scope, where: Expr | None, window: Window, *, key: str, limit: int
    ) -> list[TraceFigure]:
        """See figures.FigureReader.trace_figures. Cost: 4 µs a trace that matches."""
        if not scope.project_ids:
            return []
        columns = (
            "t.start_ns, t.trace_pk, t.trace_id, t.metadata, t.duration_ns, t.error_count, t.unpriced_count, "
            f"t.cost_pico, {_ROOT_STATUS}"
        )
        with self._listing(scope, where, window, unlimited=True) as (listing, _, _):
            rows: Any = listing.rows(columns, "1", ())
            figures = (TraceFigure._make((*row[:3], last_of_key(row[3], key), *row[4:])) for row in rows)
            found = list(islice(figures, limit))
            if (more := next(figures, None)) is not None:  # there are others, perhaps before these
                return heapq.nsmallest(limit, chain(found, [more], figures), key=_PLACE)
        found.sort(key=_PLACE)
        return found

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
