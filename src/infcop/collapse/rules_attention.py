"""Scaled dot-product attention."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_uppercase
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.broadcast import met
from infcop.collapse.call import Call, Rule, unknown
from infcop.collapse.einsum import Labelled, contract
from infcop.collapse.facts import Layer
from infcop.collapse.rules_linear import numbered
from infcop.collapse.values import Value

__all__ = ["RULES"]


def _attention(call: Call) -> Any:
    """Scores contract queries with keys; their softmax is contracted with values.

    Without an explicit scale the scores are divided by the root of the number of dimensions of a
    head, so these go only together, as a head.
    """
    query, key, value = call["query"], call["key"], call["value"]
    if call.arguments.get("enable_gqa"):
        key, value = (_repeated(one, query.shape[-3]) for one in (key, value))
    ndim = query.tensor.ndim
    batches = {one.shape[:-2] for one in (query, key, value)}
    if len(batches) > 1:
        return unknown(call)
    if call.arguments.get("scale") is None:
        for layer in query.layers:
            if ndim - 1 in layer.dims:
                axis = layer.dims.index(ndim - 1)
                call.facts.mix(layer.ids, (axis,), call.reason("scales by the size of a head"))
    batch = ascii_uppercase[: ndim - 2]
    reason = call.reason("meets a tensor of fixed size")
    found = contract(
        call.facts,
        Labelled(f"{batch}le", query),
        Labelled(f"{batch}se", key),
        f"{batch}ls",
        reason,
    )
    layers = []
    for layer in numbered(found, f"{batch}ls"):
        if ndim - 1 in layer.dims:
            call.facts.pin(layer.ids, call.reason("mixes all units"))
        else:
            layers.append(layer)
    shape = torch.Size((*query.shape[:-1], key.shape[-2]))
    mask = call.arguments.get("attn_mask")
    if mask is not None:
        layers = met(call, [(layers, shape), (mask.layers, mask.shape)], shape)
    everywhere = torch.ones((), dtype=torch.bool).expand(shape)
    weights = Value(everywhere, everywhere, tuple(layers), fed=True)
    given = contract(
        call.facts,
        Labelled(f"{batch}ls", weights),
        Labelled(f"{batch}sd", value),
        f"{batch}ld",
        reason,
    )
    return call.gives(numbered(given, f"{batch}ld"), _moving(value, mask is None))


def _moving(value: Value, all_seen: bool) -> Tensor:
    """A mean of what is the same at all positions is the same, whatever the weights."""
    moves = value.varies.expand(value.shape).any(dim=-2, keepdim=True)
    if all_seen:
        return moves | (value.tensor != value.tensor.narrow(-2, 0, 1)).any(dim=-2, keepdim=True)
    return moves | (value.tensor != 0).any(dim=-2, keepdim=True)


def _repeated(value: Value, heads: int) -> Value:
    """Give each query head a key head of its own."""
    axis = value.tensor.ndim - 3
    times = heads // value.shape[axis]
    layers = [
        Layer(x.dims, x.ids.repeat_interleave(times, x.dims.index(axis))) if axis in x.dims else x
        for x in value.layers
    ]
    return replace(
        value,
        tensor=value.tensor.repeat_interleave(times, axis),
        varies=value.varies.expand(value.shape).repeat_interleave(times, axis),
        layers=tuple(layers),
        surviving=None,
    )


RULES: dict[str, Rule] = {"scaled_dot_product_attention": _attention}
