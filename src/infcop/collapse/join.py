"""Where several values meet, their units have to agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infcop.collapse.facts import Facts, Layer, placed

__all__ = ["Operand", "agree", "join"]


@dataclass(frozen=True, eq=False)
class Operand:
    """A value that takes part, on the grid of the operation.

    Attributes:
        layers: Its units.
        real: The dimensions of the grid that it fills, instead of being repeated along them.
    """

    layers: Sequence[Layer]
    real: frozenset[Any]


def agree(facts: Facts, operands: Sequence[Operand], reason: str) -> list[Layer]:
    """Let units that meet survive together.

    Layers over the same dimensions are united. Layers that share some dimensions have to form
    blocks. Where an operand fills a dimension and has no units along it, its size is fixed, and so
    the others keep theirs.

    Returns:
        One layer for each set of dimensions.
    """
    met: dict[tuple[Any, ...], Layer] = {}
    for operand in operands:
        for layer in operand.layers:
            first = met.setdefault(layer.dims, layer)
            if first is not layer:
                facts.unite(first.ids, layer.ids)
    layers = list(met.values())
    for operand in operands:
        own = {dim for layer in operand.layers for dim in layer.dims}
        for layer in layers:
            facts.fix(layer, operand.real - own, reason)
    for group in _overlapping(layers):
        if len(group) > 1:
            facts.couple(group)
    return layers


def join(facts: Facts, operands: Sequence[Operand], reason: str) -> list[Layer]:
    """Let units that meet survive together, and return those of the result.

    Units of whole slices (a head) are needed by those inside (its dimensions), which stand for
    them from here on.
    """
    layers = agree(facts, operands, reason)
    finest = []
    for layer in layers:
        inside = [other for other in layers if set(layer.dims) < set(other.dims)]
        for other in inside:
            facts.use(placed(layer.ids, layer.dims, other.dims), other.ids)
        if not inside:
            finest.append(layer)
    return finest


def _overlapping(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Return the groups of layers that are linked by common dimensions."""
    groups: list[list[Layer]] = []
    for layer in layers:
        linked = [g for g in groups if any(set(layer.dims) & set(one.dims) for one in g)]
        groups = [g for g in groups if not any(g is one for one in linked)]
        groups.append([layer, *(one for group in linked for one in group)])
    return groups
