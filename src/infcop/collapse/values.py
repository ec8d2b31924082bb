"""What is known of an intermediate value: its numbers, its units, what varies with the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.facts import Facts, Layer, placed

__all__ = ["Value", "gathered", "plain", "spread", "tidied"]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph.

    Attributes:
        tensor: Its numbers on the example inputs, with masked weights; float64 once computed.
        varies: Which entries can change with the inputs of the model, or with their sizes;
            broadcast to its shape. What is computed from inputs and does not vary is the same at
            all positions, for inputs of any size.
        layers: Its units. Without any it can't shrink.
        name: The parameter or buffer that it is, if it is one.
        surviving: Which entries of a parameter, or of what is made of parameters alone, can differ
            from zero; None for all of the latter, and for what is made of inputs.
        fed: Whether it is computed from the inputs of the model, constant or not.
        learned: Whether it is computed from trainable parameters.
    """

    tensor: Tensor
    varies: Tensor
    layers: tuple[Layer, ...] = ()
    name: str | None = None
    surviving: Tensor | None = None
    fed: bool = False
    learned: bool = False

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return self.tensor.shape

    @property
    def nonzero(self) -> Tensor:
        """Which entries may differ from zero for some inputs, and some values of parameters.

        What is made of parameters alone may be zero by chance, since they start from there.
        """
        if self.surviving is not None:
            return self.surviving
        if self.learned and not self.fed:
            return torch.ones((), dtype=torch.bool).expand(self.shape)
        return self.varies | (self.tensor != 0)

    @property
    def constant(self) -> bool:
        """Whether nothing in it depends on the inputs of the model, or on their sizes."""
        return not bool(self.varies.any())


def plain(tensor: Tensor, *, varies: bool) -> Value:
    """Return a value without units, all of which varies or nothing."""
    return Value(tensor, torch.tensor(varies).expand(tensor.shape))


def spread(layer: Layer, shape: Sequence[int]) -> Tensor:
    """Return the unit of every entry of a value of this shape."""
    return placed(layer.ids, layer.dims, range(len(shape))).expand(tuple(shape))


def gathered(facts: Facts, ids: Tensor, reason: str) -> Layer | None:
    """Return the layer of a value from the unit of every entry.

    Over several dimensions the survivors have to form a block, or else the value could not keep
    its form. If all entries are of one unit there is no dimension to put it on. It is then pinned.
    """
    if not ids.numel():
        return None
    dims = []
    for dim in range(ids.ndim):
        first = ids.narrow(dim, 0, 1)
        if ids.stride(dim) and not torch.equal(ids, first.expand_as(ids)):
            dims.append(dim)
        else:
            ids = first
    if not dims:
        facts.pin(ids, reason)
        return None
    layer = Layer(tuple(dims), ids.reshape([ids.shape[dim] for dim in dims]).clone())
    if len(dims) > 1:
        facts.couple([layer])
    return layer


def tidied(facts: Facts, layers: Sequence[Layer | None]) -> tuple[Layer, ...]:
    """Leave one layer for each set of dimensions.

    Where the units of one tell those of the other, as channels and positions tell channels, the
    other is needed by it. Otherwise both are united, which keeps more than would be necessary.
    """
    kept: dict[tuple[Any, ...], Layer] = {}
    for layer in layers:
        if layer is None:
            continue
        other = kept.setdefault(layer.dims, layer)
        if other is not layer:
            kept[layer.dims] = _finer(facts, other, layer)
    return tuple(kept.values())


def _finer(facts: Facts, one: Layer, other: Layer) -> Layer:
    joint = torch.unique((one.ids << 32) | other.ids).numel()
    for fine, coarse in ((one, other), (other, one)):
        if joint == torch.unique(fine.ids).numel():
            facts.use(coarse.ids, fine.ids)
            return fine
    facts.unite(one.ids, other.ids)
    return one
