"""The results of an experiment as comparing takes them: columns from the store, one row an attempt that counts."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

import numpy as np

from clearspan.experiments.comparison_sides import COST, LATENCY, Bools, Floats, Ints, Kind, Said, Side, What
from clearspan.experiments.result_runs import NEWEST
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Scope, Window
from clearspan.model.usage import PICO_PER_USD
from clearspan.store.figures import FigureReader, ScoreColumn

RESULTS_MAX: Final = 200_000
"""Results that one comparison reads, of all its experiments together: about 0.5 KB each in memory while it lasts."""
_NORMAL: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PLAIN: Final = re.compile("[0-9a-f]{32}")


def read_side(reader: FigureReader, scope: Scope, *, room: int = RESULTS_MAX) -> Side:
    """Every result of an experiment that no later attempt replaced.

    What a result does not say stays missing: its cost while some of its calls have no known price, its time while it
    waits.

    Args:
        scope: the experiment's project, as the caller's key sees it.
        room: the most results that may be read.
    Raises:
        InvalidInput: there are more (`too_many_results`).
        ReadTooSlow: reading took longer than one read may.
    Cost: about 5 µs a result, and 1 µs a score.
    """
    figures = reader.trace_figures(scope, NEWEST, Window(), key=REFERENCE_EXAMPLE_KEY, limit=room + 1)
    if len(figures.trace_ids) > room:
        raise InvalidInput(
            f"More than {RESULTS_MAX:,} results cannot be compared at once.",
            code="too_many_results",
            fields=("experiments",),
        )
    said: dict[What, Said] = {}
    names = np.array([each is not None for each in figures.values], np.bool_)
    rows_of = _Rows(figures.trace_pks[names])
    for column in reader.score_columns(scope, NEWEST, Window()):
        said[Kind.SCORE, column.name] = rows_of.scored(column)
    waiting, costs = figures.pending[names], figures.cost_pico[names]
    is_priced = figures.has_cost[names] & (figures.unpriced_counts[names] == 0)
    # One by one: an int is divided to the last digit, a float that was one may not be.
    usd = np.array([pico / PICO_PER_USD for pico in costs.tolist()], np.float64)
    said[COST] = _known(usd, is_priced)
    said[LATENCY] = _known(figures.duration_ns[names] / 1e9, ~waiting)
    return Side(
        [normal_key(each) for each in figures.values if each is not None],
        [trace_id for trace_id, is_named in zip(figures.trace_ids, names.tolist(), strict=True) if is_named],
        said,
        figures.error_counts[names] > 0,
        waiting,
        len(names) - int(names.sum()),
    )


class _Rows:
    """Numbers of results by trace_pk.

    Args:
        trace_pks: of each result, in no order.
    """

    def __init__(self, trace_pks: Ints) -> None:
        self._order = np.argsort(trace_pks)
        self._sorted = trace_pks[self._order]

    def scored(self, column: ScoreColumn) -> Said:
        """The numbers of a column, of those traces that are results."""
        at = np.searchsorted(self._sorted, column.trace_pks)
        known = ~np.isnan(column.scores) & (at < len(self._sorted))
        known[known] = self._sorted[at[known]] == column.trace_pks[known]
        rows = self._order[at[known]]
        order = np.argsort(rows)
        return Said(rows[order], column.scores[known][order])


def _known(values: Floats, known: Bools) -> Said:
    return Said(np.flatnonzero(known), values[known])


def normal_key(key: str) -> str:
    """A comparison key in the one form of it: a UUID with dashes, anything else as it is."""
    if len(key) == 36 and _NORMAL.fullmatch(key):  # this or the next nearly always, and ten times as fast
        return key
    if len(key) == 32 and _PLAIN.fullmatch(key):
        return f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}"
    try:
        return str(UUID(key))
    except ValueError:
        return key
