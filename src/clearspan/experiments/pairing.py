"""The results of an experiment as comparing takes them: read from the store, one row an attempt that counts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from clearspan.experiments.comparison import Outcome, Side
from clearspan.experiments.result_runs import NEWEST
from clearspan.experiments.results import numbers_of
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Scope, Window
from clearspan.model.usage import PICO_PER_USD
from clearspan.store.figures import FigureReader, TraceFigure

RESULTS_MAX: Final = 200_000
"""Results that one comparison reads, of all its experiments together: 1 KiB each in memory while it lasts."""
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
    Cost: about 8 µs a result.
    """
    figures = reader.trace_figures(scope, NEWEST, Window(), key=REFERENCE_EXAMPLE_KEY, limit=room + 1)
    if len(figures) > room:
        raise InvalidInput(
            f"More than {RESULTS_MAX:,} results cannot be compared at once.",
            code="too_many_results",
            fields=("experiments",),
        )
    scores: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for column in reader.score_columns(scope, NEWEST, Window()):
        for trace_pk, score in numbers_of(column).items():
            scores[trace_pk][column.name] = score
    nothing: dict[str, float] = {}
    outcomes = [
        _outcome(each, each.value, scores.get(each.trace_pk, nothing)) for each in figures if each.value is not None
    ]
    return Side(outcomes, len(figures) - len(outcomes))


def _outcome(figure: TraceFigure, key: str, scores: Mapping[str, float]) -> Outcome:
    waits = figure.root_status == "pending"
    return Outcome(
        normal_key(key),
        figure.trace_id,
        scores,
        _cost_usd(figure),
        None if waits else figure.duration_ns / 1e9,
        figure.error_count > 0,
        waits,
    )


def normal_key(key: str) -> str:
    """A comparison key in the one form of it: a UUID with dashes, anything else as it is."""
    if _NORMAL.fullmatch(key):  # this or the next nearly always, and ten times as fast
        return key
    if _PLAIN.fullmatch(key):
        return f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}"
    try:
        return str(UUID(key))
    except ValueError:
        return key


def _cost_usd(figure: TraceFigure) -> float | None:
    if figure.cost_pico is None or figure.unpriced_count:
        return None
    return figure.cost_pico / PICO_PER_USD
