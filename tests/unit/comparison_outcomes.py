"""Results one by one, as tests write them, and the columns that a comparison takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from clearspan.experiments.comparison_sides import COST, LATENCY, Kind, Said, Side, What


class Outcome(NamedTuple):
    """One result of one item."""

    key: str
    trace_id: str
    scores: Mapping[str, float] = {}
    cost_usd: float | None = None
    latency_s: float | None = None
    failed: bool = False
    waiting: bool = False

    @property
    def values(self) -> dict[What, float]:
        """All that it says."""
        found: dict[What, float] = {(Kind.SCORE, name): score for name, score in self.scores.items()}
        return found | {
            what: each for what, each in ((COST, self.cost_usd), (LATENCY, self.latency_s)) if each is not None
        }


def side_of(outcomes: Sequence[Outcome], without_key: int = 0) -> Side:
    """The columns of results."""
    said = {what: [] for each in outcomes for what in each.values}  # type: dict[What, list[tuple[int, float]]]
    for row, each in enumerate(outcomes):
        for what, value in each.values.items():
            said[what].append((row, value))
    return Side(
        [each.key for each in outcomes],
        [each.trace_id for each in outcomes],
        {
            what: Said(
                np.array([row for row, _ in pairs], np.int64), np.array([value for _, value in pairs], np.float64)
            )
            for what, pairs in said.items()
        },
        np.array([each.failed for each in outcomes], np.bool_),
        np.array([each.waiting for each in outcomes], np.bool_),
        without_key,
    )


def outcomes_of(side: Side) -> list[Outcome]:
    """The results of columns."""
    values: list[dict[What, float]] = [{} for _ in side.keys]
    for what, said in side.said.items():
        for row, value in zip(said.rows.tolist(), said.values.tolist(), strict=True):
            values[row][what] = value
    return [
        Outcome(
            key,
            side.trace_ids[row],
            {name: value for (kind, name), value in values[row].items() if kind is Kind.SCORE},
            values[row].get(COST),
            values[row].get(LATENCY),
            bool(side.failed[row]),
            bool(side.waiting[row]),
        )
        for row, key in enumerate(side.keys)
    ]
