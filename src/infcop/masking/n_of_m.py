"""At most n of every m successive entries: counts and choice."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import NofM
from infcop.errors import PruningError
from infcop.masking.groups import Groups
from infcop.masking.select import check_scores
from infcop.models.weight_axes import WeightAxes

__all__ = ["at_most", "n_of_m_kept", "select_n_of_m", "shrink_n_of_m"]

_PIECE = 2**18
"""Entries that are compared together: few enough to stay in the cache of a processor."""


def at_most(kept: int, total: int, m: int) -> int:
    """Return the most entries that are ``j`` of every ``m``, at most ``kept`` and with ``j >= 1``.

    Example:
        >>> [at_most(kept, 1000, m=4) for kept in (1000, 999, 750, 1)]
        [1000, 750, 750, 250]
    """
    return max(kept * m // total, 1) * total // m


def n_of_m_kept(pattern: NofM, total: int, alive: int, kept: int, stop_kept: int) -> int:
    """Return how many entries a level keeps: the most ``j`` of every ``m`` within what is asked.

    Args:
        pattern: Its ``m`` is used.
        total: Entries of the dense network, ``m`` times the number of its groups.
        alive: Entries before the level.
        kept: Entries that the schedule asks for.
        stop_kept: Entries that the level must not go below.

    Raises:
        PruningError: No ``j`` is between what is alive and where the level must stop.

    Example:
        >>> n_of_m_kept(NofM(n=2, m=4), 1000, alive=1000, kept=800, stop_kept=500)
        750
    """
    if kept >= alive:
        return alive
    m = pattern.m
    least = -(-stop_kept * m // total) * total // m
    chosen = max(at_most(kept, total, m), least)
    if chosen >= alive:
        raise PruningError(
            f"milestones: pattern {pattern.n}:{m} goes through the densities "
            f"{', '.join(f'{j / m:g}' for j in range(m - 1, pattern.n - 1, -1))}, so it can't stop "
            f"at {stop_kept / total:g}; use milestones among them, or none"
        )
    return chosen


def shrink_n_of_m(
    scores: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    kept: int,
    target_kept: int,
    groups: Groups,
) -> Masks:
    """Keep the same number of every ``m`` entries in all layers, at most ``kept`` in all.

    Args:
        scores: Importance of every entry.
        masks: What is alive.
        method: Scope and ``keep_per_layer`` are looked at.
        kept: Entries to survive at most.
        target_kept: Entries to survive at the end of the search.
        groups: The groups of pattern "n-of-m".

    Raises:
        PruningError: The density of the search, the scope or ``keep_per_layer`` contradicts the
            pattern, or scores are unusable.

    Example:
        >>> scores = {"fc": torch.tensor([[3.0, 1.0, 2.0, 2.0]])}
        >>> groups = Groups(NofM(), {"fc": WeightAxes(output=0, input=1)})
        >>> method = MethodConfig(name="mine", pattern="n-of-m")
        >>> shrink_n_of_m(scores, Masks.full({"fc": (1, 4)}), method, 2, 2, groups)["fc"]
        tensor([[ True, False, False,  True]])
    """
    pattern = groups.pattern
    assert isinstance(pattern, NofM)
    n, m = pattern.n, pattern.m
    if method.scope not in ("global", "layerwise", "uniform"):
        scope = method.scope if isinstance(method.scope, str) else method.scope.kind
        raise PruningError(
            f"pattern {n}:{m} gives every layer the density {n / m:g}, which scope '{scope}' "
            "contradicts; use scope 'uniform'"
        )
    if target_kept * m != masks.total * n:
        raise PruningError(
            f"pattern {n}:{m} keeps the density {n / m!r} of every layer, but the search ends at "
            f"{target_kept / masks.total:.6g}; set density: {n / m!r}"
        )
    for name, mask in masks.items():
        if mask.numel() * n < method.keep_per_layer * m:
            raise PruningError(
                f"pattern {n}:{m} leaves {mask.numel() * n // m} of the {mask.numel()} entries of "
                f"'{name}', fewer than keep_per_layer={method.keep_per_layer}; lower it"
            )
    return select_n_of_m(scores, masks, kept, groups.axes, m)


def select_n_of_m(
    scores: Mapping[str, Tensor], masks: Masks, kept: int, axes: Mapping[str, WeightAxes], m: int
) -> Masks:
    """Keep the highest scores of every ``m`` successive entries along the inputs.

    Of a convolution these are input channels, for each output and position of the kernel.
    Everywhere the same number ``j`` is kept, the largest with ``j / m`` of all entries at most
    ``kept``, and at least 1; of equal scores the later ones.

    Args:
        scores: Scores of the names and shapes of ``masks``.
        masks: What is alive; where fewer than ``j`` of ``m`` are, all of them stay.
        kept: Entries to survive at most.
        axes: Where the inputs are in each weight; their number is a multiple of ``m``.
        m: Length of the groups.

    Raises:
        PruningError: Names or shapes differ, or a score is NaN.

    Example:
        >>> scores = {"fc": torch.tensor([[3.0, 1.0, 2.0, 2.0]])}
        >>> axes = {"fc": WeightAxes(output=0, input=1)}
        >>> select_n_of_m(scores, Masks.full({"fc": (1, 4)}), 2, axes, 4)["fc"]
        tensor([[ True, False, False,  True]])
    """
    chosen = at_most(kept, masks.total, m) * m // masks.total
    selected = {}
    for name, scored in check_scores("select_n_of_m", scores, masks).items():
        turned, alive = axes[name].outputs_first(scored), axes[name].outputs_first(masks[name])
        outputs = max(_PIECE * len(turned) // turned.numel(), 1)
        pieces = zip(torch.split(turned, outputs), torch.split(alive, outputs), strict=True)
        best = torch.cat([_best(values, mask, chosen, m) for values, mask in pieces])
        selected[name] = axes[name].restored(best)
    return Masks(selected)


def _best(scores: Tensor, mask: Tensor, count: int, m: int) -> Tensor:
    """Mark the best ``count`` of every ``m`` along the second axis, among those alive."""
    outputs, inputs, *kernel = mask.shape
    # The place within a group first: all groups are compared at once.
    values, alive = (
        tensor.reshape(outputs, inputs // m, m, *kernel).movedim(2, 0).contiguous()
        for tensor in (scores, mask)
    )
    better = torch.zeros_like(alive, dtype=torch.int16)
    for earlier in range(m):
        for later in range(earlier + 1, m):
            ahead = values[later] >= values[earlier]
            better[earlier] += ahead & alive[later]
            better[later] += ~ahead & alive[earlier]
    kept = alive & (better < count)
    return kept.movedim(0, 2).reshape(mask.shape)
