"""Masks for collapsing, and slow, obvious twins of what it works out."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from infcop.collapse import Compact, compact
from infcop.collapse.facts import Coupling, Facts
from infcop.core.mask import Masks

__all__ = [
    "Given",
    "Net",
    "agrees",
    "channel_masks",
    "collapsed",
    "drawn_masks",
    "living_channels",
    "living_hidden",
    "masked",
    "only",
    "random_masks",
    "shapes",
    "spared",
    "survivors_by_sets",
    "without",
]


class Net(nn.Module):
    """Named layers, and a forward pass given as a function of them."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = forward

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


class Given(nn.Module):
    """A linear layer and a function after it."""

    def __init__(self, after: Any) -> None:
        super().__init__()
        self.linear, self.after = nn.Linear(3, 4), after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.linear(x))


def shapes(result: Compact) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that are left."""
    return {name: tuple(x.shape) for name, x in result.model.named_parameters() if x.ndim > 1}


def collapsed(model: nn.Module, masks: Mapping[str, Tensor], *inputs: Tensor) -> Compact:
    """Collapse a model in float64, and compare it once more on inputs of our own."""
    model = model.double().eval()
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    result = compact(model, masks, tuple(wide))
    other = [torch.randn_like(x) if x.is_floating_point() else x.flip(0) for x in wide]
    expected, found = masked(model, masks)(*other), result.model(*other)
    most = 1e-12 * float(expected.detach().abs().max())
    assert torch.allclose(found, expected, rtol=0, atol=most)
    return result


def spared(result: Compact) -> list[str]:
    """Layers that were kept because something failed."""
    failed = ("relies on sizes", "can't be folded")
    return [x.name for x in result.report.layers if any(one in (x.reason or "") for one in failed)]


def only(shape: tuple[int, ...], *kept: tuple[int, ...]) -> Tensor:
    """A mask that keeps a few entries."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for entry in kept:
        mask[entry] = True
    return mask


def without(shape: tuple[int, ...], dim: int, *places: int) -> Tensor:
    """A mask that prunes whole slices."""
    mask = torch.ones(shape, dtype=torch.bool)
    mask.index_fill_(dim, torch.tensor(places, dtype=torch.int64), False)
    return mask


def random_masks(model: nn.Module, density: float, seed: int) -> Masks:
    """Masks of all weights with more than one dimension, each entry kept by chance."""
    generator = torch.Generator().manual_seed(seed)
    return Masks(
        {
            name: torch.rand(parameter.shape, generator=generator) < density
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1
        }
    )


def channel_masks(model: nn.Module, density: float, seed: int) -> Masks:
    """Masks that prune whole outputs or whole inputs of all weights."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            dim = int(torch.randint(2, (1,), generator=generator))
            kept = torch.rand(parameter.shape[dim], generator=generator) < density
            shape = [1] * parameter.ndim
            shape[dim] = -1
            masks[name] = kept.reshape(shape).expand(parameter.shape).clone()
    return Masks(masks)


DENSITIES = (0.01, 0.03, 0.1, 0.3, 0.6)


def drawn_masks(model: nn.Module, seed: int) -> Masks:
    """Masks of some kind and density."""
    kind = random_masks if seed % 3 else channel_masks
    return kind(model, DENSITIES[seed % len(DENSITIES)], seed)


def agrees(model: nn.Module, masks: Mapping[str, Tensor], small: Compact, *inputs: Tensor) -> bool:
    """Whether the masked and the smaller network give the same, in float64."""
    expected, found = masked(model, masks)(*inputs), small.model(*inputs)
    most = 1e-11 * float(expected.detach().abs().max())
    return torch.allclose(found, expected, rtol=0, atol=most)


def living_hidden(masks: Mapping[str, Tensor], layers: int) -> list[int]:
    """Count, per hidden layer of an MLP, the units that the input reaches and the output sees.

    Walks along single weights, again and again until nothing changes.
    """
    weights = [masks[f"{2 * at}.weight"] for at in range(layers)]
    reached = [[True] * weights[0].shape[1]]
    for weight in weights:
        reached.append(
            [any(bool(w) and r for w, r in zip(row, reached[-1], strict=True)) for row in weight]
        )
    seen = [[True] * weights[-1].shape[0]]
    for weight in reversed(weights):
        columns = zip(*weight.tolist(), strict=True)
        seen.append([any(w and s for w, s in zip(one, seen[-1], strict=True)) for one in columns])
    seen.reverse()
    return [
        sum(r and s for r, s in zip(reached[at], seen[at], strict=True)) for at in range(1, layers)
    ]


def living_channels(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> dict[str, int]:
    """Count, per layer, the outputs that vary from input to input and that the result depends on.

    Each output is disturbed in turn.
    """
    counts = {}
    for name, layer in layers.items():
        outputs: list[Tensor] = []
        with torch.no_grad():
            handle = layer.register_forward_hook(lambda _m, _a, out, to=outputs: to.append(out))
            before = model(x)
            handle.remove()
            counts[name] = 0
            for channel in range(outputs[0].shape[1]):
                handle = layer.register_forward_hook(_disturbed(channel))
                matters = not torch.equal(model(x), before)
                handle.remove()
                values = outputs[0][:, channel]
                varies = bool((values - values[:1]).abs().max() > 1e-12 * values.abs().max())
                counts[name] += matters and varies
    return counts


def _disturbed(channel: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def disturb(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, channel] += 0.1 + changed[:, channel].abs()
        return changed

    return disturb


def masked(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy with pruned weights at zero."""
    copied = copy.deepcopy(model)
    parameters = dict(copied.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask)
    return copied


def survivors_by_sets(facts: Facts) -> set[int]:
    """Units that stay, one pair and one position at a time; without constants."""
    tied = {unit: {unit} for unit in range(facts.count)}
    pairs = [pair for same in facts.same for pair in same.T.tolist()]
    pairs += [[0, unit] for pinned in facts.pinned for unit in pinned.tolist()]
    for one, other in pairs:
        both = tied[one] | tied[other]
        for unit in both:
            tied[unit] = both
    alive = set(tied[0])
    uses = [pair for use in facts.uses for pair in use.T.tolist()]
    while True:
        before = len(alive)
        for unit, user in uses:
            if user in alive:
                alive |= tied[unit]
        if len(alive) == before:
            break
    while True:
        before = len(alive)
        for coupling in facts.couplings:
            alive |= _block_by_positions(coupling, alive, tied, set())
        for coupling in facts.couplings:
            if len(alive) == before:  # one at a time, and only when nothing else follows
                alive |= _block_by_positions(coupling, alive, tied, {0})
        if len(alive) == before:
            return alive


def _block_by_positions(
    coupling: Coupling, alive: set[int], tied: dict[int, set[int]], where_empty: set[int]
) -> set[int]:
    kept: list[set[int]] = [set() for _ in coupling.sizes]
    for axes, ids in coupling.layers:
        for position in itertools.product(*(range(size) for size in ids.shape)):
            if int(ids[position]) in alive:
                for axis, at in zip(axes, position, strict=True):
                    kept[axis].add(at)
    kept = [one or where_empty for one in kept]
    found: set[int] = set()
    for axes, ids in coupling.layers:
        for position in itertools.product(*(sorted(kept[axis]) for axis in axes)):
            found |= tied[int(ids[position])]
    return found
