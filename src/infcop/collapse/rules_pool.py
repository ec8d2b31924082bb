"""Pooling and resizing: channels stay what they are."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.call import Call, Rule, each
from infcop.collapse.values import Value

__all__ = ["RULES", "spatial_dims"]

_NAMES = (
    *(f"{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)),
    *(f"adaptive_{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    *(f"{kind}{n}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)


def spatial_dims(operation: str) -> int:
    """Return over how many dimensions a window moves.

    Example:
        >>> spatial_dims("max_pool2d_with_indices")
        2
    """
    (found,) = re.findall(r"([123])d", operation)
    return int(found)


def _pool(call: Call) -> Any:
    value = call.values[0]
    count = spatial_dims(call.operation)
    positions = tuple(range(value.tensor.ndim - count, value.tensor.ndim))
    layers = []
    for layer in value.layers:
        if set(positions) & set(layer.dims):
            call.facts.pin(layer.ids, call.reason("moves a window over the units"))
        else:
            layers.append(layer)
    varies = value.varies.expand(value.shape).any(dim=positions, keepdim=True)
    padding = call.arguments.get("padding")
    # What a window gives then depends on how much of it lies inside.
    borders = padding and any(padding) and call.arguments.get("count_include_pad")
    if borders or call.arguments.get("divisor_override") is not None:
        varies = value.nonzero.any(dim=positions, keepdim=True)

    def one(result: Tensor) -> Value:
        # A table of positions has the size of the inputs; so have the places of the largest.
        sized = not value.fed or not result.is_floating_point()
        return Value(result, (varies | torch.tensor(sized)).expand(result.shape), tuple(layers))

    return each(call.result, one)


RULES: dict[str, Rule] = dict.fromkeys(_NAMES, _pool)
