"""Slow twins of scopes, schedules, rounds and patterns, by the words that these go by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction as Rational
from itertools import product
from typing import Any

from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.models.prunable import find_prunable
from tests.reference import pruning
from tests.reference.axes import kind_of

# -- scopes ----------------------------------------------------------------------------------------


def scope_survivors(
    scope: Any,
    scores: Mapping[str, Tensor],
    masks: Masks,
    kept: int,
    target_kept: int,
    floor: int = 0,
) -> dict[str, Tensor]:
    """Return what a scope leaves: shares tried out in exact numbers, then everything sorted.

    Every layer keeps an entry where the scope looks at layers.
    """
    if scope == "global":
        return pruning.select_global(scores, masks, kept, floor)
    if scope == "lamp":
        return pruning.lamp_kept(scores, masks, kept, floor)
    return pruning.select_layerwise(
        scores, masks, SHARED[kind_of(scope)](scope, masks, kept, target_kept, floor)
    )


def _layerwise(_: Any, masks: Masks, kept: int, __: int, floor: int) -> dict[str, int]:
    alive = masks.kept_per_layer
    least = _least(alive, floor)
    removed = _shares(
        {name: Rational(count) for name, count in alive.items()},
        dict.fromkeys(alive, 0),
        {name: alive[name] - least[name] for name in alive},
        masks.kept - kept,
    )
    return {name: alive[name] - removed[name] for name in alive}


def _uniform(_: Any, masks: Masks, kept: int, __: int, floor: int) -> dict[str, int]:
    sizes = {name: Rational(mask.numel()) for name, mask in masks.items()}
    return _shares(sizes, _least(masks.kept_per_layer, floor), masks.kept_per_layer, kept)


def _erk(_: Any, masks: Masks, kept: int, __: int, floor: int) -> dict[str, int]:
    proportions = {
        name: Rational(sum(mask.shape), mask.numel()) * mask.numel() for name, mask in masks.items()
    }
    return _shares(proportions, _least(masks.kept_per_layer, floor), masks.kept_per_layer, kept)


def _by_budgets(
    scope: Any, masks: Masks, kept: int, target_kept: int, floor: int
) -> dict[str, int]:
    sizes = {name: mask.numel() for name, mask in masks.items()}
    lost = {}
    for name, size in sizes.items():
        own = next((d for key, d in scope.densities.items() if key in (name, "*")))
        lost[name] = size * (1 - Rational(str(own)))
    alive = masks.kept_per_layer
    least = _least(alive, floor)
    removed = _shares(
        lost,
        {name: sizes[name] - alive[name] for name in sizes},
        {name: sizes[name] - least[name] for name in sizes},
        sum(sizes.values()) - kept,
    )
    return {name: sizes[name] - removed[name] for name in sizes}


SHARED: dict[str, Callable[[Any, Masks, int, int, int], dict[str, int]]] = {
    "layerwise": _layerwise,
    "uniform": _uniform,
    "erk": _erk,
    "budgets": _by_budgets,
}
SCOPE_TWINS = {"global", "lamp", *SHARED}


def _least(alive: Mapping[str, int], floor: int) -> dict[str, int]:
    return {name: min(count, max(1, floor)) for name, count in alive.items()}


def _shares(
    proportions: Mapping[str, Rational], low: Mapping[str, int], high: Mapping[str, int], total: int
) -> dict[str, int]:
    ordered = [[part[name] for name in proportions] for part in (proportions, low, high)]
    exact = pruning.shares(*ordered, total)
    return dict(zip(proportions, pruning.rounded(exact, total), strict=True))


# -- schedules -------------------------------------------------------------------------------------


def schedule_kept(
    schedule: Any, alive: Sequence[float], total: int, level: int, target: int, stop: int
) -> int:
    """Return what a level keeps, by the formula of its schedule in decimal numbers.

    Args:
        schedule: Its settings.
        alive: The weights that are alive.
        total: Entries of the dense network.
        level: Number of the level, from 1.
        target: Entries at the end of the search.
        stop: Entries that the level may not go below.
    """
    count = len(alive)
    if count <= stop:
        return count
    kept = SCHEDULE_TWINS[schedule.kind](schedule, alive, total, level, target)
    if schedule.kind != "sap":
        kept = min(kept, count - 1)
    kept = max(kept, stop)
    if schedule.kind != "list" and (kept - stop) * 10 < count - kept:
        return stop
    return kept


def _removed_to(total: int, target: int, part: Rational) -> int:
    return total - math.floor((total - target) * part)


def _next_listed(s: Any, alive: Sequence[float], total: int, level: int, target: int) -> int:
    for density in s.densities:
        kept = max(int((Decimal(str(density)) * total).to_integral_value()), 1)
        if target < kept < len(alive):
            return kept
    return target


SCHEDULE_TWINS: dict[str, Callable[[Any, Sequence[float], int, int, int], int]] = {
    "fraction": lambda s, alive, total, level, target: (
        len(alive) - int(Decimal(str(s.remove)) * len(alive))
    ),
    "sap": lambda s, alive, total, level, target: (
        len(alive) - pruning.sap_removed(alive, s.p, s.q, s.eta, s.gamma, s.beta)
    ),
    "linear": lambda s, alive, total, level, target: _removed_to(
        total, target, Rational(min(level, s.levels), s.levels)
    ),
    "cubic": lambda s, alive, total, level, target: _removed_to(
        total, target, 1 - (1 - Rational(min(level, s.levels), s.levels)) ** 3
    ),
    "one-shot": lambda s, alive, total, level, target: target,
    "list": _next_listed,
}


def round_kept(alive: int, kept: int, rounds: int, spacing: str) -> list[int]:
    """Return what every round of a level keeps, by trying every count."""
    counts = []
    for k in range(1, rounds + 1):
        for count in range(alive + 1):
            if spacing == "linear":
                enough = (alive - count) * rounds <= (alive - kept) * k
            else:
                # count >= alive * (kept / alive) ** (k / rounds), without roots.
                enough = count**rounds >= alive ** (rounds - k) * kept**k
            if enough:
                counts.append(count)
                break
    return counts


# -- patterns --------------------------------------------------------------------------------------

Spot = tuple[int, ...]
Owner = Callable[[str, Spot], tuple[int, int] | None]
"""Which unit and group an entry of a weight belongs to; None where it goes by no group."""


@dataclass(frozen=True)
class Entry:
    """One entry of a weight: where it lies, and what it connects.

    Attributes:
        name: Of the weight.
        flat: Place in the weight as it lies in memory.
        output: Number of the output.
        entering: Number of the input, among those of this output.
        place: Number of the position in the kernel.
        inputs: How many inputs an output has.
        places: How many positions the kernel has.
    """

    name: str
    flat: int
    output: int
    entering: int
    place: int
    inputs: int
    places: int


def entry_of(module: nn.Module, name: str, spot: Spot) -> Entry:
    """Return what an entry of a layer's weight connects."""
    first, second, *rest = module.get_parameter("weight").shape
    places = math.prod(rest)
    place = 0
    for size, step in zip(rest, spot[2:], strict=True):
        place = place * size + step
    flat = (spot[0] * second + spot[1]) * places + place
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d):
        # [inputs, outputs of a group, ...]: each group has its own inputs and outputs.
        inputs = first // module.groups
        output, entering = spot[0] // inputs * second + spot[1], spot[0] % inputs
        return Entry(name, flat, output, entering, place, inputs, places)
    return Entry(name, flat, spot[0], spot[1], place, second, places)


def owner_of(pattern: Any, model: nn.Module) -> Owner:
    """Return the groups of a pattern in a model, entry by entry."""
    names = list(find_prunable(model).names)

    def owner(name: str, spot: Spot) -> tuple[int, int] | None:
        module = model.get_submodule(name.rpartition(".")[0])
        group = PATTERN_TWINS[pattern.kind](pattern, entry_of(module, name, spot))
        if group is None:
            return None
        return (0 if pattern.kind == "heads" else names.index(name)), group

    return owner


def _head(_: Any, entry: Entry) -> int | None:
    """Of the attention of ``AllLayers``, whose heads have two channels."""
    if "attention" not in entry.name:
        return None
    return (entry.entering if "out_proj" in entry.name else entry.output) // 2


def _block(pattern: Any, entry: Entry) -> int:
    across = -(-entry.inputs * entry.places // pattern.columns)
    column = (entry.entering * entry.places + entry.place) // pattern.columns
    return entry.output // pattern.rows * across + column


def _stretch(pattern: Any, entry: Entry) -> int:
    stretch = entry.output * (entry.inputs // pattern.m) + entry.entering // pattern.m
    return stretch * entry.places + entry.place


PATTERN_TWINS: dict[str, Callable[[Any, Entry], int | None]] = {
    "unstructured": lambda _, entry: entry.flat,
    "n-of-m": _stretch,
    "block": _block,
    "channel": lambda _, entry: entry.output,
    "heads": _head,
}


def largest_group(pattern: Any, model: nn.Module) -> int:
    """Return how many entries the largest group of a pattern has."""
    owner = owner_of(pattern, model)
    groups = [
        owner(name, spot)
        for name in find_prunable(model).names
        for spot in product(*map(range, model.get_parameter(name).shape))
    ]
    return max(Counter(group for group in groups if group is not None).values())
