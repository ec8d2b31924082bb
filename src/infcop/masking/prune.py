"""One pruning step: from scores to smaller masks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.masking.allocate import allocate_layerwise
from infcop.masking.schedule import next_kept, without_remainder
from infcop.masking.select import select_global, select_layerwise

__all__ = ["prune_level", "pruned_norm"]


def prune_level(
    weights: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    *,
    level: int,
    target_kept: int,
    stop_kept: int | None = None,
) -> Masks:
    """Return the masks of the next level.

    The schedule says how many entries survive, the scope where they may be taken from, and the
    scores which they are. Both scopes remove the same number at the same level.

    Args:
        weights: The trained weights, of the names and shapes of ``masks``; an adaptive schedule
            reads them.
        scores: Importance of every entry.
        masks: The masks of the level before.
        method: Schedule, scope and ``keep_per_layer`` are used.
        level: Number of the level, from 1.
        target_kept: Entries to survive at the end of the search.
        stop_kept: Entries that this level must not go below; by default the target.

    Returns:
        Masks within ``masks``; the same entries if nothing is left to remove, or an adaptive
        schedule finds nothing, which the caller should warn of.

    Raises:
        PruningError: The counts can't be honoured, or scores or weights are unusable.
        LayerCollapseError: A layer would lose all its entries.

    Example:
        >>> weights = {"fc": torch.tensor([0.3, -0.1, 0.2, 0.4, -0.5])}
        >>> masks = Masks.full({"fc": (5,)})
        >>> method = MethodConfig(name="lth")
        >>> prune_level(weights, weights, masks, method, level=1, target_kept=1)["fc"]
        tensor([ True,  True,  True,  True, False])
    """
    stop_kept = target_kept if stop_kept is None else stop_kept
    kept = next_kept(
        method.schedule, weights, masks, level=level, target_kept=target_kept, stop_kept=stop_kept
    )
    kept = without_remainder(masks.kept, kept, stop_kept)
    if method.scope == "global":
        return select_global(scores, masks, kept, method.keep_per_layer)
    kept_per_layer = allocate_layerwise(masks.kept_per_layer, kept, method.keep_per_layer)
    return select_layerwise(scores, masks, kept_per_layer)


def pruned_norm(weights: Mapping[str, Tensor], before: Masks, after: Masks) -> float:
    r"""Return how much of the weights a level takes away, :math:`\|W - W'\|_2 / \|W\|_2`.

    The norms run over the prunable entries that were alive before, in float64.

    Args:
        weights: The trained weights, before the new masks are applied.
        before: The masks of the level before.
        after: The masks of this level, within ``before``.

    Returns:
        The ratio in [0, 1]; 0 if all weights are zero.

    Example:
        >>> weights = {"fc": torch.tensor([3.0, 0.0, 4.0])}
        >>> after = Masks({"fc": torch.tensor([False, False, True])})
        >>> pruned_norm(weights, Masks.full({"fc": (3,)}), after)
        0.6
    """
    whole = math.hypot(*(_norm(weights[name], mask) for name, mask in before.items()))
    gone = math.hypot(*(_norm(weights[name], before[name] & ~mask) for name, mask in after.items()))
    return gone / whole if whole > 0 else 0.0


def _norm(weight: Tensor, where: Tensor) -> float:
    # On the CPU: it has float64, which not every accelerator does.
    return float(torch.linalg.vector_norm(weight.detach().cpu()[where], dtype=torch.float64))
