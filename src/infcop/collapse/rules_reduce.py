"""Sums, means, softmax and other operations along dimensions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.call import Call, Rule, each
from infcop.collapse.facts import Layer
from infcop.collapse.rules_pointwise import pointwise
from infcop.collapse.values import Value

__all__ = ["RULES", "mixed"]


def mixed(call: Call, layers: Collection[Layer], dims: Collection[int]) -> list[Layer]:
    """Let the units along some dimensions live and die together."""
    for layer in layers:
        axes = [at for at, dim in enumerate(layer.dims) if dim in dims]
        if axes:
            call.facts.mix(layer.ids, axes, call.reason("mixes all units"))
    return list(layers)


def _reduced_dims(call: Call, ndim: int) -> set[int]:
    dims = call.arguments.get("dim", call.arguments.get("dims"))
    if dims is None or dims == []:
        return set(range(ndim))
    return {dim % ndim for dim in (dims if isinstance(dims, (list, tuple)) else [dims])}


def _reduce(call: Call) -> Any:
    """Units along a dimension that vanishes are needed; those of whole slices stay units."""
    if "other" in call.arguments:  # the larger one of two
        return pointwise(call)
    value = call.values[0]
    ndim = value.tensor.ndim
    dims = _reduced_dims(call, ndim) if ndim else set()
    name = call.operation

    def one(result: Tensor) -> Value:
        kept = result.ndim == ndim
        left = [at for at in range(ndim) if kept or at not in dims]
        names = {dim: at for at, dim in enumerate(left)}
        layers = [
            layer.renamed(names)
            for layer in (_slices(call, layer, dims) for layer in value.layers)
            if layer is not None
        ]
        varies = value.varies.expand(value.shape)
        if value.fed and name in _SIZED:
            varies = value.nonzero
        elif value.fed and not result.is_floating_point():  # a position
            varies = torch.ones((), dtype=torch.bool).expand(value.shape)
        varies = varies.any(dim=tuple(dims), keepdim=kept) if dims else varies
        return Value(result, varies, tuple(layers))

    return each(call.result, one)


def _slices(call: Call, layer: Layer, dims: Collection[int]) -> Layer | None:
    """Return the units that a reduction leaves."""
    mixed(call, [layer], dims)
    ids = layer.ids
    for axis, dim in enumerate(layer.dims):
        if dim in dims:
            ids = ids.narrow(axis, 0, 1)
    left = tuple(dim for dim in layer.dims if dim not in dims)
    if not left:
        call.facts.pin(layer.ids, call.reason("mixes all units"))
        return None
    return Layer(left, ids.reshape([layer.ids.shape[layer.dims.index(dim)] for dim in left]))


def _along(call: Call) -> Any:
    """Each entry of the result depends on all entries along some dimensions."""
    value = call.values[0]
    dims = _reduced_dims(call, value.tensor.ndim)
    layers = mixed(call, value.layers, dims)
    varies = value.varies.expand(value.shape).any(dim=tuple(dims), keepdim=True)
    if value.fed:  # it depends on how many there are
        cumulates = call.operation.startswith("cum")
        varies = value.nonzero if cumulates else torch.ones((), dtype=torch.bool)
    return each(call.result, lambda x: Value(x, varies.expand(x.shape), tuple(layers)))


_VANISH = (
    *("mean", "sum", "amax", "amin", "prod", "var", "std", "var_mean", "logsumexp", "norm"),
    *("linalg_vector_norm", "max", "min", "argmax", "argmin", "any", "all", "nansum", "median"),
    *("count_nonzero", "std_mean", "nanmean"),
)
_SIZED = {
    *("prod", "sum", "logsumexp", "norm", "linalg_vector_norm", "nansum", "count_nonzero"),
    *("var", "std", "var_mean", "std_mean"),
}
"""What these make of a constant depends on how many there are."""

_STAY = ("softmax", "log_softmax", "cumsum", "cumprod")

RULES: dict[str, Rule] = {**dict.fromkeys(_VANISH, _reduce), **dict.fromkeys(_STAY, _along)}
