"""The interval of a mean by bootstrap: how sure the mean of a sample of differences is. Pure and seeded.

BCa (bias-corrected and accelerated; B. Efron, "Better Bootstrap Confidence Intervals", Journal of the American
Statistical Association 82, 1987): percentiles of the means of resamples, moved for the bias and the skew of the sample.
For a mean the jackknife's acceleration is the skewness of the sample divided by 6 √n.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES_MAX: Final = 5_000
RESAMPLES_MIN: Final = 500
DRAWS_MAX: Final = 20_000_000
"""So many values are drawn for one interval at most, unless RESAMPLES_MIN asks for more: 0.1 to 0.6 s."""
LEVEL: Final = 0.95
SEED: Final = 20_260_101
_CHUNK: Final = 1_000_000

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

    Args:
        samples: of shape (n,) each.
    Cost: n values drawn per resample, 5 ns each, once for all samples of one length, and 5 ns for each sample to look
        them up; memory a million of them.
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


def _resampled(samples: Sequence[Floats], resamples: int, seed: int) -> Floats:
    """The means of so many resamples, drawn with repetition, a piece at a time; shape (samples, resamples).

    Args:
        samples: of one length. Each is drawn from alike.
    """
    rng = np.random.default_rng(seed)
    n = len(samples[0])
    piece = max(1, _CHUNK // n)
    out = np.empty((len(samples), resamples))
    for start in range(0, resamples, piece):
        count = min(piece, resamples - start)
        drawn = rng.integers(0, n, size=(count, n), dtype=np.int32).astype(np.intp)  # what `take` wants, once for all
        for row, values in zip(out, samples, strict=True):
            row[start : start + count] = values.take(drawn).mean(axis=1)
    return out
