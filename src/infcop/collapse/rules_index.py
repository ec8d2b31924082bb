"""Operations that look entries up by their numbers."""

from __future__ import annotations

from typing import Any

import torch

from infcop.collapse.call import Call, Rule
from infcop.collapse.rules_structure import moved
from infcop.collapse.values import Value

__all__ = ["RULES"]


def _embedding(call: Call) -> Value:
    """Rows are chosen by the inputs, so all stay; columns are units."""
    table, chosen = call["weight"], call["indices"]
    last = call.result.ndim - 1
    layers = []
    for layer in table.layers:
        if layer.dims == (1,):
            layers.append(layer.renamed({1: last}))
        else:
            call.facts.pin(layer.ids, call.reason("looks rows up by number"))
    for layer in chosen.layers:
        call.facts.pin(layer.ids, call.reason("looks rows up by number"))
    some = table.nonzero.any(dim=0)
    varies = (chosen.varies.expand(chosen.shape)[..., None] & some) | table.varies.any(dim=0)
    return call.gives(layers, varies)


def _index(call: Call) -> Any:
    """Fixed numbers keep the size of their dimensions; other numbers keep all of their units."""
    value, *chosen = call.values
    indices = call.arguments.get("indices", call.arguments.get("index"))
    if isinstance(indices, (list, tuple)):
        dims = {at for at, index in enumerate(indices) if index is not None}
    else:
        dims = {call["dim"] % value.tensor.ndim}
    constant = all(index.constant and not index.layers for index in chosen)
    layers = []
    for index in chosen:
        for layer in index.layers:
            call.facts.pin(layer.ids, call.reason("looks entries up by number"))
    for layer in value.layers:
        if constant:
            call.facts.fix(layer, dims, call.reason("looks entries up by number"))
            layers.append(layer)
        elif dims & set(layer.dims):
            call.facts.pin(layer.ids, call.reason("looks entries up by number"))
        else:
            layers.append(layer)
    given = moved(call, layers)
    return given if constant else call.gives(given.layers, torch.ones((), dtype=torch.bool))


RULES: dict[str, Rule] = {
    "embedding": _embedding,
    "index": _index,
    "index_select": _index,
}
