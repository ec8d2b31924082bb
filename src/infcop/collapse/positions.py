"""Constants have to be the same at all positions, for inputs of any size."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from infcop.collapse.facts import Facts
from infcop.collapse.values import Value

__all__ = ["even", "evened"]

_ROUNDING = 1e-13
"""A relative difference in float64 that sums in another order may have."""


def even(given: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return where the entries along some dimensions, which stay with size 1, are the same.

    Up to rounding; what is not finite is the same as nothing.

    Example:
        >>> even(torch.tensor([[1.0, 1.0], [1.0, 2.0]]), (1,))
        tensor([[ True],
                [False]])
    """
    low, high = given.amin(dim=dims, keepdim=True), given.amax(dim=dims, keepdim=True)
    return high - low <= _ROUNDING * torch.maximum(high.abs(), low.abs())


def evened(facts: Facts, value: Value) -> Value:
    """Let constants that differ from position to position count as varying.

    A position is what lies along a dimension without units that could go. There may be more of
    them in other inputs, or fewer: what a mean or a sum makes of constants that differ would depend
    on their number. Where no unit could go, the parameters that make a constant stay, and so does
    what is made of it.
    """
    if not value.fed or not value.tensor.numel() or bool(value.varies.all()):
        return value
    free = {dim for layer in value.layers if not facts.settled(layer) for dim in layer.dims}
    positions = tuple(dim for dim in range(value.tensor.ndim) if dim not in free)
    if not positions:
        return value
    if value.tensor.is_complex() or (value.learned and not free):
        return replace(value, varies=torch.ones((), dtype=torch.bool).expand(value.shape))
    varies = value.varies.expand(value.shape).any(dim=positions, keepdim=True)
    varies = varies | ~even(value.tensor.double(), positions)
    return replace(value, varies=varies.expand(value.shape))
