"""Layer-adaptive scores: how much a layer would lose with an entry and all larger ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infcop.core.mask import Masks
from infcop.errors import PruningError
from infcop.masking.rank import Part, kth_smallest, pieces
from infcop.masking.select import check_count, check_scores

__all__ = ["lamp_counts", "lamp_values"]

Numbers = NDArray[np.float64]


def lamp_counts(
    scores: Mapping[str, Tensor], masks: Masks, kept: int, keep_per_layer: int = 0
) -> dict[str, int]:
    """Return how many entries each layer keeps if the smallest LAMP values go, of all together.

    Within a layer the values are in the order of the scores, so that the counts and the scores say
    which entries they are. Of equal values those of the earlier layer go first.

    Args:
        scores: Scores of the names and shapes of ``masks``, none below 0.
        masks: What is alive.
        kept: Entries to keep in all layers together, at most those alive.
        keep_per_layer: Entries that a layer keeps at least, or all that it has.

    Raises:
        PruningError: Names or shapes differ, a score is NaN or negative, or ``kept`` is more than
            is alive.
        LayerCollapseError: ``kept`` is too small for ``keep_per_layer``.

    Example:
        >>> scores = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.1, 0.2, 0.2])}
        >>> lamp_counts(scores, Masks.full({"a": (2,), "b": (3,)}), kept=3)
        {'a': 1, 'b': 2}
    """
    values: dict[str, Numbers] = {}
    for name, checked in check_scores("lamp_counts", scores, masks).items():
        own = Part(checked.reshape(-1), masks[name].reshape(-1))
        alive = np.concatenate([np.zeros(0, np.float32), *(v[a] for _, _, v, a in pieces([own]))])
        if len(alive) and alive.min() < 0:
            raise PruningError(
                f"scope 'lamp' needs scores of at least 0, got {alive.min():g} in '{name}'; use "
                "another scope, or a score without a sign such as 'magnitude'"
            )
        values[name] = lamp_values(alive)
    check_count("lamp_counts", masks.kept_per_layer, kept, keep_per_layer)
    removal = masks.kept - kept
    pool = {name: ranked[: max(len(ranked) - keep_per_layer, 0)] for name, ranked in values.items()}
    if removal == 0:
        return masks.kept_per_layer
    parts = [Part(torch.from_numpy(v), torch.ones(len(v), dtype=torch.bool)) for v in pool.values()]
    cut = kth_smallest(parts, removal)
    ties = cut.ties
    counts = {}
    for name, ranked in pool.items():
        smaller = int(np.searchsorted(ranked, cut.value, side="left"))
        tied = min(ties, int(np.searchsorted(ranked, cut.value, side="right")) - smaller)
        counts[name] = len(values[name]) - smaller - tied
        ties -= tied
    return counts


def lamp_values(scores: NDArray[Any]) -> Numbers:
    r"""Return the LAMP values of the surviving entries of a layer, in ascending order.

    .. math:: \frac{s_u^2}{\sum_{v \ge u} s_v^2}

    with the scores sorted ascending (Lee et al., arXiv 2010.07611, eq. 1, with weights as scores).
    The largest score always has the value 1, and any other at most a half. They are computed of
    the scores divided by the largest, so that squares neither vanish nor overflow.

    Args:
        scores: Floating-point numbers of at least 0, in any order; infinite ones count as equal
            and beyond all others.

    Example:
        >>> lamp_values(np.array([3.0, 0.0, 4.0])).tolist()
        [0.0, 0.36, 1.0]
    """
    ordered = np.sort(scores).astype(np.float64)
    if len(ordered) == 0:
        return ordered
    if np.isinf(ordered[-1]):
        ordered = np.isinf(ordered).astype(np.float64)
    elif ordered[-1] > 0:
        ordered /= ordered[-1]
    squares = np.square(ordered, out=ordered)
    # From the largest down: the sum of an entry is over itself and all that are larger.
    sums = np.cumsum(squares[::-1])[::-1]
    values: Numbers = np.divide(squares, sums, out=squares, where=sums > 0)
    values[-1] = 1.0
    return values
