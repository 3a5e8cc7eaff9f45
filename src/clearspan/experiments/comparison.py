"""Two or more experiments on one dataset, item by item: who got better or worse at what, and how sure that is. Pure.

The first experiment is the baseline; every other one is compared with it. An item is named by its comparison key.
Repetitions of an item are averaged first, so that each item weighs the same. A value that is missing is never taken for
0: a difference is made only of items where both sides have the value, and how many items lack it on which side is told
beside it. So for every measure and experiment

    pairs + missing on the baseline only + missing on the experiment only + missing on both = all items

Measures are the names of scores, and `cost` (US dollars) and `latency` (seconds), which stand beside the scores and do
not make an item a regression.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

from clearspan.experiments.bootstrap import Floats, Interval, intervals_of_means

COST, LATENCY = "cost", "latency"


class Kind(StrEnum):
    """What a measure is about."""

    SCORE = "score"
    COST = "cost"
    LATENCY = "latency"

    __hash__ = str.__hash__  # an Enum's own is ten times slower, and each value of each item is found by it


class Direction(StrEnum):
    """Which end of a measure's scale is the good one."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


_COST: Final = (Kind.COST, COST)
_LATENCY: Final = (Kind.LATENCY, LATENCY)


class Measure(NamedTuple):
    """One thing that sides are compared by."""

    kind: Kind
    name: str  # of the scores; for cost and latency the kind's own
    direction: Direction
    direction_is_said: bool = True  # False: nobody said; more is taken for better

    @property
    def sign(self) -> int:
        """1 if more is better, else -1."""
        return 1 if self.direction is Direction.MAXIMIZE else -1


class Outcome(NamedTuple):
    """One result of one item."""

    key: str  # the comparison key
    trace_id: str
    scores: Mapping[str, float] = {}
    cost_usd: float | None = None
    latency_s: float | None = None
    failed: bool = False
    waiting: bool = False


class ItemSide(NamedTuple):
    """The results of one item in one experiment, averaged; of each value over the results that have it."""

    trace_ids: tuple[str, ...]
    values: Mapping[tuple[Kind, str], float]
    failed: int
    waiting: int


class Verdict(StrEnum):
    """What became of an item; the order of lists."""

    REGRESSED = "regressed"  # some score is worse in some experiment
    MISSING = "missing"  # not worse where it can be compared, and some result or score is missing
    UNCHANGED = "unchanged"
    IMPROVED = "improved"


class ItemComparison(NamedTuple):
    """One item in all experiments."""

    key: str
    sides: tuple[ItemSide | None, ...]  # None: no result there
    verdict: Verdict
    loss: float  # the largest loss of a score of it as part of what that score spans over all items: 0 to 1


class Difference(NamedTuple):
    """A measure of one experiment against the baseline, over the items that have it in both."""

    n: int
    baseline_mean: float | None  # of those items; None: there are none
    mean: float | None
    difference: float | None  # mean - baseline_mean
    interval: Interval | None  # of the difference; None: fewer than two items
    improved: int
    regressed: int
    unchanged: int
    missing_baseline: int
    missing: int  # on the experiment only
    missing_both: int


class SideValue(NamedTuple):
    """A measure of one experiment alone."""

    n: int
    mean: float | None


class MeasureComparison(NamedTuple):
    """A measure in all experiments."""

    measure: Measure
    sides: tuple[SideValue, ...]
    differences: tuple[Difference, ...]  # of each experiment but the baseline


class SideSummary(NamedTuple):
    """What one experiment has of the items of all."""

    items: int  # with a result
    missing: int  # without one, while another experiment has one, or the dataset an item
    results: int
    failed: int
    waiting: int
    without_key: int  # results that name no item: they are compared with nothing


class Comparison(NamedTuple):
    """Experiments against the first of them."""

    items: tuple[ItemComparison, ...]  # regressions first, the largest loss first
    measures: tuple[MeasureComparison, ...]  # cost, latency, then scores by name
    sides: tuple[SideSummary, ...]

    def count(self, verdict: Verdict) -> int:
        """How many items ended so."""
        return sum(each.verdict is verdict for each in self.items)


class Side(NamedTuple):
    """One experiment: its results, and how many more name no item."""

    outcomes: Sequence[Outcome]
    without_key: int = 0


def compare(
    sides: Sequence[Side],
    *,
    directions: Mapping[str, Direction] | None = None,
    evaluators: Sequence[str] | None = None,
    items: Iterable[str] = (),
) -> Comparison:
    """Compare experiments with the first of them.

    Args:
        sides: at least two.
        directions: by name of score; more is better where nothing is said.
        evaluators: only these scores; None: all that any side has.
        items: keys of items that count although no side may have a result of them.
    Cost: about 4 µs for each result and 1 µs for each item and measure, and an interval (bootstrap.py) for each
        measure and experiment.
    """
    if len(sides) < 2:
        raise ValueError("a comparison needs two experiments")
    by_key = [_by_key(side.outcomes) for side in sides]
    keys = sorted(set(items).union(*by_key))
    measures = _measures(by_key, directions or {}, evaluators)
    table = _columns(measures, keys, by_key)
    scores = [measure for measure in measures if measure.kind is Kind.SCORE]
    compared = tuple(_measured(measure, table[measure]) for measure in measures)
    compared = _with_intervals(compared, table)
    return Comparison(
        _ordered(keys, by_key, {each: table[each] for each in scores}),
        compared,
        tuple(_summary(side, grouped, len(keys)) for side, grouped in zip(sides, by_key, strict=True)),
    )


# ---- sides -----------------------------------------------------------------------------------------------------------


def _by_key(outcomes: Sequence[Outcome]) -> dict[str, ItemSide]:
    first: dict[str, Outcome] = {}
    more: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if first.setdefault(outcome.key, outcome) is not outcome:
            more.setdefault(outcome.key, [first[outcome.key]]).append(outcome)
    names = {name: (Kind.SCORE, name) for outcome in outcomes for name in outcome.scores}
    return {key: _averaged(more[key]) if key in more else _alone(outcome, names) for key, outcome in first.items()}


def _averaged(outcomes: Sequence[Outcome]) -> ItemSide:
    held: dict[tuple[Kind, str], list[float]] = {}
    for outcome in outcomes:
        for name, score in outcome.scores.items():
            held.setdefault((Kind.SCORE, name), []).append(score)
        if outcome.cost_usd is not None:
            held.setdefault(_COST, []).append(outcome.cost_usd)
        if outcome.latency_s is not None:
            held.setdefault(_LATENCY, []).append(outcome.latency_s)
    values = {
        what: math.fsum(known) / len(known) for what, known in held.items() if all(math.isfinite(x) for x in known)
    }
    return ItemSide(
        tuple(sorted(outcome.trace_id for outcome in outcomes)),
        values,
        sum(outcome.failed for outcome in outcomes),
        sum(outcome.waiting for outcome in outcomes),
    )


def _alone(outcome: Outcome, names: Mapping[str, tuple[Kind, str]]) -> ItemSide:
    """The same of a single result, as most items have. All share the keys that `names` gives to their scores."""
    values = {names[name]: score for name, score in outcome.scores.items() if math.isfinite(score)}
    if outcome.cost_usd is not None and math.isfinite(outcome.cost_usd):
        values[_COST] = outcome.cost_usd
    if outcome.latency_s is not None and math.isfinite(outcome.latency_s):
        values[_LATENCY] = outcome.latency_s
    return ItemSide((outcome.trace_id,), values, int(outcome.failed), int(outcome.waiting))


def _summary(side: Side, grouped: Mapping[str, ItemSide], items: int) -> SideSummary:
    return SideSummary(
        items=len(grouped),
        missing=items - len(grouped),
        results=len(side.outcomes) + side.without_key,
        failed=sum(outcome.failed for outcome in side.outcomes),
        waiting=sum(outcome.waiting for outcome in side.outcomes),
        without_key=side.without_key,
    )


# ---- measures --------------------------------------------------------------------------------------------------------


def _measures(
    by_key: Sequence[Mapping[str, ItemSide]], directions: Mapping[str, Direction], evaluators: Sequence[str] | None
) -> list[Measure]:
    seen = {what for side in by_key for item in side.values() for what in item.values}
    there = {name for kind, name in seen if kind is Kind.SCORE}
    names = sorted(there if evaluators is None else set(evaluators))
    return [
        Measure(Kind.COST, COST, Direction.MINIMIZE),
        Measure(Kind.LATENCY, LATENCY, Direction.MINIMIZE),
        *(Measure(Kind.SCORE, name, directions.get(name, Direction.MAXIMIZE), name in directions) for name in names),
    ]


_Column = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""Values of one measure: a row a side, a column an item; NaN is missing."""


def _columns(
    measures: Sequence[Measure], keys: Sequence[str], by_key: Sequence[Mapping[str, ItemSide]]
) -> dict[Measure, _Column]:
    nothing: Mapping[tuple[Kind, str], float] = {}
    values = [[nothing if (item := side.get(key)) is None else item.values for key in keys] for side in by_key]
    found: dict[Measure, _Column] = {}
    for measure in measures:
        what = (measure.kind, measure.name)
        rows = [np.fromiter((each.get(what, math.nan) for each in side), np.float64, len(keys)) for side in values]
        found[measure] = np.stack(rows)
    return found


def _measured(measure: Measure, column: _Column) -> MeasureComparison:
    known = ~np.isnan(column)
    alone = tuple(
        SideValue(int(there.sum()), float(row[there].mean()) if there.any() else None)
        for row, there in zip(column, known, strict=True)
    )
    return MeasureComparison(measure, alone, tuple(_difference(measure, column[0], row) for row in column[1:]))


def _with_intervals(
    compared: tuple[MeasureComparison, ...], table: Mapping[Measure, _Column]
) -> tuple[MeasureComparison, ...]:
    """With the interval of every difference: all at once, because samples of one length are drawn from alike."""
    places = [(each.measure, side) for each in compared for side in range(1, len(table[each.measure]))]
    samples = [_paired(table[measure][0], table[measure][side]) for measure, side in places]
    found = dict(zip(places, intervals_of_means(samples), strict=True))
    return tuple(
        each._replace(
            differences=tuple(
                difference._replace(interval=found[each.measure, side])
                for side, difference in enumerate(each.differences, 1)
            )
        )
        for each in compared
    )


def _paired(baseline: Floats, other: Floats) -> Floats:
    """The differences of those items that have both values."""
    differences = other - baseline
    return differences[~np.isnan(differences)]


def _difference(measure: Measure, baseline: Floats, other: Floats) -> Difference:
    """All but the interval."""
    has_baseline, has_other = ~np.isnan(baseline), ~np.isnan(other)
    both = has_baseline & has_other
    n = int(both.sum())
    gains = (other[both] - baseline[both]) * measure.sign
    return Difference(
        n=n,
        baseline_mean=float(baseline[both].mean()) if n else None,
        mean=float(other[both].mean()) if n else None,
        difference=float((other[both] - baseline[both]).mean()) if n else None,
        interval=None,
        improved=int((gains > 0).sum()),
        regressed=int((gains < 0).sum()),
        unchanged=int((gains == 0).sum()),
        missing_baseline=int((~has_baseline & has_other).sum()),
        missing=int((has_baseline & ~has_other).sum()),
        missing_both=int((~has_baseline & ~has_other).sum()),
    )


# ---- items -----------------------------------------------------------------------------------------------------------


_REGRESSED, _MISSING, _UNCHANGED, _IMPROVED = range(len(Verdict))  # in the order of lists


def _ordered(
    keys: Sequence[str], by_key: Sequence[Mapping[str, ItemSide]], scores: Mapping[Measure, _Column]
) -> tuple[ItemComparison, ...]:
    """Regressions first, the largest loss first; then what is missing, what is the same, what is better by how much."""
    losses, gains, lacks = (np.zeros(len(keys)), np.zeros(len(keys)), np.zeros(len(keys), dtype=bool))
    for measure, column in scores.items():
        gain = _part_of_spread(column) * measure.sign
        losses = np.maximum(losses, np.max(np.where(np.isnan(gain), 0.0, -gain), axis=0))
        gains = np.maximum(gains, np.max(np.where(np.isnan(gain), 0.0, gain), axis=0))
        lacks |= np.isnan(column).any(axis=0)
    sides = list(zip(*([side.get(key) for key in keys] for side in by_key), strict=True))
    lacks |= np.array([None in each for each in sides], dtype=bool)
    verdicts = np.select([losses > 0, lacks, gains > 0], [_REGRESSED, _MISSING, _IMPROVED], _UNCHANGED)
    # Keys are in order: what all else leaves equal stays as it is.
    order = np.lexsort((gains, -losses, verdicts)).tolist()
    of_number, loss_of = list(Verdict), losses.tolist()
    return tuple(
        ItemComparison(keys[at], sides[at], of_number[no], loss_of[at])
        for at, no in zip(order, verdicts[order].tolist(), strict=True)
    )


def _part_of_spread(column: _Column) -> _Column:
    """Each side's value less the baseline's, as part of what all values span; NaN where one is missing."""
    known = column[~np.isnan(column)]
    # Divided first: the span of two finite numbers need not be one.
    scaled = column / (float(np.abs(known).max(initial=0.0)) or 1.0)
    spread = float(np.nanmax(scaled) - np.nanmin(scaled)) if known.size else 0.0
    parts: _Column = (scaled[1:] - scaled[0]) / (spread or 1.0)
    return parts
