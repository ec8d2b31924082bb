"""Slow, obvious twins of scoring, masking and rewinding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext

import torch
from torch import Tensor

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
