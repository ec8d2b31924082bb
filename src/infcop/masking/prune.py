"""One pruning step: from scores to smaller masks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.masking.allocate import allocate_layerwise
from infcop.masking.schedule import next_kept, without_remainder
from infcop.masking.select import select_global, select_layerwise

__all__ = ["prune_level"]


def prune_level(
    weights: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    target_kept: int,
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
        target_kept: Entries to survive at the end of the search.

    Returns:
        Masks within ``masks``; the same entries if nothing is left to remove, or an adaptive
        schedule finds nothing, which the caller should warn of.

    Raises:
        PruningError: The counts can't be honoured, or scores or weights are unusable.
        LayerCollapseError: A layer would lose all its entries.

    Example:
        >>> import torch
        >>> weights = {"fc": torch.tensor([0.3, -0.1, 0.2, 0.4, -0.5])}
        >>> masks = Masks.full({"fc": (5,)})
        >>> prune_level(weights, weights, masks, MethodConfig(name="lth"), target_kept=1)["fc"]
        tensor([ True,  True,  True,  True, False])
    """
    kept = next_kept(method.schedule, weights, masks, target_kept)
    kept = without_remainder(masks.kept, kept, target_kept)
    if method.scope == "global":
        return select_global(scores, masks, kept, method.keep_per_layer)
    kept_per_layer = allocate_layerwise(masks.kept_per_layer, kept, method.keep_per_layer)
    return select_layerwise(scores, masks, kept_per_layer)
