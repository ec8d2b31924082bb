"""What of each parameter and buffer stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infcop.collapse.dead import Survivors, survivors
from infcop.collapse.exported import entries_of
from infcop.collapse.facts import Coupling, Layer, placed
from infcop.collapse.run import Findings

__all__ = ["Plan", "living", "plan", "sliced"]


@dataclass(frozen=True, eq=False)
class Plan:
    """What to keep.

    Attributes:
        survivors: The units that stay.
        kept: For each parameter and buffer, also under second names, which positions stay along
            each dimension; None for all.
        added: What removed constant units add to each output of a layer that stays, float64, by
            the name of its bias.
        made: The same, by the name of the weight, for layers that have no bias yet.
        channels: By module, which channels stay of what normalisations without parameters get.
        needed: For each buffer, which of the entries that stay have a part in the outputs; others
            are there because tensors have to stay blocks.
    """

    survivors: Survivors
    kept: dict[str, tuple[Tensor | None, ...]]
    added: dict[str, Tensor]
    made: dict[str, Tensor]
    channels: dict[str, Tensor]
    needed: dict[str, Tensor]


def plan(
    findings: Findings,
    model: nn.Module,
    pinned: Iterable[Tensor] = (),
    couplings: Iterable[Coupling] = (),
    *,
    fold: bool = True,
) -> Plan:
    """Work out what stays.

    Args:
        findings: What a run over the graph of the model has found out.
        model: The model.
        pinned: Further units that have to stay.
        couplings: Further couplings.
        fold: Whether biases take over constants.
    """
    found = survivors(findings.facts, pinned, couplings, fold)
    first: dict[int, str] = {}
    kept: dict[str, tuple[Tensor | None, ...]] = {}
    needed: dict[str, Tensor] = {}
    for name, tensor in entries_of(model).items():
        owner = first.setdefault(id(tensor), name)
        layers = findings.units.get(owner, ())
        alive = [found.alive[layer.ids] for layer in layers]
        kept[name] = tuple(_left(one) for one in alive) if layers else (None,) * tensor.ndim
        if not isinstance(tensor, nn.Parameter):
            needed[name] = sliced(_all_needed(tensor, layers, found), kept[name])
    added: dict[str, Tensor] = {}
    made: dict[str, Tensor] = {}
    for layer in findings.folds if fold else ():
        removed = ~found.alive
        if not bool(removed[layer.inputs.layers[0].ids].any()):
            continue
        amount = layer.added(removed)
        if bool((amount != 0).any()):
            if layer.bias is None:
                made[layer.weight] = sliced(amount, (kept[layer.weight][layer.rows],))
            else:
                added[layer.bias] = sliced(amount, kept[layer.bias])
    return Plan(found, kept, added, made, _channels(findings, found), needed)


def sliced(tensor: Tensor, kept: tuple[Tensor | None, ...]) -> Tensor:
    """Return the entries at the kept positions.

    Example:
        >>> import torch
        >>> sliced(torch.arange(6).reshape(2, 3), (None, torch.tensor([0, 2])))
        tensor([[0, 2],
                [3, 5]])
    """
    for dim, positions in enumerate(kept):
        if positions is not None:
            tensor = tensor.index_select(dim, positions.to(tensor.device))
    return tensor


def _all_needed(tensor: Tensor, layers: Sequence[Layer], found: Survivors) -> Tensor:
    needed = torch.ones((), dtype=torch.bool)
    for layer in layers:
        needed = needed & placed(found.needed[layer.ids], layer.dims, range(tensor.ndim))
    return needed.expand(tensor.shape)


def _channels(findings: Findings, found: Survivors) -> dict[str, Tensor]:
    """Return, per module, which channels survive in its calls, if these agree."""
    channels: dict[str, Tensor] = {}
    differ = set()
    for sizes in findings.sizes:
        for shape, layers in sizes.values:
            if len(shape) < 2:
                continue
            alive = living(shape, layers, 1, found)
            before = channels.setdefault(sizes.place, alive)
            if not torch.equal(before, alive):
                differ.add(sizes.place)
    return {
        place: alive.nonzero()[:, 0] for place, alive in channels.items() if place not in differ
    }


def living(shape: Sequence[int], layers: Iterable[Layer], dim: int, found: Survivors) -> Tensor:
    """Return which positions along one dimension of a value survive.

    Args:
        shape: The shape of the value.
        layers: Its units.
        dim: The dimension.
        found: What survives.
    """
    own = [layer for layer in layers if dim in layer.dims]
    alive = torch.full((shape[dim],), not own)
    for layer in own:
        others = tuple(at for at, one in enumerate(layer.dims) if one != dim)
        units = found.alive[layer.ids]
        alive = alive | (units.any(dim=others) if others else units)
    return alive


def _left(alive: Tensor) -> Tensor | None:
    return None if bool(alive.all()) else alive.nonzero()[:, 0]
