r"""When the held-out metric of a level had recovered, although it is noisy.

With :math:`a_k` the metric at the readings of a level, the *end* :math:`e` is its mean over the
last quarter of them (at least one). The *noise* of a record is the standard deviation of the
metric around :math:`e` over those last quarters, pooled over all levels, and the *tolerance* twice
that. The *deficit* of a reading is :math:`d_k = e - a_k` where higher is better, else
:math:`a_k - e`. The level has recovered at the first reading with :math:`d_k` at most the
tolerance, after which no two readings in a row lie above it. A single one may: of readings that
scatter normally around the end one in forty does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

__all__ = ["deficits", "end_of", "is_within", "noise_of", "recovered_at"]


def end_of(metric: Sequence[float]) -> float | None:
    """Return the end of a level: the mean over its last quarter, None where nothing is finite.

    Example:
        >>> end_of([0.1, 0.5, 0.7, 0.8, 0.9, 0.9, 0.79, 0.81])
        0.8
    """
    tail = _tail(metric)
    return fmean(tail) if tail else None


def noise_of(levels: Iterable[Sequence[float]]) -> float:
    """Return the pooled standard deviation of the last quarters; 0 where each is one reading.

    Example:
        >>> noise_of([[0.1] * 6 + [0.8, 0.9], [0.1] * 6 + [0.6, 0.7]])
        0.0707106781186...
    """
    squares, freedom = 0.0, 0
    for metric in levels:
        tail = _tail(metric)
        if len(tail) > 1:
            end = fmean(tail)
            squares += sum((value - end) ** 2 for value in tail)
            freedom += len(tail) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def deficits(metric: Sequence[float], end: float | None, sign: int) -> list[float]:
    """Return how far each reading lies short of the end; NaN where that is not known.

    Args:
        metric: At every reading.
        end: From :func:`end_of`.
        sign: 1 where a higher metric is better, -1 where a lower one is.

    Example:
        >>> deficits([0.5, 1.0], 0.75, 1), deficits([0.5, 1.0], 0.75, -1)
        ([0.25, -0.25], [-0.25, 0.25])
    """
    if end is None:
        return [math.nan] * len(metric)
    return [sign * (end - value) if math.isfinite(value) else math.nan for value in metric]


def recovered_at(
    passes: Sequence[float], deficit: Sequence[float], tolerance: float
) -> float | None:
    """Return the passes from which on the deficit stays within the tolerance.

    Where it never does, which only noise at the very end brings about, those of the last reading;
    None where no deficit is known.

    Example:
        >>> recovered_at([1, 2, 3, 4, 5], [0.3, 0.1, 0.0, 0.1, 0.0], tolerance=0.05)
        3
    """
    if all(math.isnan(value) for value in deficit):
        return None
    within = [is_within(value, tolerance) for value in deficit]
    for place, fine in enumerate(within):
        later = within[place + 1 :]
        if fine and not any(not a and not b for a, b in pairwise(later)):
            return passes[place]
    return passes[-1]


def is_within(deficit: float, tolerance: float) -> bool:
    """Return whether a deficit is at most the tolerance, up to rounding; an unknown one is not.

    Example:
        >>> 0.86 - 0.85 <= 0.01, is_within(0.86 - 0.85, 0.01)
        (False, True)
    """
    return deficit <= tolerance + 1e-12


def _tail(metric: Sequence[float]) -> list[float]:
    """Return the finite values of the last quarter."""
    return [value for value in metric[-max(len(metric) // 4, 1) :] if math.isfinite(value)]
