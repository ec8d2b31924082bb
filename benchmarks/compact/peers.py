"""The same channels removed by infcop and by torch-pruning."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from benchmarks.compact.networks import OUTPUTS, Network
from benchmarks.compact.turns import compared
from infcop.collapse import channel_groups, compact
from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.models.calling import Inputs, call
from infcop.models.flops import multiply_adds
from infcop.models.prunable import find_prunable

__all__ = ["beside_torch_pruning"]

_TRACED = 2
"""Examples that the networks are traced with."""


def beside_torch_pruning(
    network: Network, *, batch: int, repeats: int, copies: int
) -> dict[str, Any]:
    """Remove half of the channels of every group with both, and compare what is left.

    Which channels go is drawn. Where one of both fails, what it says is given instead.
    """
    model, inputs = network.build(), network.inputs(_TRACED)
    found: dict[str, Any] = {
        "about": network.about,
        "torch-pruning": version("torch-pruning"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply_adds": multiply_adds(model, inputs).total,
    }
    begun = time.perf_counter()
    prunable = find_prunable(model)
    groups = channel_groups(model, inputs, prunable.names)
    removed = _half(groups)
    masks = groups.without(removed, Masks.full(prunable.shapes))
    found |= {"channels": groups.count, "removed": int(removed.sum())}
    networks = {
        "ours": _tried(lambda: compact(model, masks, inputs).model, inputs, begun),
        "theirs": _tried(lambda: _by_torch_pruning(model, inputs, groups, removed), inputs),
    }
    # Listing the groups of a Llama takes torch-pruning many minutes.
    listed = not isinstance(inputs, Mapping)
    found["only_theirs"] = _only_theirs(model, inputs, groups) if listed else {}
    left: dict[str, nn.Module] = {}
    for label, (own, facts) in networks.items():
        found[label] = facts
        if own is not None:
            left[label] = own
    if len(left) == 2:
        found["difference"] = _difference(left["ours"], left["theirs"], network.inputs(8))
        times = {"repeats": repeats, "copies": copies}
        found["batch"] = batch
        found["latency"] = compared(left["ours"], left["theirs"], network.inputs(batch), **times)
    return found


def _half(groups: ChannelGroups) -> Tensor:
    """Draw half of the channels of every class."""
    generator = torch.Generator().manual_seed(0)
    removed = torch.zeros(groups.count, dtype=torch.bool)
    for size, first in _classes(groups):
        order = torch.randperm(size, generator=generator)
        removed[first + order[: size // 2]] = True
    return removed


def _classes(groups: ChannelGroups) -> list[tuple[int, int]]:
    """Return the size and the first group of every class."""
    sizes = torch.bincount(groups.classes)
    return list(zip(sizes.tolist(), (sizes.cumsum(0) - sizes).tolist(), strict=True))


def _tried(
    make: Callable[[], nn.Module], inputs: Inputs, begun: float | None = None
) -> tuple[nn.Module | None, dict[str, Any]]:
    """Return a smaller network that runs, and its size; or what the attempt ends with."""
    begun = time.perf_counter() if begun is None else begun
    try:
        with warnings.catch_warnings():
            # torch-pruning says which parameters of no layer it takes along.
            warnings.simplefilter("ignore")
            small = make().eval()
        seconds = time.perf_counter() - begun
        _outputs(small, inputs)
    except Exception as error:  # whatever a library fails with is a finding
        return None, {"fails": f"{type(error).__name__}: {error}".split("\n")[0][:200]}
    return small, {
        "parameters": sum(p.numel() for p in small.parameters()),
        "multiply_adds": multiply_adds(small, inputs).total,
        "seconds": seconds,
    }


def _by_torch_pruning(
    model: nn.Module, inputs: Inputs, groups: ChannelGroups, removed: Tensor
) -> nn.Module:
    """Remove channels from a copy, each at the first layer that makes it."""
    own = copy.deepcopy(model)
    graph = _graph(own, inputs)
    left = removed.clone()
    for name, dimensions in groups.places.items():
        layer = own.get_submodule(name.rpartition(".")[0])
        made = dimensions[_output(layer)]
        due = [place for place, group in enumerate(made.tolist()) if group >= 0 and left[group]]
        if not due:
            continue
        pruner = graph.get_pruner_of_module(layer)
        group = graph.get_pruning_group(layer, pruner.prune_out_channels, due)
        if not graph.check_pruning_group(group):
            raise ValueError(f"torch-pruning would remove all channels of {name}")
        group.prune()
        left[made[due]] = False
    if bool(left.any()):
        raise ValueError(f"{int(left.sum())} channels are made by no layer")
    return own


def _only_theirs(model: nn.Module, inputs: Inputs, groups: ChannelGroups) -> dict[str, int]:
    """Return the layers whose channels torch-pruning would remove and infcop would not."""
    own = copy.deepcopy(model)
    kinds = (nn.Conv2d, nn.Linear)
    classifiers = [m for m in own.modules() if getattr(m, "out_features", 0) in OUTPUTS]
    names = {module: name for name, module in own.named_modules()}
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = _graph(own, inputs)
            everything = list(graph.get_all_groups(classifiers, root_module_types=kinds))
        except Exception:  # the attempt to remove something tells why
            return {}
    for group in everything:
        name = names[group[0].dep.target.module]
        ours = groups.places.get(f"{name}.weight")
        if ours is None or not bool((ours[0] >= 0).any()):
            found[name] = len(group[0].idxs)
    return found


def _graph(model: nn.Module, inputs: Inputs) -> Any:
    import torch_pruning

    example = inputs if isinstance(inputs, Mapping) else inputs[0]
    return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)


def _output(layer: nn.Module) -> int:
    """Return where a weight has its outputs."""
    transposed = isinstance(layer, nn.ConvTranspose2d) or type(layer).__name__ == "Conv1D"
    return 1 if transposed else 0


def _difference(ours: nn.Module, theirs: nn.Module, inputs: Inputs) -> float:
    """Return the largest difference of the outputs, over the largest output."""
    pairs = zip(_outputs(ours, inputs), _outputs(theirs, inputs), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(call(model, inputs)) if isinstance(x, Tensor)]
