"""Which groups survive: whole ones, in the order of what the scores of their entries come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.pattern import Reduce
from infcop.errors import PruningError
from infcop.masking.groups import Unit
from infcop.masking.select import check_scores

__all__ = ["Scored", "group_scores", "protect", "prune_units", "score_units"]

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scored:
    """The groups of one unit that have surviving entries, the first to be removed first.

    Attributes:
        unit: Whose groups they are.
        groups: Their numbers, in ascending order of score, of equal scores the lower number first.
        scores: Their scores, in this order.
        sizes: Surviving entries, ``[weights of the unit, groups]``, in this order.
        protected: The last so many can't be removed, since their weights need the entries.
    """

    unit: Unit
    groups: Counts
    scores: Numbers
    sizes: Counts
    protected: int = 0

    @property
    def alive(self) -> int:
        """Surviving entries."""
        return int(self.sizes.sum())

    @property
    def least(self) -> int:
        """Surviving entries of the groups that can't be removed."""
        return int(self.sizes[:, len(self.groups) - self.protected :].sum())

    @property
    def open(self) -> int:
        """Groups that can be removed."""
        return len(self.groups) - self.protected


def group_scores(unit: Unit, reduce: Reduce, scores: Mapping[str, Tensor], masks: Masks) -> Numbers:
    """Return one score a group: what the scores of its surviving entries come to, in float64.

    Args:
        unit: Weights that share groups.
        reduce: Mean, sum, Euclidean norm or largest value.
        scores: Scores of the entries, on the CPU.
        masks: What is alive; of a group without any nothing is said.

    Example:
        >>> import torch
        >>> from infcop.core.pattern import Channel
        >>> from infcop.masking.groups import build_groups
        >>> from infcop.models.weight_axes import WeightAxes
        >>> groups = build_groups(Channel(), {"fc": WeightAxes(0, 1)}, {"fc": (2, 2)})
        >>> scores = {"fc": torch.tensor([[3.0, 4.0], [1.0, 9.0]])}
        >>> group_scores(groups.units[0], "norm", scores, Masks.full({"fc": (2, 2)})).round(3)
        array([5.   , 9.055])
    """
    if reduce == "max":
        return _together(np.maximum, unit, scores, masks, -math.inf)
    if reduce == "norm":
        if all(scores[name].dtype != torch.float64 for name in unit.tiles):
            root: Numbers = np.sqrt(_together(np.add, unit, scores, masks, 0.0, Tensor.square_))
            return root
        # The squares of float64 may leave its range; a power of two keeps them in it and changes
        # no digit.
        scale = _power_of_two(_together(np.maximum, unit, scores, masks, 0.0, _finite_size).max())
        squares = _together(np.add, unit, scores, masks, 0.0, lambda v: (v / scale).square())
        return np.sqrt(squares) * scale
    total = _together(np.add, unit, scores, masks, 0.0)
    if reduce == "sum":
        return total
    sizes = np.sum([tiles.sizes(masks[name]) for name, tiles in unit.tiles.items()], axis=0)
    mean: Numbers = np.divide(total, sizes, out=np.zeros_like(total), where=sizes > 0)
    return mean


def score_units(
    units: Sequence[Unit],
    reduce: Reduce,
    scores: Mapping[str, Tensor],
    masks: Masks,
) -> list[Scored]:
    """Return the groups of all units in the order in which they are removed.

    Raises:
        PruningError: Names or shapes differ, a score is NaN, or a group's comes to NaN.
    """
    checked = check_scores("score_units", scores, masks)
    scored = []
    for unit in units:
        own = group_scores(unit, reduce, checked, masks)
        sizes = np.stack([tiles.sizes(masks[name]) for name, tiles in unit.tiles.items()])
        alive = np.flatnonzero(sizes.sum(axis=0))
        if np.isnan(own[alive]).any():
            raise PruningError(
                f"score_units: expected numbers as scores of groups of '{next(iter(unit.tiles))}',"
                f" got NaN: the {reduce} of infinite scores of both signs; training has diverged"
            )
        groups = alive[np.argsort(own[alive], kind="stable")]
        scored.append(Scored(unit, groups, own[groups], sizes[:, groups]))
    return scored


def protect(scored: Sequence[Scored], keep_per_layer: int) -> list[Scored]:
    """Return the units with their best groups protected, so that weights keep so many entries."""
    return [replace(one, protected=_needed(one.sizes, keep_per_layer)) for one in scored]


def prune_units(scored: Sequence[Scored], kept: int, masks: Masks) -> dict[str, Tensor]:
    """Remove whole groups, of all units together, until at most ``kept`` entries are left.

    They go in ascending order of score; of equal scores those of the earlier unit go first.

    Args:
        scored: The units, each with its groups in order.
        kept: Entries of these units to survive at most; at least those that can't be removed.
        masks: What is alive.

    Returns:
        The new masks of the units' weights.
    """
    removal = sum(one.alive for one in scored) - kept
    # The groups of each unit are in order already: sorting keeps them so where scores are equal.
    pool = np.concatenate([one.scores[: one.open] for one in scored])
    sizes = np.concatenate([one.sizes[:, : one.open].sum(axis=0) for one in scored])
    owner = np.repeat(np.arange(len(scored)), [one.open for one in scored])
    order = np.argsort(pool, kind="stable")
    removed = np.searchsorted(np.cumsum(sizes[order]), removal) + 1 if removal > 0 else 0
    gone = np.bincount(owner[order[:removed]], minlength=len(scored))
    pruned = {}
    for one, count in zip(scored, gone, strict=True):
        survivors = np.zeros(one.unit.count, dtype=np.bool_)
        survivors[one.groups[count:]] = True
        for name, tiles in one.unit.tiles.items():
            pruned[name] = masks[name] & tiles.spread(survivors, tuple(masks[name].shape))
    return pruned


def _needed(sizes: Counts, keep_per_layer: int) -> int:
    """Return how many of the last groups it takes so that each weight keeps enough entries."""
    least = np.minimum(sizes.sum(axis=1), keep_per_layer)
    with_the_best = np.cumsum(sizes[:, ::-1], axis=1)
    return int((with_the_best < least[:, None]).sum(axis=1).max() + 1) if least.any() else 0


def _together(
    function: np.ufunc,
    unit: Unit,
    scores: Mapping[str, Tensor],
    masks: Masks,
    dead: float,
    change: Callable[[Tensor], Tensor] = Tensor.double,
) -> Numbers:
    """Return what each group comes to over all weights of a unit."""
    own = [
        tiles.reduced(function, scores[name], masks[name], dead, change)
        for name, tiles in unit.tiles.items()
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        together: Numbers = function.reduce(own, axis=0)
    return together


def _finite_size(values: Tensor) -> Tensor:
    return values.abs().masked_fill(values.isinf(), 0.0)


def _power_of_two(largest: float) -> float:
    return 2.0 ** (math.frexp(largest)[1] - 1) if largest > 0 else 1.0
