"""Pooling and resizing: channels stay what they are."""

from __future__ import annotations

import re
from typing import Any

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
    if padding and any(padding) and call.arguments.get("count_include_pad"):
        varies = value.nonzero.any(dim=positions, keepdim=True)  # the zeros at borders count

    def one(result: Tensor) -> Value:
        return Value(result, varies.expand(result.shape), tuple(layers))

    return each(call.result, one)


RULES: dict[str, Rule] = dict.fromkeys(_NAMES, _pool)
