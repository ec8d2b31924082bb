"""Regrowth: exchanging entries of each layer while its density stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.regrow import Regrow
from infcop.core.rng import derive_seed
from infcop.errors import PruningError
from infcop.masking.exact import as_written
from infcop.masking.select import select_layerwise

__all__ = ["exchange", "exchange_fraction"]


def exchange(
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor] | None,
    masks: Masks,
    fraction: float,
    *,
    seed: int,
) -> Masks:
    """Drop the smallest weights of each layer and grow as many other entries.

    Of ``a`` entries alive, ``k = floor(fraction * a)`` of the smallest magnitude are dropped, of
    equal ones the earlier first. With gradients, those ``k`` grow whose gradient is largest in
    magnitude among all that are not alive after the drop, of equal ones the later (RigL; Evci et
    al., arXiv 1911.11134, section 3, algorithm 1): a dropped entry may come back. Without, ``k``
    grow at random among those that were not alive before (SET, arXiv 1707.04780); where there are
    fewer, fewer are dropped. A layer that is full or empty is left as it is, and so is one without
    a gradient: this batch has not passed through it.

    Args:
        weights: The weights, of the names and shapes of ``masks``, on any device.
        gradients: Those of the loss with regard to all entries, pruned ones too, as if these were
            in use; layers may be missing. None grows at random.
        masks: What is alive.
        fraction: In [0, 1); its decimal value counts.
        seed: What is drawn depends on it and on the name of the layer.

    Returns:
        Masks that keep exactly as many entries of each layer.

    Raises:
        PruningError: A weight is missing, shapes differ, a weight or gradient that is compared is
            NaN, or the fraction is out of range.

    Example:
        >>> weights = {"fc": torch.tensor([0.1, 0.9, 0.0, 0.0])}
        >>> gradients = {"fc": torch.tensor([0.0, 0.0, 0.2, 0.3])}
        >>> masks = Masks({"fc": torch.tensor([True, True, False, False])})
        >>> exchange(weights, gradients, masks, 0.5, seed=0)["fc"]
        tensor([False,  True, False,  True])
    """
    if not 0 <= fraction < 1:
        raise PruningError(f"exchange: expected a fraction in [0, 1), got {fraction:g}")
    exchanged = {}
    for name, mask in masks.items():
        alive = int(mask.count_nonzero())
        count = math.floor(as_written(fraction) * alive)
        if gradients is None:
            count = min(count, mask.numel() - alive)
        size = _of("weight", name, weights, mask)
        missing = gradients is not None and name not in gradients
        if count == 0 or alive == mask.numel() or missing:
            exchanged[name] = mask
            continue
        left = select_layerwise({name: size}, Masks({name: mask}), {name: alive - count})[name]
        if gradients is not None:
            size = _of("gradient", name, gradients, mask)
            grown = select_layerwise({name: size}, Masks({name: ~left}), {name: count})[name]
        else:
            grown = _drawn(~mask, count, derive_seed(seed, "grow", name))
        exchanged[name] = left | grown
    return Masks(exchanged)


def exchange_fraction(regrow: Regrow, progress: float) -> float:
    r"""Return the fraction that is exchanged at a place in the training.

    .. math:: \frac f2 \left(1 + \cos\frac{\pi t}{T}\right)

    (Evci et al., arXiv 1911.11134, section 3), with ``f`` the fraction and ``T`` the part of the
    training until which entries are exchanged; without decay ``f`` itself. From ``T`` on it is 0.

    Args:
        regrow: The settings.
        progress: Part of the training that is over, in [0, 1].

    Example:
        >>> exchange_fraction(Regrow(fraction=0.3, until=0.75), 0.375)
        0.15
        >>> exchange_fraction(Regrow(fraction=0.3, until=0.75), 0.75)
        0.0
    """
    if progress >= regrow.until:
        return 0.0
    if regrow.decay == "none":
        return regrow.fraction
    return regrow.fraction / 2 * (1 + math.cos(math.pi * progress / regrow.until))


def _of(kind: str, name: str, tensors: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Return the magnitudes of a layer's weights or gradients, on the CPU."""
    if name not in tensors:
        raise PruningError(
            f"exchange: expected a {kind} for '{name}', got none; give one for every mask"
        )
    if tensors[name].shape != mask.shape:
        raise PruningError(
            f"exchange: expected a {kind} of shape {tuple(mask.shape)} for '{name}', got "
            f"{tuple(tensors[name].shape)}"
        )
    return tensors[name].detach().cpu().abs()


def _drawn(candidates: Tensor, count: int, seed: int) -> Tensor:
    """Mark so many of the candidates at random, all equally likely."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(candidates.shape, generator=generator, dtype=torch.float64)
    return select_layerwise({"": draw}, Masks({"": candidates}), {"": count})[""]
