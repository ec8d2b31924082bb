"""One pruning step: from scores to smaller masks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import NofM, Unstructured
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.coupled import Prices, shrink_channels
from infcop.masking.entries import shrink_entries
from infcop.masking.groups import Groups
from infcop.masking.n_of_m import at_most, shrink_n_of_m
from infcop.masking.rounds import round_counts
from infcop.masking.schedule import next_kept, possible_kept
from infcop.masking.units import shrink_units

__all__ = ["emptied", "level_kept", "level_rounds", "pruned_norm", "shrink"]


def level_kept(
    weights: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    *,
    level: int,
    target_kept: int,
    stop_kept: int | None = None,
    groups: Groups,
) -> int:
    """Return how many entries a level is to keep.

    That is what the schedule says, what is not worth a level of its own left out, and with a
    pattern of n of m rounded down to what it can keep. Patterns of whole groups may end up to
    a group below.

    Args:
        weights: The trained weights, of the names and shapes of ``masks``; an adaptive schedule
            reads them.
        masks: The masks of the level before.
        method: The schedule is used.
        level: Number of the level, from 1.
        target_kept: Entries to survive at the end of the search.
        stop_kept: Entries that this level must not go below; by default the target.
        groups: What the pattern ties together.

    Returns:
        The count; what is alive if nothing is left to remove, or an adaptive schedule finds
        nothing, which the caller should warn of.

    Raises:
        PruningError: The counts can't be honoured, or the weights are unusable.

    Example:
        >>> weights = {"fc": torch.tensor([0.3, -0.1, 0.2, 0.4, -0.5])}
        >>> masks, method = Masks.full({"fc": (5,)}), MethodConfig(name="lth")
        >>> level_kept(weights, masks, method, level=1, target_kept=1, groups=Groups())
        4
    """
    stop_kept = target_kept if stop_kept is None else stop_kept
    alive = groups.counted(masks)
    kept = next_kept(
        method.schedule,
        weights,
        masks,
        level=level,
        target_kept=target_kept,
        stop_kept=stop_kept,
        alive=alive,
    )
    return possible_kept(method.schedule, groups.pattern, masks.total, alive, kept, stop_kept)


def level_rounds(masks: Masks, kept: int, method: MethodConfig, groups: Groups) -> tuple[int, ...]:
    """Return how many entries each round of a level may leave, for methods that score repeatedly.

    They are those of :func:`~infcop.masking.rounds.round_counts`, with a pattern of n of m rounded
    down to what it can keep. A round that asks for no fewer than are alive has nothing to do: so it
    is where a density of n of m is asked for again, or where the whole groups of an earlier round
    ended below its count.

    Args:
        masks: What is alive before the level.
        kept: Entries that the level is to keep.
        method: ``rounds`` and ``spacing`` are used.
        groups: What the pattern ties together.

    Returns:
        As many counts as rounds, falling or equal.

    Example:
        >>> from infcop.core.pattern import NofM
        >>> masks, method = Masks.full({"fc": (10, 100)}), MethodConfig(name="mine", rounds=5)
        >>> level_rounds(masks, 500, method, Groups())
        (871, 758, 660, 575, 500)
        >>> level_rounds(masks, 500, method, Groups(NofM(n=2, m=4)))
        (750, 750, 500, 500, 500)
    """
    counts = round_counts(groups.counted(masks), kept, method.rounds, method.spacing)
    if isinstance(groups.pattern, NofM):
        return tuple(at_most(count, masks.total, groups.pattern.m) for count in counts)
    return counts


def shrink(
    scores: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    kept: int,
    *,
    groups: Groups,
    target_kept: int,
) -> Masks:
    """Prune scored entries once, down to a number.

    The scope says where they may be taken from, the pattern which of them go together, and the
    scores which they are.

    Args:
        scores: Importance of every entry.
        masks: What is alive.
        method: Scope, ``keep_per_layer`` and ``empty_layers`` are used.
        kept: Entries to survive: exactly so many of single entries; of whole groups and of n of m
            the most that are not above it.
        groups: What the pattern of the method ties together.
        target_kept: Entries to survive at the end of the search.

    Returns:
        Masks within ``masks``.

    Raises:
        PruningError: The counts, the scope or the pattern can't be honoured, or scores are
            unusable.
        LayerCollapseError: A layer would lose all its entries, and ``empty_layers`` is "error".

    Example:
        >>> scores = {"fc": torch.tensor([0.3, 0.1, 0.2, 0.4, 0.5])}
        >>> masks, method = Masks.full({"fc": (5,)}), MethodConfig(name="lth")
        >>> shrink(scores, masks, method, 3, groups=Groups(), target_kept=1)["fc"]
        tensor([ True, False, False,  True,  True])
    """
    if groups.pattern != method.pattern:
        raise PruningError(
            f"shrink: expected the groups of pattern '{method.pattern.kind}', got those of "
            f"'{groups.pattern.kind}'; build them with build_groups(method.pattern, ...)"
        )
    alive = groups.counted(masks)
    if kept > alive:
        raise PruningError(
            f"shrink: expected to keep at most the {alive} entries that are alive, got "
            f"kept={kept}; masks only shrink"
        )
    if isinstance(groups.pattern, Unstructured | NofM):
        _check_floors(masks, method, kept, target_kept)
    if isinstance(groups.pattern, Unstructured):
        after = shrink_entries(scores, masks, method, kept, target_kept)
    elif isinstance(groups.pattern, NofM):
        after = shrink_n_of_m(scores, masks, method, kept, target_kept, groups)
    elif groups.channels is not None:
        prices = groups.prices or Prices(dict.fromkeys(masks, 1.0))
        after = shrink_channels(scores, masks, method, kept, target_kept, groups.channels, prices)
    else:
        after = shrink_units(scores, masks, method, kept, target_kept, groups)
    lost = emptied(masks, after)
    if lost and method.empty_layers == "error":
        raise LayerCollapseError(
            f"shrink: layer '{lost[0]}' would lose all of its {masks.kept_per_layer[lost[0]]} "
            "remaining weights; set keep_per_layer=1 or more, ask for a higher density, prune "
            "with scope 'layerwise', or set empty_layers='report' to prune it all the same"
        )
    return after


def emptied(masks_before: Masks, masks_after: Masks) -> tuple[str, ...]:
    """Return the layers that had entries and have lost them all.

    Example:
        >>> before = Masks.full({"a": (2,), "b": (2,)})
        >>> after = Masks({"a": torch.zeros(2, dtype=torch.bool), "b": before["b"]})
        >>> emptied(before, after)
        ('a',)
    """
    return tuple(
        name
        for name, mask in masks_before.items()
        if bool(mask.any()) and not bool(masks_after[name].any())
    )


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


def _check_floors(masks: Masks, method: MethodConfig, kept: int, target_kept: int) -> None:
    """Refuse a target that no scores could honour; on the way to it, scores decide."""
    if kept > target_kept:
        return
    floor = max(method.keep_per_layer, 1 if method.empty_layers == "error" else 0)
    least = {name: min(alive, floor) for name, alive in masks.kept_per_layer.items()}
    if target_kept < sum(least.values()):
        largest = max(least, key=lambda name: least[name])
        remedy = "lower keep_per_layer" if method.keep_per_layer else "set empty_layers='report'"
        raise PruningError(
            f"keep_per_layer: {len(least)} layers keep {sum(least.values())} entries at least "
            f"(keep_per_layer={method.keep_per_layer}; '{largest}' keeps {least[largest]}), but "
            f"the search ends at {target_kept}; ask for a higher density, or {remedy}"
        )


def _norm(weight: Tensor, where: Tensor) -> float:
    # On the CPU: it has float64, which not every accelerator does.
    return float(torch.linalg.vector_norm(weight.detach().cpu()[where], dtype=torch.float64))
