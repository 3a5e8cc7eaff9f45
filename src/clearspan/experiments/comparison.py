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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, overload

import numpy as np

from clearspan.experiments.bootstrap import Interval, intervals_of_means
from clearspan.experiments.comparison_sides import (
    COST,
    LATENCY,
    Floats,
    Ints,
    ItemSide,
    Kind,
    Side,
    SideItems,
    What,
)

MEASURES_AT_ONCE: Final = 16
"""So many measures are held as columns of all items: 8 bytes each for an item and side."""


class Direction(StrEnum):
    """Which end of a measure's scale is the good one."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class Measure(NamedTuple):
    """One thing that sides are compared by."""

    kind: Kind
    name: str  # of the scores; for cost and latency the kind's own
    direction: Direction
    direction_is_said: bool = True  # False: nobody said; more is taken for better

    @property
    def what(self) -> What:
        """The values that it is about."""
        return self.kind, self.name

    @property
    def sign(self) -> int:
        """1 if more is better, else -1."""
        return 1 if self.direction is Direction.MAXIMIZE else -1


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


class ItemList(Sequence[ItemComparison]):
    """The items of a comparison, regressions first, the largest loss first. Each is made when it is asked for: there
    are many, and of a page few.

    Args:
        keys: by number of the item.
        order: the numbers of the items as they are listed; `verdicts` (the place of each in Verdict) and `losses` are
            in that order too. Shape (items,) each.
    """

    def __init__(
        self, keys: Sequence[str], sides: Sequence[SideItems], order: Ints, verdicts: Ints, losses: Floats
    ) -> None:
        self._keys = keys
        self._sides = sides
        self._order = order
        self._verdicts = verdicts
        self._losses = losses

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> ItemComparison: ...

    @overload
    def __getitem__(self, at: slice) -> list[ItemComparison]: ...

    def __getitem__(self, at: int | slice) -> ItemComparison | list[ItemComparison]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        number = int(self._order[at])
        return ItemComparison(
            self._keys[number],
            tuple(side.item(number) for side in self._sides),
            _VERDICTS[self._verdicts[at]],
            float(self._losses[at]),
        )

    def places(self, verdict: Verdict | None) -> range:
        """Where the items that ended so are; None: where all are."""
        if verdict is None:
            return range(len(self))
        number = _VERDICTS.index(verdict)
        return range(*np.searchsorted(self._verdicts, (number, number + 1)).tolist())


class Comparison(NamedTuple):
    """Experiments against the first of them."""

    items: ItemList
    measures: tuple[MeasureComparison, ...]  # cost, latency, then scores by name
    sides: tuple[SideSummary, ...]

    def count(self, verdict: Verdict) -> int:
        """How many items ended so."""
        return len(self.items.places(verdict))


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
    Cost: about 1 µs for each result and 0.1 µs for each item and measure, and an interval (bootstrap.py) for each
        measure and experiment. Memory: 0.3 KB an item beside what the sides are.
    """
    if len(sides) < 2:
        raise ValueError("a comparison needs two experiments")
    keys = sorted(set(items).union(*(side.keys for side in sides)))
    number_of = {key: number for number, key in enumerate(keys)}
    by_item = [SideItems(side, number_of) for side in sides]
    measures = _measures(by_item, directions or {}, evaluators)
    standing = _Standing(by_item)
    compared: list[MeasureComparison] = []
    for start in range(0, len(measures), MEASURES_AT_ONCE):
        table = {each: _column(each, by_item) for each in measures[start : start + MEASURES_AT_ONCE]}
        compared += _compared(table)
        standing.count({measure: column for measure, column in table.items() if measure.kind is Kind.SCORE})
    summaries = tuple(_summary(each) for each in by_item)
    return Comparison(standing.listed(keys), tuple(compared), summaries)


def _summary(items: SideItems) -> SideSummary:
    side, there = items.side, int(items.has.sum())
    return SideSummary(
        items=there,
        missing=len(items.has) - there,
        results=len(side.keys) + side.without_key,
        failed=int(side.failed.sum()),
        waiting=int(side.waiting.sum()),
        without_key=side.without_key,
    )


# ---- measures --------------------------------------------------------------------------------------------------------


def _measures(
    sides: Sequence[SideItems], directions: Mapping[str, Direction], evaluators: Sequence[str] | None
) -> list[Measure]:
    names = sorted(set(_names(sides) if evaluators is None else evaluators))
    return [
        Measure(*COST, Direction.MINIMIZE),
        Measure(*LATENCY, Direction.MINIMIZE),
        *(Measure(Kind.SCORE, name, directions.get(name, Direction.MAXIMIZE), name in directions) for name in names),
    ]


def _names(sides: Sequence[SideItems]) -> Iterator[str]:
    """The scores that some item has."""
    for items in sides:
        for what, said in items.side.said.items():
            if what[0] is not Kind.SCORE or not len(said.rows):
                continue
            if np.isfinite(said.values).all() or not np.isnan(items.means(what)).all():
                yield what[1]


_Column = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""Values of one measure: a row a side, a column an item; NaN is missing."""


def _column(measure: Measure, sides: Sequence[SideItems]) -> _Column:
    column: _Column = np.stack([side.means(measure.what) for side in sides])
    return column


def _compared(table: Mapping[Measure, _Column]) -> list[MeasureComparison]:
    """With the interval of every difference: all at once, because samples of one length are drawn from alike."""
    places = [(measure, side) for measure, column in table.items() for side in range(1, len(column))]
    samples = [_paired(table[measure][0], table[measure][side]) for measure, side in places]
    found = dict(zip(places, intervals_of_means(samples), strict=True))
    return [
        MeasureComparison(
            measure,
            tuple(_alone(row) for row in column),
            tuple(
                _difference(measure, column[0], column[side], found[measure, side]) for side in range(1, len(column))
            ),
        )
        for measure, column in table.items()
    ]


def _alone(row: Floats) -> SideValue:
    known = row[~np.isnan(row)]
    return SideValue(len(known), float(known.mean()) if len(known) else None)


def _paired(baseline: Floats, other: Floats) -> Floats:
    """The differences of those items that have both values."""
    differences = other - baseline
    return differences[~np.isnan(differences)]


def _difference(measure: Measure, baseline: Floats, other: Floats, interval: Interval | None) -> Difference:
    has_baseline, has_other = ~np.isnan(baseline), ~np.isnan(other)
    both = has_baseline & has_other
    n = int(both.sum())
    gains = (other[both] - baseline[both]) * measure.sign
    return Difference(
        n=n,
        baseline_mean=float(baseline[both].mean()) if n else None,
        mean=float(other[both].mean()) if n else None,
        difference=float((other[both] - baseline[both]).mean()) if n else None,
        interval=interval,
        improved=int((gains > 0).sum()),
        regressed=int((gains < 0).sum()),
        unchanged=int((gains == 0).sum()),
        missing_baseline=int((~has_baseline & has_other).sum()),
        missing=int((has_baseline & ~has_other).sum()),
        missing_both=int((~has_baseline & ~has_other).sum()),
    )


# ---- items -----------------------------------------------------------------------------------------------------------


_VERDICTS: Final = tuple(Verdict)
_REGRESSED, _MISSING, _UNCHANGED, _IMPROVED = range(len(_VERDICTS))  # in the order of lists


class _Standing:
    """What the scores make of each item: the largest loss and gain, and whether something lacks."""

    def __init__(self, sides: Sequence[SideItems]) -> None:
        self._sides = sides
        has = np.stack([side.has for side in sides])
        self._lacks = ~has.all(axis=0)
        self._losses, self._gains = np.zeros(has.shape[1]), np.zeros(has.shape[1])

    def count(self, scores: Mapping[Measure, _Column]) -> None:
        """Count some more scores in."""
        for measure, column in scores.items():
            gain = _part_of_spread(column) * measure.sign
            gain[np.isnan(gain)] = 0.0
            self._losses = np.maximum(self._losses, np.max(-gain, axis=0))
            self._gains = np.maximum(self._gains, np.max(gain, axis=0))
            self._lacks |= np.isnan(column).any(axis=0)

    def listed(self, keys: Sequence[str]) -> ItemList:
        """Regressions first, the largest loss first; then what is missing, what is the same, what is better by how
        much."""
        losses, gains = self._losses, self._gains
        verdicts = np.select([losses > 0, self._lacks, gains > 0], [_REGRESSED, _MISSING, _IMPROVED], _UNCHANGED)
        # Keys are in order: what all else leaves equal stays as it is.
        order = np.lexsort((gains, -losses, verdicts))
        return ItemList(keys, self._sides, order, verdicts[order], losses[order])


def _part_of_spread(column: _Column) -> _Column:
    """Each side's value less the baseline's, as part of what all values span; NaN where one is missing."""
    known = column[~np.isnan(column)]
    # Divided first: the span of two finite numbers need not be one.
    scaled = column / (float(np.abs(known).max(initial=0.0)) or 1.0)
    spread = float(np.nanmax(scaled) - np.nanmin(scaled)) if known.size else 0.0
    parts: _Column = (scaled[1:] - scaled[0]) / (spread or 1.0)
    return parts
