"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.broadcast import met, shares
from infcop.collapse.call import Call, Rule, unknown
from infcop.collapse.facts import Layer
from infcop.collapse.rules_conv import split_axis
from infcop.collapse.rules_reduce import mixed
from infcop.collapse.values import Value

__all__ = ["RULES"]


_AFFINE = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")


def _scaled(
    call: Call, layers: Sequence[Layer], varies: Tensor, names: Sequence[str], dims: Sequence[int]
) -> Value:
    """Let units meet the parameters and statistics that belong to them.

    Args:
        call: The operation.
        layers: The units of what is normalised.
        varies: What of it varies.
        names: The arguments that are parameters and statistics.
        dims: The dimensions of the result that these have.
    """
    after = call.result.ndim - dims[-1] - 1
    operands = [(layers, call.shape)]
    own = [call.arguments[name] for name in names if call.arguments.get(name) is not None]
    operands += [(one.layers, torch.Size((*one.shape, *[1] * after))) for one in own]
    met_layers = met(call, operands, call.shape)
    varies = varies | torch.tensor(any(shares(call, met_layers, one, dims) for one in own))
    for one in own:
        varies = varies | one.varies.reshape(*one.shape, *[1] * after)
    return call.gives(met_layers, varies)


def _batch(call: Call) -> Value:
    """In evaluation mode each channel is scaled and shifted; else by statistics of its own."""
    value = call["input"]
    layers: Sequence[Layer] = value.layers
    varies = value.varies
    if call["training"]:
        others = tuple(at for at in range(value.tensor.ndim) if at != 1)
        layers = mixed(call, layers, others)
        varies = varies.expand(value.shape).any(dim=others, keepdim=True)
    return _scaled(call, layers, varies, (*_AFFINE, *_STATISTICS), [1])


def _instance(call: Call) -> Value:
    value = call["input"]
    positions = tuple(range(2, value.tensor.ndim))
    layers = mixed(call, value.layers, positions)
    varies = value.varies.expand(value.shape).any(dim=positions, keepdim=True)
    return _scaled(call, layers, varies, (*_AFFINE, *_STATISTICS), [1])


def _group(call: Call) -> Any:
    """The channels of a group live and die together."""
    value = call["input"]
    if any(1 in layer.dims and layer.dims != (1,) for layer in value.layers):
        return unknown(call)
    split = split_axis(value, 1, call["num_groups"])
    inside = tuple(range(2, split.tensor.ndim))
    mixed(call, split.layers, inside)
    varies = split.varies.any(dim=inside, keepdim=True).expand(split.shape).flatten(1, 2)
    return _scaled(call, value.layers, varies, _AFFINE, [1])


def _layer(call: Call) -> Value:
    """All units that are normalised together live and die together."""
    value = call["input"]
    ndim = value.tensor.ndim
    dims = list(range(ndim - len(call["normalized_shape"]), ndim))
    layers = mixed(call, value.layers, dims)
    varies = value.varies.expand(value.shape).any(dim=dims, keepdim=True)
    return _scaled(call, layers, varies, _AFFINE, dims)


RULES: dict[str, Rule] = {
    "batch_norm": _batch,
    "instance_norm": _instance,
    "group_norm": _group,
    "layer_norm": _layer,
    "rms_norm": _layer,
}
