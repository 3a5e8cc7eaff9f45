"""The interval of a mean by bootstrap: how sure the mean of a sample of differences is. Pure and seeded.

BCa (bias-corrected and accelerated; B. Efron, "Better Bootstrap Confidence Intervals", Journal of the American
Statistical Association 82, 1987): percentiles of the means of resamples, moved for the bias and the skew of the sample.
For a mean the jackknife's acceleration is the skewness of the sample divided by 6 √n.
"""

from __future__ import annotations

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
    """The BCa interval of the mean of a sample; None for fewer than two values, or some that are not finite.

    The same values in the same order give the same interval; their negatives give its mirror image.

    Args:
        values: shape (n,).
    Cost: n values drawn per resample, 10 ns each; memory a million of them.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return None
    resamples = max(RESAMPLES_MIN, min(RESAMPLES_MAX, DRAWS_MAX // n))
    mean = float(values.mean())
    if (values == values[0]).all():
        return Interval(mean, mean, level, resamples)
    centred = values - mean
    unit = float(np.abs(centred).max())  # so that squares and cubes neither vanish nor run over
    centred /= unit
    means = np.sort(_resampled(centred, resamples, seed))
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
    return Interval(mean + unit * float(low), mean + unit * float(high), level, resamples)


def _resampled(values: Floats, resamples: int, seed: int) -> Floats:
    """The means of so many samples drawn from the values with repetition, a piece at a time."""
    rng = np.random.default_rng(seed)
    n = len(values)
    piece = max(1, _CHUNK // n)
    out = np.empty(resamples)
    for start in range(0, resamples, piece):
        count = min(piece, resamples - start)
        out[start : start + count] = values[rng.integers(0, n, size=(count, n), dtype=np.int32)].mean(axis=1)
    return out
