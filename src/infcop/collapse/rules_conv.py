"""Convolutions, with and without groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.call import Call, Rule, unknown
from infcop.collapse.einsum import Labelled, contract
from infcop.collapse.facts import Layer, placed
from infcop.collapse.rules_linear import fold_of, with_bias
from infcop.collapse.values import Value, tidied

__all__ = ["RULES", "split_axis"]


def split_axis(value: Value, axis: int, groups: int) -> Value:
    """View one dimension as groups times members, also where one of both is 1."""
    sizes = (groups, value.shape[axis] // groups)
    names = {at: at + (at > axis) for at in range(value.tensor.ndim)}
    layers = []
    for layer in value.layers:
        if axis in layer.dims:
            ids = torch.unflatten(layer.ids, layer.dims.index(axis), sizes)
            dims = tuple(
                new for at in layer.dims for new in ([at, at + 1] if at == axis else [names[at]])
            )
            layers.append(Layer(dims, ids))
        else:
            layers.append(layer.renamed(names))
    surviving = None
    if value.surviving is not None:
        surviving = torch.unflatten(value.surviving.expand(value.shape), axis, sizes)
    return replace(
        value,
        tensor=torch.unflatten(value.tensor, axis, sizes),
        varies=torch.unflatten(value.varies.expand(value.shape), axis, sizes),
        layers=tuple(layers),
        surviving=surviving,
    )


def _convolution(call: Call) -> Any:
    inputs, weight, bias = call["input"], call["weight"], call["bias"]
    groups = call.arguments.get("groups", 1)
    transposed = _transposed(call)
    if weight.fed or (transposed and groups > 1):
        return unknown(call)
    batch = "A" * (inputs.tensor.ndim == weight.tensor.ndim)
    axis, spatial = len(batch), weight.tensor.ndim - 2

    def apply(x: Tensor) -> Tensor:
        result: Tensor = call.again(x, weight=weight.tensor.double(), bias=None)
        return result

    def alone(members: Tensor) -> Tensor:
        result: Tensor = _each_alone(call, weight.tensor.double(), groups, members)
        return result

    borders = alone if transposed or _padded(call["padding"]) else None
    fold = fold_of(call, inputs, weight, bias, axis, int(transposed), apply, borders)
    found = contract(
        call.facts,
        Labelled(f"{batch}gk{'stu'[:spatial]}", split_axis(inputs, axis, groups)),
        Labelled(
            f"{'kgo' if transposed else 'gok'}{'xyz'[:spatial]}",
            split_axis(weight, int(transposed), groups),
        ),
        f"{batch}go",
        call.reason("has a kernel that slides over the units"),
        fold,
        apart="stuxyz",
    )
    layers = [_merged(layer, batch, (groups, call.shape[axis] // groups)) for layer in found.layers]
    varies = found.varies.flatten(-2).reshape(*call.shape[: axis + 1], *[1] * spatial)
    return with_bias(call, tidied(call.facts, layers), varies, bias, axis)


def _padded(padding: Any) -> bool:
    return padding != "valid" and any([padding] if isinstance(padding, (int, str)) else padding)


def _each_alone(call: Call, kernel: Tensor, groups: int, members: Tensor) -> Tensor:
    """Run a convolution on single channels of ones, in one call.

    The planes are large enough for all that a kernel can meet, at borders and between them, and a
    kernel moves by one: what is even here is even for inputs of any size.

    Returns:
        What each channel adds, [members, groups, outputs of a group, positions].
    """
    spatial = kernel.shape[2:]
    steps = _steps(call["dilation"], len(spatial))
    reach = [size * step for size, step in zip(spatial, steps, strict=True)]
    ones = kernel.new_ones(1, len(members) * groups, *[2 * far + 1 for far in reach])
    if _transposed(call):
        single, changed = kernel[members], {}
    else:
        single = torch.unflatten(kernel, 0, (groups, -1))[:, :, members]
        single = single.movedim(2, 0).flatten(0, 2)[:, None]
        changed = {"stride": [1] * len(spatial)}
    given: Tensor = call.again(ones, weight=single, bias=None, groups=ones.shape[1], **changed)
    return given[0].flatten(1).reshape(len(members), groups, -1, given[0, 0].numel())


def _steps(dilation: Any, count: int) -> list[int]:
    steps = [dilation] if isinstance(dilation, int) else list(dilation)
    return steps * count if len(steps) == 1 else steps


def _transposed(call: Call) -> bool:
    return "transpose" in call.operation


def _merged(layer: Layer, batch: str, sizes: tuple[int, int]) -> Layer:
    """Return a layer over groups and their members as one over channels."""
    if not {"g", "o"} & set(layer.dims):
        return layer.renamed({"A": 0})
    grid = (*batch, "g", "o") if "A" in layer.dims else ("g", "o")
    ids = placed(layer.ids, layer.dims, grid)
    ids = ids.expand(*ids.shape[:-2], *sizes).flatten(-2)
    return Layer((0, 1) if "A" in layer.dims else (len(batch),), ids)


_NAMES = [f"conv{n}d" for n in (1, 2, 3)] + [f"conv_transpose{n}d" for n in (1, 2, 3)]

RULES: Mapping[str, Rule] = dict.fromkeys(_NAMES, _convolution)
