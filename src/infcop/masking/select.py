"""Which entries survive: exact counts, one rule for ties.

Alive means that the mask is true, whatever the score. Entries are removed in ascending order of
``(score, place)``, where place is the flat (row-major) index within a layer and, between layers,
the order of the masks: of equal scores the earlier one goes first. Infinite scores take part as
the largest and smallest there are; a NaN has no order and is an error. Pruned entries are never
looked at. Time is linear in the number of entries, and hardly any memory is needed but for the new
masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.rank import Part, kth_smallest, pieces

__all__ = ["check_count", "check_scores", "select_global", "select_layerwise"]


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

    Example:
        >>> scores = {"fc": torch.tensor([3.0, 1.0, 1.0, 2.0])}
        >>> select_layerwise(scores, Masks.full({"fc": (4,)}), {"fc": 3})["fc"]
        tensor([ True, False,  True,  True])
    """
    parts = _parts("select_layerwise", scores, masks)
    survivors = {}
    for name, alive in masks.kept_per_layer.items():
        if not 0 <= kept.get(name, -1) <= alive:
            raise PruningError(
                f"select_layerwise: expected to keep 0 to {alive} entries of '{name}' (those "
                f"alive), got {kept.get(name)}; masks only shrink"
            )
        (survivors[name],) = _without_smallest([parts[name]], alive - kept[name])
    return _shaped(survivors, masks)


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
        PruningError: Names or shapes differ, a score is NaN, or ``kept`` is more than is alive.
        LayerCollapseError: ``kept`` is too small for ``keep_per_layer``.

    Example:
        >>> scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([9.0, 8.0])}
        >>> masks = Masks.full({"a": (2,), "b": (2,)})
        >>> select_global(scores, masks, kept=2, keep_per_layer=1).kept_per_layer
        {'a': 1, 'b': 1}
    """
    parts = _parts("select_global", scores, masks)
    alive = masks.kept_per_layer
    least = {name: min(count, keep_per_layer) for name, count in alive.items()}
    check_count("select_global", alive, kept, keep_per_layer)
    free = list(parts)
    survivors: dict[str, Tensor] = {}
    while free:
        removal = sum(alive[name] for name in free) - (kept - sum(least[n] for n in survivors))
        cut = dict(zip(free, _without_smallest([parts[n] for n in free], removal), strict=True))
        # A layer below its floor stops at it, and all others lose more. What they lose then can
        # only grow, so that this layer would stay below.
        short = [name for name in free if int(cut[name].count_nonzero()) < least[name]]
        for name in short:
            (survivors[name],) = _without_smallest([parts[name]], alive[name] - least[name])
        free = [name for name in free if name not in survivors]
        if not short:
            survivors |= cut
            break
    return _shaped(survivors, masks)


def check_scores(caller: str, scores: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Return the scores on the CPU, in the order of the masks.

    Raises:
        PruningError: There are no masks, names or shapes differ, or a score is NaN.

    Example:
        >>> check_scores("example", {"fc": torch.ones(2)}, Masks.full({"fc": (2,)}))
        {'fc': tensor([1., 1.])}
    """
    checked = {}
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
        checked[name] = scores[name].detach().cpu()
        part = Part(checked[name].reshape(-1), mask.reshape(-1))
        if any((np.isnan(values) & alive).any() for _, _, values, alive in pieces([part])):
            raise PruningError(
                f"{caller}: expected numbers as scores of '{name}', got NaN; training has "
                "diverged: lower the learning rate or clip the gradients"
            )
    if not checked:
        raise PruningError(f"{caller}: expected at least one mask, got none")
    return checked


def check_count(caller: str, alive: Mapping[str, int], kept: int, keep_per_layer: int) -> None:
    """Check that so many entries may be kept, given what is alive and what each layer keeps.

    Raises:
        PruningError: They are more than are alive.
        LayerCollapseError: They are fewer than the layers keep at least.

    Example:
        >>> check_count("example", {"a": 3, "b": 4}, kept=5, keep_per_layer=2)
    """
    least = sum(min(count, keep_per_layer) for count in alive.values())
    if kept > sum(alive.values()):
        raise PruningError(
            f"{caller}: expected to keep at most the {sum(alive.values())} entries that are "
            f"alive, got kept={kept}; masks only shrink"
        )
    if kept < least:
        raise LayerCollapseError(
            f"{caller}: keep_per_layer={keep_per_layer} leaves {least} entries at least, but only "
            f"{kept} may survive; lower keep_per_layer or ask for a higher density"
        )


def _parts(caller: str, scores: Mapping[str, Tensor], masks: Masks) -> dict[str, Part]:
    checked = check_scores(caller, scores, masks)
    return {name: Part(checked[name].reshape(-1), masks[name].reshape(-1)) for name in checked}


def _without_smallest(parts: Sequence[Part], count: int) -> list[Tensor]:
    """Return what is alive of each part but for the smallest ``count`` of all parts together."""
    if count == 0:
        return [part.alive for part in parts]
    cut = kth_smallest(parts, count)
    survivors = [torch.empty_like(part.alive) for part in parts]
    ties = cut.ties
    for number, start, values, alive in pieces(parts):
        kept = (values >= cut.value) & alive
        if ties:
            tied = np.flatnonzero(kept & (values == cut.value))[:ties]
            kept[tied] = False
            ties -= len(tied)
        survivors[number][start : start + len(kept)] = torch.from_numpy(kept)
    return survivors


def _shaped(survivors: Mapping[str, Tensor], masks: Masks) -> Masks:
    return Masks({name: survivors[name].reshape(mask.shape) for name, mask in masks.items()})
