"""Layers whose bias can take over what removed constant units used to add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from infcop.collapse.facts import placed
from infcop.collapse.positions import even
from infcop.collapse.values import Value, spread

__all__ = ["Fold"]

_AT_ONCE = 16
"""Units that are tried at once."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A call of a layer that may have constant inputs.

    Attributes:
        weight: The name of its weight.
        bias: The name of its bias; None where it has none.
        possible: Whether it has a bias of its own, or can be given one.
        inputs: What it is called with, [batch, ..., units, ...].
        axis: The dimension of the units, and of the outputs in the result.
        rows: The dimension of the outputs in the weight.
        apply: The layer without its bias.
        alone: What units that are 1 everywhere add to the outputs of their groups, [units, groups,
            outputs, positions], for units by their numbers within groups. None for a layer without
            a kernel that reaches over borders.
    """

    weight: str
    bias: str | None
    possible: bool
    inputs: Value
    axis: int
    rows: int
    apply: Callable[[Tensor], Tensor]
    alone: Callable[[Tensor], Tensor] | None = None

    def exact(self, constant: Tensor, labels: str, onto: str) -> Tensor:
        """Return, per unit and output, whether the unit adds the same everywhere.

        Args:
            constant: Which units are constant and not zero.
            labels: The letters of ``constant``: ``k``, after ``g`` in a convolution.
            onto: The letters of the result, of which ``o`` counts the outputs of a group.
        """
        if labels not in ("k", "gk"):  # the batch has units too
            return torch.zeros((), dtype=torch.bool)
        entries = _by_unit(self.inputs.tensor, self.axis)
        alike = even(entries, (1,)).reshape(constant.shape)
        if self.alone is None:
            return placed(alike, labels, onto)
        members = (constant & alike).any(dim=0).nonzero()[:, 0]
        if not len(members):
            return torch.zeros((), dtype=torch.bool)
        found = [even(self.alone(some), (-1,))[..., 0] for some in torch.split(members, _AT_ONCE)]
        ones = torch.zeros(constant.shape[1], *found[0].shape[1:], dtype=torch.bool)
        ones[members] = torch.cat(found)
        return placed(ones.transpose(0, 1) & alike[..., None], "gko", onto)

    def added(self, removed: Tensor) -> Tensor:
        """Return what removed units used to add to each output.

        Args:
            removed: Which units are gone, by number.
        """
        (layer,) = self.inputs.layers
        gone = removed[spread(layer, self.inputs.shape)] & ~self.inputs.varies
        given = self.apply(torch.where(gone, self.inputs.tensor.double(), 0.0))
        return _by_unit(given, self.axis)[:, 0]


def _by_unit(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
