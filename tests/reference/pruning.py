"""Slow, obvious twins of scoring, masking and rewinding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction as Rational
from itertools import product

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.masking.groups import Groups
from infcop.masking.prune import level_kept, shrink

Entry = tuple[float, int, int]
"""Score, index of the layer, flat index within it: tuples sort as entries are removed."""


def alive_entries(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> list[Entry]:
    """Return all alive entries, the first to be removed first."""
    return sorted(
        (float(score), layer, place)
        for layer, name in enumerate(masks)
        for place, (score, alive) in enumerate(
            zip(scores[name].flatten().double(), masks[name].flatten(), strict=True)
        )
        if alive
    )


def select_global(
    scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], kept: int, keep_per_layer: int = 0
) -> dict[str, Tensor]:
    """Remove one entry after the other, skipping layers that are down to their floor."""
    names = list(masks)
    selected = {name: mask.clone() for name, mask in masks.items()}
    entries = alive_entries(scores, masks)
    removal = len(entries) - kept
    for _, layer, place in entries:
        if removal == 0:
            break
        mask = selected[names[layer]]
        if int(mask.sum()) > keep_per_layer:
            mask.view(-1)[place] = False
            removal -= 1
    assert removal == 0
    return selected


def select_layerwise(
    scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], kept: Mapping[str, int]
) -> dict[str, Tensor]:
    """Sort each layer on its own."""
    return {
        name: select_global({name: scores[name]}, {name: mask}, kept[name])[name]
        for name, mask in masks.items()
    }


def shares(
    weights: Sequence[Rational], low: Sequence[int], high: Sequence[int], total: int
) -> list[Rational]:
    """Try for every one whether it is held at its least, at its most, or proportional."""
    for held in product((low, high, None), repeat=len(weights)):
        free = sum(w for w, bound in zip(weights, held, strict=True) if bound is None)
        fixed = sum(bound[i] for i, bound in enumerate(held) if bound is not None)
        if free == 0:
            continue
        rate = Rational(total - fixed) / free
        found = [rate * weights[i] if b is None else b[i] for i, b in enumerate(held)]
        if rate >= 0 and found == [
            min(max(rate * w, Rational(least)), Rational(most))
            for w, least, most in zip(weights, low, high, strict=True)
        ]:
            return found
    return [Rational(least) for least in low]


def rounded(values: Sequence[Rational], total: int) -> list[int]:
    """Round down, then give one to each of the largest remainders, the first where equal."""
    whole = [math.floor(value) for value in values]
    while sum(whole) < total:
        best = max(range(len(values)), key=lambda i: (values[i] - whole[i], -i))
        whole[best] += 1
    return whole


def lamp_kept(
    scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], kept: int, keep_per_layer: int = 0
) -> dict[str, Tensor]:
    """Give every entry its LAMP value as the formula says it, exactly, then remove by value."""
    values: list[tuple[Rational, int, float, int]] = []
    for layer, name in enumerate(masks):
        entries = [
            (score, place)
            for score, at, place in alive_entries({name: scores[name]}, {name: masks[name]})
        ]
        for rank, (score, place) in enumerate(entries):
            below = sum(Rational(other) ** 2 for other, _ in entries[rank:])
            value = Rational(score) ** 2 / below if below else Rational(rank == len(entries) - 1)
            values.append((value, layer, score, place))
    names = list(masks)
    selected = {name: mask.clone() for name, mask in masks.items()}
    removal = len(values) - kept
    for _, layer, _, place in sorted(values):
        if removal and int(selected[names[layer]].sum()) > keep_per_layer:
            selected[names[layer]].view(-1)[place] = False
            removal -= 1
    assert removal == 0
    return selected


def n_of_m(scores: Tensor, mask: Tensor, count: int, m: int, axis: int) -> Tensor:
    """Walk along one axis, m entries at a time, and keep the best of each stretch."""
    kept = torch.zeros_like(mask)
    for place in product(*(range(n) for i, n in enumerate(mask.shape) if i != axis)):
        for start in range(0, mask.shape[axis], m):
            spots = [(*place[:axis], start + k, *place[axis:]) for k in range(m)]
            alive = [(float(scores[spot]), k) for k, spot in enumerate(spots) if mask[spot]]
            for _, k in sorted(alive)[max(len(alive) - count, 0) :]:
                kept[spots[k]] = True
    return kept


Owner = Callable[[str, tuple[int, ...]], tuple[int, int] | None]
"""Which unit and group an entry of a layer belongs to."""


def groups(
    scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], owner: Owner, reduce: str
) -> dict[tuple[int, int], tuple[float, list[tuple[str, tuple[int, ...]]]]]:
    """Return the score and the surviving entries of each group, one entry after the other."""
    entries: dict[tuple[int, int], list[tuple[str, tuple[int, ...]]]] = {}
    for name, mask in masks.items():
        for spot in product(*map(range, mask.shape)):
            group = owner(name, spot)
            if mask[spot] and group is not None:
                entries.setdefault(group, []).append((name, spot))
    rules: dict[str, Callable[[list[float]], float]] = {
        "sum": math.fsum,
        "mean": lambda values: math.fsum(values) / len(values),
        "norm": lambda values: math.hypot(*values),
        "max": max,
    }
    return {
        group: (rules[reduce]([float(scores[name][spot]) for name, spot in own]), own)
        for group, own in entries.items()
    }


def shrink_groups(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    owner: Owner,
    reduce: str,
    kept: int,
    keep_per_layer: int = 0,
) -> dict[str, Tensor]:
    """Remove one group after the other, but for the best of each unit that its layers need."""
    found = groups(scores, masks, owner, reduce)
    order = sorted(found, key=lambda group: (found[group][0], *group))
    protected = set()
    for unit in {unit for unit, _ in found}:
        had: dict[str, int] = {}
        for group in found:
            if group[0] == unit:
                for name, _ in found[group][1]:
                    had[name] = had.get(name, 0) + 1
        missing = {name: min(count, keep_per_layer) for name, count in had.items()}
        for group in reversed(order):
            if group[0] == unit and any(count > 0 for count in missing.values()):
                protected.add(group)
                for name, _ in found[group][1]:
                    missing[name] -= 1
    selected = {name: mask.clone() for name, mask in masks.items()}
    for group in order:
        if sum(int(mask.sum()) for mask in selected.values()) <= kept:
            break
        if group not in protected:
            for name, spot in found[group][1]:
                selected[name][spot] = False
    return selected


def exchange(weight: Tensor, gradient: Tensor, mask: Tensor, count: int) -> Tensor:
    """Drop the smallest weights, then grow where the gradient is largest."""
    flat, size, slope = mask.flatten().clone(), weight.flatten().abs(), gradient.flatten().abs()
    for _, place in sorted((float(size[i]), i) for i in range(len(flat)) if flat[i])[:count]:
        flat[place] = False
    ahead = sorted((float(slope[i]), i) for i in range(len(flat)) if not flat[i])
    for _, place in ahead[len(ahead) - count :]:
        flat[place] = True
    return flat.reshape(mask.shape)


def sap_removed(
    weights: Sequence[float], p: float, q: float, eta: float, gamma: float, beta: float
) -> int:
    """Return k of SAP as its formulas say it, with 60 digits.

    Before rounding up, the documented relative 1e-12 is taken off the weights worth keeping: what
    lies below the resolution of float64 (one weight of 1 beside one of 1e-38) does not count.
    """
    with localcontext() as context:
        context.prec = 60
        d = Decimal(len(weights))
        P, Q = Decimal(str(p)), Decimal(str(q))
        ratio = _power_mean(weights, P) / _power_mean(weights, Q)
        index = 1 - ratio
        worth = (1 + Decimal(str(eta))) ** (-Q / (Q - P)) * (1 - index) ** (P * Q / (Q - P))
        m = math.ceil(d * worth * (1 - Decimal("1e-12")))
        c = min(max(Decimal(str(gamma)) * (1 - Decimal(m) / d), Decimal(0)), Decimal(str(beta)))
        # m / d has no finite decimal expansion: the last of the 60 digits are noise.
        return math.floor(c * d + Decimal("1e-40"))


def _power_mean(weights: Sequence[float], exponent: Decimal) -> Decimal:
    powers = [abs(Decimal(w)) ** exponent if w else Decimal(0) for w in weights]
    return (sum(powers, Decimal(0)) / len(weights)) ** (1 / exponent)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return saved times mask, entry by entry, never -0.0."""
    flat = [
        v if keep else 0.0
        for v, keep in zip(values.flatten().tolist(), mask.flatten(), strict=True)
    ]
    return torch.tensor(flat, dtype=values.dtype).reshape(values.shape)


def partly_rewound(
    saved: Mapping[str, Tensor], trained: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return saved times mask where there is a mask, and anything else as trained."""
    return {
        name: masked(saved[name], masks[name]) if name in masks else value
        for name, value in trained.items()
    }


def prune_level(
    weights: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    *,
    level: int,
    target_kept: int,
    groups: Groups | None = None,
) -> Masks:
    """Return the masks of the next level of a method that scores once a level."""
    groups = Groups() if groups is None else groups
    kept = level_kept(weights, masks, method, level=level, target_kept=target_kept, groups=groups)
    return shrink(scores, masks, method, kept, groups=groups, target_kept=target_kept)
