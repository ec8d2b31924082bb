"""What is found out about the units of a network while its graph is run.

A *unit* is a position along one dimension of one parameter or buffer: an output of a layer, an
input of a layer, a channel of a normalisation. Units are numbered. Number 0 stands for everything
that can't be removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Coupling", "Facts", "Layer", "Note", "coupled", "placed", "rigid"]

_ZERO = torch.zeros((), dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Layer:
    """The units along some dimensions of a value.

    A value may have several layers: an entry survives if its units of all layers do.

    Attributes:
        dims: The dimensions, ascending: numbers, or labels while values are contracted.
        ids: The units, int64, of the sizes of these dimensions.
    """

    dims: tuple[Any, ...]
    ids: Tensor

    def renamed(self, names: dict[Any, Any]) -> Layer:
        """Return the layer with its dimensions under other names, in their order."""
        new = [names[dim] for dim in self.dims]
        order = sorted(range(len(new)), key=lambda at: new[at])
        return Layer(tuple(new[at] for at in order), self.ids.permute(order))


@dataclass(frozen=True, eq=False)
class Coupling:
    """Layers over one grid whose survivors have to form a block: a product over its dimensions."""

    sizes: tuple[int, ...]
    layers: tuple[tuple[tuple[int, ...], Tensor], ...]


@dataclass(frozen=True, eq=False)
class Note:
    """Why units can't go one by one."""

    ids: Tensor
    reason: str


class Facts:
    """Collects facts; nothing is concluded here.

    Attributes:
        count: Units so far, with number 0.
        same: Pairs of units that live and die together.
        pinned: Units that have to stay.
        uses: Pairs of a unit and one that needs it.
        folds: Pairs of a unit that is zero and one that it adds to, which need not have it.
        adds: Pairs of a constant unit and one that needs it unless a bias takes over what it adds.
        constants: Pairs of a constant unit and one that uses it, in either way.
        couplings: Which units have to form blocks.
        notes: Reasons, for the report.
    """

    def __init__(self) -> None:
        self.count = 1
        self.same: list[Tensor] = []
        self.pinned: list[Tensor] = []
        self.uses: list[Tensor] = []
        self.folds: list[Tensor] = []
        self.adds: list[Tensor] = []
        self.constants: list[Tensor] = []
        self.couplings: list[Coupling] = []
        self.notes: list[Note] = []
        self._settled = torch.ones(1, dtype=torch.bool)

    def fresh(self, sizes: Sequence[int]) -> Tensor:
        """Return new units in the shape of ``sizes``."""
        amount = int(torch.Size(sizes).numel())
        self.count += amount
        self._settled = torch.cat([self._settled, torch.zeros(amount, dtype=torch.bool)])
        return torch.arange(self.count - amount, self.count).reshape(tuple(sizes))

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Let units live and die together."""
        self.same.append(_pairs(one, other))

    def use(self, unit: Tensor, user: Tensor) -> None:
        """Let each user need its unit."""
        self.uses.append(_pairs(unit, user))

    def use_all(self, units: Tensor, users: Tensor) -> None:
        """Let every user need every unit.

        Both are tied to a unit of no tensor, since the pairs would be as many as weights.
        """
        between = self.fresh((1,))
        self.use(units, between)
        self.use(between, users)

    def fold(self, unit: Tensor, user: Tensor) -> None:
        """Let each user do without its unit, which is zero."""
        self.folds.append(_pairs(unit, user))

    def add(self, unit: Tensor, user: Tensor) -> None:
        """Let each user need its unit, or have what this adds in its bias."""
        self.adds.append(_pairs(unit, user))

    def constant(self, unit: Tensor, user: Tensor) -> None:
        """Remember that each unit is a constant that its user adds up."""
        self.constants.append(_pairs(unit, user))

    def pin(self, ids: Tensor, reason: str) -> None:
        """Keep units, and whatever they need."""
        self.pinned.append(ids.reshape(-1))
        self._settled[ids] = True
        self.notes.append(Note(ids, reason))

    def mix(self, ids: Tensor, axes: Iterable[int], reason: str) -> None:
        """Let all units along these axes live and die together, since an operation mixes them."""
        axes = tuple(axes)
        first = ids
        for axis in axes:
            first = first.narrow(axis, 0, 1)
        self.unite(ids, first)
        self.notes.append(Note(ids, reason))

    def fix(self, layer: Layer, dims: Iterable[Any], reason: str) -> None:
        """Keep the sizes of some dimensions of a layer."""
        fixed = [dim for dim in dims if dim in layer.dims]
        if fixed:
            self.couplings.append(rigid(layer, fixed))
            self.notes.append(Note(layer.ids, reason))
        if len(fixed) == len(layer.dims):
            self._settled[layer.ids] = True

    def settled(self, layer: Layer) -> bool:
        """Whether it is known already that all units of a layer stay."""
        return bool(self._settled[layer.ids].all())

    def couple(self, layers: Sequence[Layer]) -> None:
        """Let the survivors of these layers form a block over all their dimensions."""
        self.couplings.append(coupled(layers))


def coupled(layers: Sequence[Layer]) -> Coupling:
    """Return the coupling of layers over all their dimensions."""
    names = sorted({dim for layer in layers for dim in layer.dims})
    sizes = [0] * len(names)
    parts = []
    for layer in layers:
        axes = tuple(names.index(dim) for dim in layer.dims)
        for axis, size in zip(axes, layer.ids.shape, strict=True):
            sizes[axis] = size
        parts.append((axes, layer.ids))
    return Coupling(tuple(sizes), tuple(parts))


def rigid(layer: Layer, dims: Iterable[Any]) -> Coupling:
    """Return the coupling that keeps the sizes of some dimensions of a layer."""
    sizes = {dim: layer.ids.shape[layer.dims.index(dim)] for dim in dims}
    return coupled([layer, *(Layer((dim,), _ZERO.expand(n)) for dim, n in sizes.items())])


def placed(tensor: Tensor, dims: Sequence[Any], onto: Sequence[Any]) -> Tensor:
    """View a tensor with named dimensions in a wider grid, with size 1 where it has none.

    Example:
        >>> placed(torch.ones(2, 3), ("k", "o"), ("b", "o", "k")).shape
        torch.Size([1, 3, 2])
    """
    present = [dim for dim in onto if dim in dims]
    ordered = tensor.permute([list(dims).index(dim) for dim in present])
    sizes = iter(ordered.shape)
    return ordered.reshape([next(sizes) if dim in dims else 1 for dim in onto])


def _pairs(one: Tensor, other: Tensor) -> Tensor:
    """Return the pairs of two tensors of units as [2, pairs]."""
    one, other = one.expand_as(one + other), other.expand_as(one + other)
    # As one number a pair sorts much faster.
    both = torch.unique((one << 32) | other)
    return torch.stack([both >> 32, both & 0xFFFFFFFF])
