"""Which channels of a network go together, and can go for good."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from infcop.collapse.dead import kin
from infcop.collapse.exported import arguments_of, entries_of, trace
from infcop.collapse.facts import Coupling, Facts, placed
from infcop.collapse.plan import plan
from infcop.collapse.run import Findings, run
from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.core.rng import preserved_rng
from infcop.models.calling import Inputs
from infcop.models.weight_axes import WeightAxes, weight_axes

__all__ = ["channel_groups"]

Place = tuple[str, int]

_STRIDE = 7919
"""A prime number."""


def channel_groups(
    model: nn.Module, example_inputs: Inputs, weights: Sequence[str]
) -> ChannelGroups:
    """Find the groups of channels that can be removed for good.

    A channel goes with the outputs of all layers that make it, which are several where layers are
    added up, and the inputs of all layers that read it. Without its entries in the given weights no
    surviving weight leads on from it, so that collapse removes it. This is tried out, with one
    group of each class: what would stay (channels of the input and the output, those that a
    normalisation mixes, heads, what weights that are not given read) belongs to no group.

    Args:
        model: Any model that collapse can trace; it is left as it is.
        example_inputs: A tuple of positional arguments or a mapping of keyword arguments.
        weights: The parameters whose entries may be pruned.

    Raises:
        CollapseError: The model can't be copied, run or traced.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> found = channel_groups(model, (torch.randn(4, 2),), ["0.weight", "2.weight"])
        >>> found.places["0.weight"][0], found.places["2.weight"][1]
        (tensor([0, 1, 2]), tensor([0, 1, 2]))
    """
    own = copy.deepcopy(model).cpu().eval()
    arguments = pytree.tree_map(
        lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf,
        arguments_of(example_inputs),
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in own.named_parameters()}
    with preserved_rng():
        findings = run(trace(copy.deepcopy(own), arguments), Masks({}))
        groups = _grouped(findings, weight_axes(own, weights))
        everything = Masks.full({name: shapes[name] for name in groups.places})
        tried = groups.without(_one_of_each(groups), everything)
        with torch.no_grad():
            for name, mask in tried.items():
                own.get_parameter(name).masked_fill_(~mask, 0.0)
        # Values of today may be zero by chance: what training could change counts as different.
        found = run(trace(copy.deepcopy(own), arguments), tried, trains=True)
        kept = plan(found, own, fold=False).kept
    return _only(groups, _vanishing(groups, kept, entries_of(own)))


def _grouped(findings: Findings, axes: Mapping[str, WeightAxes]) -> ChannelGroups:
    """Number the channels that might go.

    Args:
        findings: Of a run of the dense network.
        axes: The weights whose entries may be pruned, and where each has its inputs.
    """
    facts = findings.facts
    channel = _channels(facts, findings, axes)
    where: dict[int, set[Place]] = defaultdict(set)
    for name in axes:
        for layer in findings.units.get(name, ()):
            for unit in torch.unique(channel[layer.ids]).tolist():
                where[unit].add((name, layer.dims[0]))
    held = torch.zeros(facts.count, dtype=torch.bool)
    for ids in (torch.zeros(1, dtype=torch.int64), *facts.pinned):
        held[channel[ids.reshape(-1)]] = True
    classes: dict[frozenset[Place], list[int]] = defaultdict(list)
    for unit, places in where.items():
        if not held[unit]:
            classes[frozenset(places)].append(unit)
    number = torch.full((facts.count,), -1, dtype=torch.int64)
    of_class: list[int] = []
    for units in classes.values():
        # Of one channel alone nothing can be removed.
        if len(units) > 1:
            label = of_class[-1] + 1 if of_class else 0
            number[torch.tensor(units)] = torch.arange(len(of_class), len(of_class) + len(units))
            of_class += [label] * len(units)
    found = {
        name: tuple(number[channel[layer.ids]] for layer in findings.units[name])
        for name in axes
        if findings.units.get(name)
    }
    return ChannelGroups(found, torch.tensor(of_class, dtype=torch.int64))


def _channels(facts: Facts, findings: Findings, axes: Mapping[str, WeightAxes]) -> Tensor:
    """Return for each unit the first one of the channel that it belongs to.

    Inputs of convolutions have units of their own, which have to form blocks with the channels that
    they read: with one, or with groups the same member of each. They go together, and so do all
    that have to form a block of one dimension. Of a depthwise layer all outputs of a channel do.
    """
    read, depthwise = (torch.zeros(facts.count, dtype=torch.bool) for _ in range(2))
    ties = [torch.zeros((2, 0), dtype=torch.int64)]
    for name, one in axes.items():
        layers = findings.units.get(name, ())
        if len(layers) < 2:
            continue
        read[layers[one.input].ids] = True
        if one.groups > 1 and one.output == 0 and len(layers[one.input].ids) == 1:
            outputs = layers[one.output].ids.reshape(one.groups, -1)
            depthwise[outputs] = True
            ties.append(torch.stack([outputs[:, :1].expand_as(outputs), outputs]).flatten(1))
    for coupling in facts.couplings:
        real = [axis for axis, size in enumerate(coupling.sizes) if size > 1]
        whole = any(bool(depthwise[ids].all()) for _, ids in coupling.layers)
        for dims, ids in coupling.layers:
            along = [axis for axis in dims if axis in real]
            if len(along) == 1 and (along == real or whole or bool(read[ids].all())):
                ties += _ties(coupling, along[0], ids.reshape(-1))
    return kin(facts, ties)


def _ties(coupling: Coupling, axis: int, ids: Tensor) -> Iterator[Tensor]:
    """Yield pairs of the units along one axis and all that meet them."""
    for axes, others in coupling.layers:
        if axis in axes:
            along = placed(ids, (axis,), axes).expand_as(others)
            yield torch.stack([along.reshape(-1), others.reshape(-1)])


def _one_of_each(groups: ChannelGroups) -> Tensor:
    """Choose a group of every class, of neighbouring classes not those at the same place."""
    removed = torch.zeros(groups.count, dtype=torch.bool)
    sizes = torch.bincount(groups.classes).tolist()
    first = 0
    for label, size in enumerate(sizes):
        removed[first + label * _STRIDE % size] = True
        first += size
    return removed


def _vanishing(
    groups: ChannelGroups,
    kept: dict[str, tuple[Tensor | None, ...]],
    entries: dict[str, Tensor],
) -> Tensor:
    """Return whether a class loses its group at all its places."""
    chosen = _one_of_each(groups)
    fine = torch.ones(int(groups.classes.max()) + 1 if groups.count else 0, dtype=torch.bool)
    for name, dimensions in groups.places.items():
        for dim, numbers in enumerate(dimensions):
            stays = torch.zeros(entries[name].shape[dim], dtype=torch.bool)
            left = kept[name][dim]
            stays[slice(None) if left is None else left] = True
            wrong = numbers[(numbers >= 0) & stays]
            fine[groups.classes[wrong[chosen[wrong]]]] = False
    return fine


def _only(groups: ChannelGroups, fine: Tensor) -> ChannelGroups:
    """Leave out the classes that are not fine."""
    stays = fine[groups.classes]
    number = torch.full((groups.count + 1,), -1, dtype=torch.int64)
    number[:-1][stays] = torch.arange(int(stays.sum()))
    places = {name: tuple(number[one] for one in own) for name, own in groups.places.items()}
    classes = torch.unique(groups.classes[stays], return_inverse=True)[1]
    return ChannelGroups(places, classes)
