"""What of each parameter and buffer stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from infcop.collapse.dead import Survivors, survivors
from infcop.collapse.facts import Coupling
from infcop.collapse.graph import entries_of
from infcop.collapse.run import Findings

__all__ = ["Plan", "plan", "sliced"]


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
    """

    survivors: Survivors
    kept: dict[str, tuple[Tensor | None, ...]]
    added: dict[str, Tensor]
    made: dict[str, Tensor]


def plan(
    findings: Findings,
    model: nn.Module,
    pinned: Iterable[Tensor] = (),
    couplings: Iterable[Coupling] = (),
) -> Plan:
    """Work out what stays.

    Args:
        findings: What a run over the graph of the model has found out.
        model: The model.
        pinned: Further units that have to stay.
        couplings: Further couplings.
    """
    found = survivors(findings.facts, pinned, couplings)
    first: dict[int, str] = {}
    kept: dict[str, tuple[Tensor | None, ...]] = {}
    for name, tensor in entries_of(model).items():
        owner = first.setdefault(id(tensor), name)
        layers = findings.units.get(owner, ())
        alive = [found.alive[layer.ids] for layer in layers]
        kept[name] = tuple(_left(one) for one in alive) if layers else (None,) * tensor.ndim
    added: dict[str, Tensor] = {}
    made: dict[str, Tensor] = {}
    for fold in findings.folds:
        removed = ~found.alive
        if not bool(removed[fold.inputs.layers[0].ids].any()):
            continue
        amount = fold.added(removed)
        if bool((amount != 0).any()):
            if fold.bias is None:
                made[fold.weight] = sliced(amount, (kept[fold.weight][fold.rows],))
            else:
                added[fold.bias] = sliced(amount, kept[fold.bias])
    return Plan(found, kept, added, made)


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


def _left(alive: Tensor) -> Tensor | None:
    return None if bool(alive.all()) else alive.nonzero()[:, 0]
