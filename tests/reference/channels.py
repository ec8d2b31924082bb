"""Coupled channels pruned one after the other, everything counted anew each time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.masking.coupled import Prices

__all__ = ["group_entries", "size_of", "slow_normalised", "slow_scores", "slow_shrink"]


def group_entries(groups: ChannelGroups, group: int, masks: Masks) -> dict[str, Tensor]:
    """Mark the surviving entries of a group, position by position."""
    found = {}
    for name, dimensions in groups.places.items():
        marked = torch.zeros_like(masks[name], dtype=torch.int64)
        for dim, numbers in enumerate(dimensions):
            for position, number in enumerate(numbers.tolist()):
                if number == group:
                    marked.select(dim, position).add_(1)
        found[name] = marked * masks[name]
    return found


def slow_scores(
    groups: ChannelGroups, reduce: str, scores: dict[str, Tensor], masks: Masks
) -> list[float]:
    """Collect the scores of every group in a list."""
    found = []
    for group in range(groups.count):
        values: list[float] = []
        for name, times in group_entries(groups, group, masks).items():
            for value, count in zip(
                scores[name].flatten().tolist(), times.flatten().tolist(), strict=True
            ):
                values += [value] * count
        if not values:
            found.append(math.nan)
        elif reduce == "max":
            found.append(max(values))
        elif reduce == "norm":
            found.append(math.sqrt(math.fsum(v * v for v in values)))
        else:
            total = math.fsum(values)
            found.append(total / len(values) if reduce == "mean" else total)
    return found


def slow_normalised(own: list[float], groups: ChannelGroups) -> list[float]:
    """Divide by the mean size of what is alive in the same class."""
    found = []
    for group, score in enumerate(own):
        alike = [
            abs(other)
            for number, other in enumerate(own)
            if groups.classes[number] == groups.classes[group] and not math.isnan(other)
        ]
        mean = math.fsum(alike) / len(alike) if alike else 0.0
        found.append(score / mean if mean > 0 else score)
    return found


def size_of(masks: Masks, prices: Prices) -> float:
    """Return which part of the network is left."""
    left = prices.elsewhere + sum(p * int(masks[n].sum()) for n, p in prices.entries.items())
    whole = prices.elsewhere + sum(p * masks[n].numel() for n, p in prices.entries.items())
    return left / whole


def slow_shrink(
    order: list[int], masks: Masks, groups: ChannelGroups, prices: Prices, most: float
) -> Masks:
    """Remove groups in this order until the size is right, then let the last ones come back."""

    def without(gone: list[int]) -> Masks:
        removed = torch.zeros(groups.count, dtype=torch.bool)
        removed[gone] = True
        return groups.without(removed, masks)

    gone: list[int] = []
    for group in order:
        if size_of(without(gone), prices) <= most + 1e-12:
            break
        gone.append(group)
    for group in reversed(list(gone)):
        rest = [other for other in gone if other != group]
        if size_of(without(rest), prices) <= most + 1e-12:
            gone = rest
    return without(gone)
