"""Operations that only move entries: run on the units as they are run on the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.call import Call, Rule
from infcop.collapse.facts import Layer
from infcop.collapse.join import Operand, join
from infcop.collapse.values import Value, gathered, spread, tidied

__all__ = ["RULES", "moved"]


def moved(call: Call, layers: Sequence[Layer] | None = None) -> Any:
    """Run the operation on the units of its first operand."""
    value = call.values[0]
    layers = value.layers if layers is None else layers
    reason = call.reason("reads a single unit")
    # A view of repeated numbers need not exist.
    ids = [_several(call.again(spread(layer, value.shape).contiguous())) for layer in layers]
    varies = _several(call.again(value.varies.expand(value.shape).contiguous()))
    surviving = None
    if value.surviving is not None:
        surviving = _several(call.again(value.surviving.expand(value.shape).contiguous()))
    given = []
    for at, result in enumerate(_several(call.result)):
        found = [gathered(call.facts, one[at], reason) for one in ids]
        own = tidied(call.facts, found)
        given.append(
            Value(result, varies[at], own, surviving=None if surviving is None else surviving[at])
        )
    return given[0] if isinstance(call.result, Tensor) else tuple(given)


def _several(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _by_position(call: Call) -> Any:
    """Pick or shift along a dimension by number, so that its size has to stay."""
    value = call.values[0]
    ndim = value.tensor.ndim
    dims = call.arguments.get("dim", call.arguments.get("dims"))
    dims = dims if isinstance(dims, (list, tuple)) else [dims]
    fixed = {dim % ndim for dim in dims} or set(range(ndim))
    for layer in value.layers:
        call.facts.fix(layer, fixed, call.reason("picks by position"))
    return moved(call)


def _split(call: Call) -> Any:
    """Equal pieces have to stay equal; others keep their sizes."""
    value = call.values[0]
    dim = call["dim"] % value.tensor.ndim
    sizes = {piece.shape[dim] for piece in call.result}
    if len(sizes) > 1:
        return _by_position(call)
    (size,) = sizes
    for layer in value.layers:
        if dim in layer.dims:
            ids = torch.unflatten(layer.ids, layer.dims.index(dim), (-1, size))
            pieces = Layer(tuple(range(ids.ndim)), ids)
            reason = call.reason("splits into equal pieces")
            call.facts.fix(pieces, (layer.dims.index(dim),), reason)
    return moved(call)


_END = 2**63 - 1
"""The end of a slice that goes to the end."""


def _slice(call: Call) -> Any:
    """A part of a table has the size of the inputs, and so may have other entries for others."""
    value = call.values[0]
    dim = call["dim"] % value.tensor.ndim
    whole = call.shape[dim] == value.shape[dim]
    given = moved(call) if whole else _by_position(call)
    if value.fed or (whole and call.arguments.get("end") in (None, _END)):
        return given
    any_of_it = value.nonzero.any(dim=dim, keepdim=True).expand(value.shape)
    varies = call.again(any_of_it.contiguous())
    return replace(given, varies=varies, surviving=None if value.surviving is None else varies)


def _cat(call: Call) -> Value:
    values = [value for value in call.values if value.shape != (0,)]
    dim = call["dim"] % call.result.ndim
    ndim = call.result.ndim
    across, along = [], []
    for value in values:
        own = [layer for layer in value.layers if dim not in layer.dims]
        other = {at for layer in value.layers if dim in layer.dims for at in layer.dims}
        filled = {at for at in range(ndim) if value.shape[at] > 1} - other - {dim}
        across.append(Operand(own, frozenset(filled)))
    signatures = dict.fromkeys(x.dims for v in values for x in v.layers if dim in x.dims)
    for dims in signatures:
        pieces = [_piece(value, dims) for value in values]
        along.append(Layer(dims, torch.cat(pieces, dims.index(dim))))
    reason = call.reason("meets a tensor of fixed size")
    layers = join(call.facts, across, reason)
    layers = join(call.facts, [Operand([*layers, *along], frozenset())], reason)
    varies = torch.cat([value.varies.expand(value.shape) for value in values], dim)
    return call.gives(layers, varies)


def _piece(value: Value, dims: tuple[int, ...]) -> Tensor:
    for layer in value.layers:
        if layer.dims == dims:
            return layer.ids
    return torch.zeros([value.shape[at] for at in dims], dtype=torch.int64)


def _stack(call: Call) -> Value:
    values = call.values
    dim = call["dim"] % call.result.ndim
    names = {at: at + (at >= dim) for at in range(call.result.ndim)}
    operands = [
        Operand(
            [layer.renamed(names) for layer in value.layers],
            frozenset(names[at] for at, size in enumerate(value.shape) if size > 1),
        )
        for value in values
    ]
    layers = join(call.facts, operands, call.reason("meets a tensor of fixed size"))
    varies = torch.stack([value.varies.expand(value.shape) for value in values], dim)
    return call.gives(layers, varies)


def _pad(call: Call) -> Value:
    value = call.values[0]
    pads: Sequence[int] = call.arguments.get("pad") or call["padding"]
    ndim = value.tensor.ndim
    grown = {ndim - 1 - at // 2 for at, amount in enumerate(pads) if amount}
    # Along the other dimensions nothing happens to the units. Padding is of number 0.
    kept = [layer for layer in value.layers if not grown & set(layer.dims)]
    padded = [layer for layer in value.layers if grown & set(layer.dims)]
    # Not every padding knows integers.
    zero = {"value": 0} if "value" in call.arguments else {}
    reason = call.reason("adds entries of fixed number")
    found = []
    for layer in padded:
        ids = call.again(spread(layer, value.shape).double(), **zero).long()
        found.append(gathered(call.facts, ids, reason))
        call.facts.fix(layer, grown, reason)
    varies = call.again(value.varies.expand(value.shape).double(), **zero) != 0
    # A table of positions is filled up to the size of the inputs.
    varies = varies | torch.tensor(not value.fed)
    return call.gives(tidied(call.facts, [*kept, *found]), varies)


def _pixel_shuffle(call: Call) -> Value:
    """Units that go to one output channel live and die together."""
    value = call.values[0]
    factor = call["upscale_factor"] ** 2
    channel = value.tensor.ndim - 3
    layers = []
    for layer in value.layers:
        if layer.dims != (channel,):
            call.facts.pin(layer.ids, call.reason("moves units"))
            continue
        ids = layer.ids.reshape(-1, factor)
        call.facts.mix(ids, (1,), call.reason("makes one channel of several"))
        layers.append(Layer((channel,), ids[:, 0].clone()))
    return call.gives(layers, call.again(value.varies.expand(value.shape).double()) != 0)


_MOVES = (
    *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t"),
    *("numpy_T", "mT", "adjoint", "movedim", "moveaxis", "swapaxes", "swapdims", "squeeze"),
    *("unsqueeze", "expand", "expand_as", "view_as", "reshape_as", "repeat", "tile"),
    *("repeat_interleave", "flip", "pixel_unshuffle"),
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVES, moved),
    **dict.fromkeys(("select", "unbind", "roll"), _by_position),
    **dict.fromkeys(("slice", "narrow"), _slice),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), _split),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "pixel_shuffle": _pixel_shuffle,
}
