"""The interval of a mean by bootstrap: how sure the mean of a sample of differences is. Pure and seeded.

BCa (bias-corrected and accelerated; B. Efron, "Better Bootstrap Confidence Intervals", Journal of the American
Statistical Association 82, 1987): percentiles of the means of resamples, moved for the bias and the skew of the sample.
For a mean the jackknife's acceleration is the skewness of the sample divided by 6 √n.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES_MAX: Final = 5_000
RESAMPLES_MIN: Final = 500
DRAWS_MAX: Final = 20_000_000
"""So many values are drawn for one interval at most, unless RESAMPLES_MIN asks for more: 0.1 to 0.5 s."""
LEVEL: Final = 0.95
SEED: Final = 20_260_101
DISTINCT_PART: Final = 32
"""With at most one distinct value in so many it is drawn how often each comes: 100 ns each; else 8 ns a draw."""
_CHUNK: Final = 2**17
"""So many draws at once, unless one resample takes more: their counts stay in the processor's cache."""
_ROUNDING: Final = 1e-12
"""A mean this near to 0, of values that reach to 1, is 0: nothing but rounding lies between."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Where the mean lies with a probability of `level`, as far as the sample can say."""

    low: float
    high: float
    level: float
    resamples: int


def interval_of_mean(values: Floats, *, level: float = LEVEL, seed: int = SEED) -> Interval | None:
    """As `intervals_of_means`, of one sample."""
    return intervals_of_means([values], level=level, seed=seed)[0]


def intervals_of_means(samples: Sequence[Floats], *, level: float = LEVEL, seed: int = SEED) -> list[Interval | None]:
    """The BCa interval of the mean of each sample; None for fewer than two values, or some that are not finite.

    The same values in the same order give the same interval, whatever samples stand beside them; their negatives give
    its mirror image.

    A resample is told by how often it holds each value, for its mean needs no more. Of a sample with few distinct
    values those counts are drawn themselves: they are multinomial, each value with the part of the sample that it is.

    Args:
        samples: of shape (n,) each.
    Cost: n values drawn per resample, 8 ns each, once for all samples of one length, and 1 ns for each sample to weigh
        them; of few distinct values 100 ns for each of them and resample. Memory: 32 bytes for each of n or _CHUNK
        values, whichever is more.
    """
    found: list[Interval | None] = [None] * len(samples)
    spread: defaultdict[int, list[int]] = defaultdict(list)  # length → the samples whose means differ
    for at, values in enumerate(samples):
        if len(values) < 2 or not np.isfinite(values).all():
            continue
        if (values == values[0]).all():
            mean = float(values.mean())
            found[at] = Interval(mean, mean, level, _count(len(values)))
        else:
            spread[len(values)].append(at)
    for n, places in spread.items():
        centred = [samples[at] - float(samples[at].mean()) for at in places]
        units = [float(np.abs(each).max()) for each in centred]  # so that squares and cubes neither vanish nor run over
        centred = [each / unit for each, unit in zip(centred, units, strict=True)]
        means = _resampled(centred, _count(n), seed)
        for at, each, unit, row in zip(places, centred, units, means, strict=True):
            low, high = _bounds(each, np.sort(row), level)
            mean = float(samples[at].mean())
            found[at] = Interval(mean + unit * low, mean + unit * high, level, _count(n))
    return found


def _count(n: int) -> int:
    return max(RESAMPLES_MIN, min(RESAMPLES_MAX, DRAWS_MAX // n))


def _bounds(centred: Floats, means: Floats, level: float) -> tuple[float, float]:
    """The interval of a sample whose mean is 0, by the means of its resamples in order."""
    resamples = len(means)
    normal = NormalDist()
    # Half of the ties on either side, so that a sample and its negatives are treated alike.
    below = (np.searchsorted(means, 0.0, "left") + np.searchsorted(means, 0.0, "right")) / (2 * resamples)
    bias = normal.inv_cdf(min(max(float(below), 1 / (2 * resamples)), 1 - 1 / (2 * resamples)))
    squares = float((centred**2).sum())
    acceleration = float((centred**3).sum()) / (6 * squares**1.5)

    def moved(probability: float) -> float:
        z = bias + normal.inv_cdf(probability)
        return normal.cdf(bias + z / (1 - acceleration * z))

    tail = (1 - level) / 2
    low, high = np.quantile(means, [moved(tail), moved(1 - tail)])
    return float(low), float(high)


def _resampled(samples: Sequence[Floats], resamples: int, seed: int) -> list[Floats]:
    """Of each sample the means of so many resamples, drawn with repetition.

    Args:
        samples: of one length, reaching to 1 at most. Those with many distinct values are drawn from alike.
    """
    n = len(samples[0])
    found: list[Floats] = [np.empty(resamples) for _ in samples]
    many: list[tuple[Floats, Floats]] = []  # values, and where their sums go
    for values, sums in zip(samples, found, strict=True):
        distinct, first, times = np.unique(values, return_index=True, return_counts=True)
        if len(distinct) * DISTINCT_PART > n:
            many.append((values, sums))
            continue
        order = np.argsort(first)  # as they come: that of a sample's negatives is the same
        _draw_times(distinct[order], times[order], sums, seed)
    if many:
        _draw_places(many, n, resamples, seed)
    for sums in found:
        sums /= n
        sums[np.abs(sums) < _ROUNDING] = 0.0
    return found


def _draw_times(distinct: Floats, times: NDArray[np.int64], sums: Floats, seed: int) -> None:
    """The sums of resamples, drawn as how often each distinct value comes."""
    rng, n = np.random.default_rng(seed), int(times.sum())
    for part in _pieces(len(sums), len(distinct)):
        drawn = rng.multinomial(n, times / n, size=part.stop - part.start).astype(np.float64)
        np.einsum("ij,j->i", drawn, distinct, out=sums[part])


def _draw_places(many: Sequence[tuple[Floats, Floats]], n: int, resamples: int, seed: int) -> None:
    """The same of several samples at once, drawn as the places of n values: each sample's values and its sums."""
    rng = np.random.default_rng(seed)
    for part in _pieces(resamples, n):
        count = part.stop - part.start
        places = rng.integers(0, n, size=(count, n))
        if count > 1:
            places += np.arange(0, count * n, n)[:, np.newaxis]
        times = np.bincount(places.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)
        for values, sums in many:
            # einsum rather than a matrix product: BLAS may share the work out, and what rounds how would depend on it.
            np.einsum("ij,j->i", times, values, out=sums[part])


def _pieces(resamples: int, width: int) -> Iterator[slice]:
    """The resamples by parts of about _CHUNK numbers, where each is `width` of them."""
    size = max(1, _CHUNK // width)
    for start in range(0, resamples, size):
        yield slice(start, min(start + size, resamples))
