r"""Means over seeds, and how sure they are.

Student's t with :math:`\nu` degrees of freedom has, for whole :math:`\nu`, a distribution of
closed form (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4); its quantile is found by bisection, so
nothing beyond numpy is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

from infcop.core.study import Estimate

__all__ = ["bootstrap_interval", "estimate", "t_quantile"]

_LEVEL = 0.95
_RESAMPLES = 10_000
_SEED = 0


def estimate(values: Sequence[float]) -> Estimate:
    r"""Return the mean of values with its 95 % interval.

    .. math:: \bar x \pm t_{0.975, n-1} \, s / \sqrt n

    The interval supposes that the values scatter like a normal distribution, as means over many
    test examples nearly do. A single value has none.

    Example:
        >>> found = estimate([0.84, 0.86, 0.85])
        >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4)
        (0.85, 0.8252, 0.8748)
        >>> estimate([0.85])
        Estimate(mean=0.85, low=None, high=None)
    """
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean=mean)
    half = t_quantile((1 + _LEVEL) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def bootstrap_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean of paired differences.

    Seeds are drawn with replacement, ten thousand times, always the same ones. It supposes no
    distribution, but knows only the seeds that were run: with three or four of them it is too
    narrow. A single difference has none.

    Example:
        >>> bootstrap_interval([0.01, 0.01, 0.01])
        (0.01, 0.01)
    """
    count = len(differences)
    if count < 2:
        return None
    drawn = np.random.default_rng(_SEED).integers(0, count, size=(_RESAMPLES, count))
    means = np.asarray(differences, dtype=np.float64)[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t.

    Args:
        probability: In [0.5, 1).
        freedom: Degrees of freedom, at least 1.

    Example:
        >>> round(t_quantile(0.975, 2), 4), round(t_quantile(0.975, 4), 4)
        (4.3027, 2.7764)
    """
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        if (1 + _within(middle, freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Return the probability that ``|t| < sqrt(freedom) * tan(angle)``."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(2 + odd, freedom - 1 + odd, 2):
        term *= cosine**2 * (step - 1) / step
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
