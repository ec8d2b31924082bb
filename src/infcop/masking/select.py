"""Which entries survive: exact counts, one rule for ties.

Alive means that the mask is true, whatever the score. Entries are removed in ascending order of
``(score, place)``, where place is the flat (row-major) index within a layer and, between layers,
the order of the masks: of equal scores the earlier one goes first. Infinite scores take part as
the largest and smallest there are; a NaN has no order and is an error. Pruned entries are never
looked at. Time is linear in the number of alive entries.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.errors import LayerCollapseError, PruningError

__all__ = ["select_global", "select_layerwise"]

Scores = NDArray[np.generic]
Chosen = NDArray[np.bool_]


def select_layerwise(scores: Mapping[str, Tensor], masks: Masks, kept: Mapping[str, int]) -> Masks:
    """Keep the highest scores of each layer, a given number in each.

    Args:
        scores: Scores of the names and shapes of ``masks``, on any device.
        masks: What is alive.
        kept: Entries to keep in each layer, at most those alive.

    Returns:
        Masks within ``masks`` that keep exactly these numbers.

    Raises:
        PruningError: Names or shapes differ, a score is NaN, or a count is out of range.
        LayerCollapseError: A layer that has entries would keep none.

    Example:
        >>> scores = {"fc": torch.tensor([3.0, 1.0, 1.0, 2.0])}
        >>> select_layerwise(scores, Masks.full({"fc": (4,)}), {"fc": 3})["fc"]
        tensor([ True, False,  True,  True])
    """
    alive = _alive_scores("select_layerwise", scores, masks)
    survivors = {}
    for name, values in alive.items():
        if not 0 <= kept.get(name, -1) <= len(values):
            raise PruningError(
                f"select_layerwise: expected to keep 0 to {len(values)} entries of '{name}' (those "
                f"alive), got {kept.get(name)}; masks only shrink"
            )
        survivors[name] = ~_smallest(values, len(values) - kept[name])
    return _shrunk("select_layerwise", masks, survivors)


def select_global(
    scores: Mapping[str, Tensor], masks: Masks, kept: int, keep_per_layer: int = 0
) -> Masks:
    """Keep the highest scores of all layers together.

    Args:
        scores: Scores of the names and shapes of ``masks``, on any device.
        masks: What is alive.
        kept: Entries to keep in all layers together, at most those alive.
        keep_per_layer: A layer keeps at least this many of its best entries, or all that it has;
            other layers then lose more.

    Returns:
        Masks within ``masks`` that keep exactly ``kept`` entries.

    Raises:
        PruningError: Names or shapes differ, a score is NaN, or ``kept`` can't be honoured.
        LayerCollapseError: A layer that has entries would keep none.

    Example:
        >>> scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([9.0, 8.0])}
        >>> masks = Masks.full({"a": (2,), "b": (2,)})
        >>> select_global(scores, masks, kept=2, keep_per_layer=1).kept_per_layer
        {'a': 1, 'b': 1}
    """
    alive = _alive_scores("select_global", scores, masks)
    # Removing in order and skipping the layers that are down to their floor removes the smallest
    # of the entries that are not among the best `keep_per_layer` of their own layer.
    open_to_removal = {
        name: _smallest(values, max(0, len(values) - keep_per_layer))
        for name, values in alive.items()
    }
    pool = [values[open_to_removal[name]] for name, values in alive.items()]
    removal = sum(map(len, alive.values())) - kept
    _check_removal(removal, sum(map(len, pool)), kept, keep_per_layer)
    removed = _smallest(np.concatenate(pool), removal)
    parts = np.split(removed, np.cumsum([len(part) for part in pool])[:-1])
    survivors = {}
    for (name, candidates), part in zip(open_to_removal.items(), parts, strict=True):
        survivors[name] = np.ones(len(candidates), dtype=np.bool_)
        survivors[name][candidates] = ~part
    return _shrunk("select_global", masks, survivors)


def _smallest(scores: Scores, count: int) -> Chosen:
    """Mark the ``count`` smallest of a vector; of equal scores, the first."""
    if count == 0 or count == len(scores):
        return np.full(len(scores), count > 0, dtype=np.bool_)
    # NumPy's partition is linear and many times faster than a sort or torch.kthvalue on the CPU.
    threshold = np.partition(scores, count - 1)[count - 1]
    chosen: Chosen = scores < threshold
    tied = np.flatnonzero(scores == threshold)
    chosen[tied[: count - int(np.count_nonzero(chosen))]] = True
    return chosen


def _alive_scores(caller: str, scores: Mapping[str, Tensor], masks: Masks) -> dict[str, Scores]:
    """Return the scores of the alive entries of each layer, in flat order."""
    alive = {}
    for name, mask in masks.items():
        if name not in scores:
            raise PruningError(
                f"{caller}: expected a score for '{name}', got none; {did_you_mean(name, scores)}"
            )
        if scores[name].shape != mask.shape:
            raise PruningError(
                f"{caller}: expected scores of shape {tuple(mask.shape)} for '{name}', got "
                f"{tuple(scores[name].shape)}; score the weight that the mask belongs to"
            )
        alive[name] = _as_array(scores[name].detach().cpu()[mask])
        if np.isnan(alive[name]).any():
            raise PruningError(
                f"{caller}: expected numbers as scores of '{name}', got NaN; training has "
                "diverged: lower the learning rate or clip the gradients"
            )
    if not alive:
        raise PruningError(f"{caller}: expected at least one mask, got none")
    return alive


def _as_array(values: Tensor) -> Scores:
    """Return a NumPy vector; narrow floats, some unknown to NumPy, widen without rounding."""
    wide = values.float() if values.is_floating_point() and values.itemsize < 4 else values
    array: Scores = wide.numpy()
    return array


def _check_removal(removal: int, possible: int, kept: int, keep_per_layer: int) -> None:
    if removal < 0:
        raise PruningError(
            f"select_global: expected to keep at most the {kept + removal} entries that are alive, "
            f"got kept={kept}; masks only shrink"
        )
    if removal > possible:
        raise PruningError(
            f"select_global: keep_per_layer={keep_per_layer} leaves {kept + removal - possible} "
            f"entries at least, but only {kept} may survive; lower keep_per_layer or ask for a "
            "higher density"
        )


def _shrunk(caller: str, masks: Masks, survivors: Mapping[str, Chosen]) -> Masks:
    """Return the masks in which only the given ones of the alive entries are left."""
    shrunk = {}
    for name, mask in masks.items():
        if len(survivors[name]) > 0 and not survivors[name].any():
            raise LayerCollapseError(
                f"{caller}: layer '{name}' would lose all of its {len(survivors[name])} remaining "
                "weights; set keep_per_layer=1 or more, ask for a higher density, or prune with "
                "scope 'layerwise'"
            )
        shrunk[name] = torch.zeros_like(mask).masked_scatter_(
            mask, torch.from_numpy(survivors[name])
        )
    return Masks(shrunk)
