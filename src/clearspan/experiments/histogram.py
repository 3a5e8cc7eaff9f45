"""How the scores of one evaluator are spread: bins of numbers, of true and false, of words. Pure.

What was not scored is in no bin and in no figure: a missing score is not zero. A score that is neither a number nor a
word (JSON, a comment) cannot be put into a bin; `unbinned` counts those, so that none is passed over.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

BINS_DEFAULT: Final = 20
BINS_MAX: Final = 50
OTHER: Final = "(other)"
"""The last bin of words when there are more than BINS_MAX of them."""


class Bin(NamedTuple):
    """One bin of `[lower, upper)`; the last one of numbers holds its upper end, too."""

    lower: float
    upper: float
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    label: str | None = None


class Stats(NamedTuple):
    """Over the scores that are numbers. None: there are none."""

    min: float | None
    max: float | None
    mean: float | None


class Histogram(NamedTuple):
    """The bins, lowest first. Of single values each is in exactly one bin; a choice of several counts in each."""

    bins: list[Bin]
    stats: Stats
    total: int  # scored results
    unbinned: int = 0  # of them, those that no bin can hold


def number_bins(values: Sequence[float], bins: int = BINS_DEFAULT) -> Histogram:
    """Numbers in `bins` bins of equal width from the least to the greatest; equal numbers make a single bin.

    Args:
        values: finite.
        bins: 1 to BINS_MAX.
    """
    assert 1 <= bins <= BINS_MAX
    if not values:
        return Histogram([], _stats(values), 0)
    low, high = min(values), max(values)
    if low == high:
        return Histogram([Bin(low, high, len(values))], _stats(values), len(values))
    edges = _edges(low, high, bins)
    counts = [0] * bins
    for value in values:
        # By the edges that are told, not by a division that may round another way.
        counts[min(bisect_right(edges, value), bins) - 1] += 1
    found = [Bin(edges[i], edges[i + 1], count) for i, count in enumerate(counts)]
    return Histogram(found, _stats(values), len(values))


def truth_bins(values: Sequence[bool]) -> Histogram:
    """Two bins, `false` and `true`, whether or not somebody is in them."""
    if not values:
        return Histogram([], _stats([]), 0)
    yes = sum(values)
    found = [Bin(0.0, 0.5, len(values) - yes, "false"), Bin(0.5, 1.0, yes, "true")]
    return Histogram(found, _stats([float(value) for value in values]), len(values))


def word_bins(choices: Sequence[Sequence[str]], values: Sequence[float] = ()) -> Histogram:
    """One bin a word, in the order of the words; beyond BINS_MAX of them the rarest share the last.

    Args:
        choices: of each scored result its words, usually one.
        values: the scores that stand beside the words as numbers, for the figures.
    """
    counted = Counter(word for words in choices for word in dict.fromkeys(words))
    if len(counted) > BINS_MAX:
        by_count = sorted(counted, key=lambda word: (-counted[word], word))
        kept = sorted(by_count[: BINS_MAX - 1])
        counts = [(word, counted[word]) for word in kept]
        counts.append((OTHER, sum(counted[word] for word in by_count[BINS_MAX - 1 :])))
    else:
        counts = [(word, counted[word]) for word in sorted(counted)]
    found = [Bin(float(i), float(i + 1), count, word) for i, (word, count) in enumerate(counts)]
    return Histogram(found, _stats(values), len(choices))


def _edges(low: float, high: float, bins: int) -> list[float]:
    """`bins` + 1 bounds that never fall, from `low` to `high` exactly, however far apart those are."""
    edges = [low]
    for i in range(1, bins):
        share = i / bins
        edges.append(min(high, max(edges[-1], low * (1 - share) + high * share)))
    return [*edges, high]


def _stats(values: Sequence[float]) -> Stats:
    if not values:
        return Stats(None, None, None)
    low, high = min(values), max(values)
    mean = math.fsum(value / len(values) for value in values)  # a sum of the values could be too large
    return Stats(low, high, min(high, max(low, mean)))
