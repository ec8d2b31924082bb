"""Rank correlation, ties sharing their mean rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranks", "spearman"]


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    r"""Return Spearman's rank correlation, in [-1, 1]; None where either is constant.

    Pearson's correlation of the ranks, which ties share.

    Args:
        first: Finite values.
        second: As many of them.

    Example:
        >>> spearman([1, 2, 3, 4], [1, 8, 27, 64]), spearman([1, 2, 3], [5, 5, 5])
        (1.0, None)
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    # Twice the distance from the mean rank is a whole number, so the sums are exact.
    one, two = (2 * ranks(values) - (len(values) + 1) for values in (first, second))
    return float(one @ two / np.sqrt((one @ one) * (two @ two)))


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the rank of each value, from 1; equal ones share their mean rank.

    Example:
        >>> ranks([0.5, 0.1, 0.5, 0.9]).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = last - (counts - 1) / 2
    return mean[places]
