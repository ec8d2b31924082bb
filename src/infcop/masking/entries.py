"""Pruning single entries, by the scope of a method."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.scope import Budgets
from infcop.masking.allocate import layer_floors
from infcop.masking.densities import check_floor
from infcop.masking.lamp import lamp_counts
from infcop.masking.limits import layer_limits
from infcop.masking.select import select_global, select_layerwise

__all__ = ["shrink_entries"]


def shrink_entries(
    scores: Mapping[str, Tensor], masks: Masks, method: MethodConfig, kept: int, target_kept: int
) -> Masks:
    """Keep exactly so many entries: the highest scores, of all layers together or of each.

    Args:
        scores: Importance of every entry.
        masks: What is alive.
        method: Scope, ``keep_per_layer`` and ``empty_layers`` are used.
        kept: Entries to survive.
        target_kept: Entries to survive at the end of the search.

    Raises:
        PruningError: The counts or the scope can't be honoured, or scores are unusable.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([0.1, 0.2]), "b": torch.tensor([0.3, 0.4])}
        >>> masks = Masks.full({"a": (2,), "b": (2,)})
        >>> method = MethodConfig(name="mine", scope="uniform")
        >>> shrink_entries(scores, masks, method, 2, 2).kept_per_layer
        {'a': 1, 'b': 1}
    """
    scope, floor = method.scope, method.keep_per_layer
    if scope == "global":
        return select_global(scores, masks, kept, floor)
    if scope == "lamp":
        return select_layerwise(scores, masks, lamp_counts(scores, masks, kept, floor))
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    if isinstance(scope, Budgets):
        check_floor(scope, shapes, target_kept, floor)
    alive = masks.kept_per_layer
    least = layer_floors(alive, kept, floor, may_empty=method.empty_layers == "report")
    units = {name: (name,) for name in masks}
    counts = layer_limits(
        scope, shapes, units, alive=alive, least=least, kept=kept, target_kept=target_kept
    )
    return select_layerwise(scores, masks, counts)
