"""How what a smaller network gives differs from what the masked one gives."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from infcop.collapse.measure import Measured
from infcop.collapse.near import TOLERANCE, largest, near, unlike
from infcop.collapse.plan import Plan, sliced
from infcop.core.mask import Masks

__all__ = ["buffers_unlike", "measured_unlike"]


def measured_unlike(
    expected: Measured, found: Measured, masks: Masks, plan: Plan, dtype: torch.dtype
) -> str | None:
    """Say how outputs or gradients differ; None if they do not.

    Args:
        expected: Those of the masked network.
        found: Those of the smaller one.
        masks: What survives of the parameters of the masked network, by name.
        plan: What the smaller one keeps.
        dtype: The precision of both.
    """
    tolerance = TOLERANCE[dtype]
    difference = unlike(expected.outputs, found.outputs, tolerance)
    if difference:
        return difference
    most = max(largest([one]) for one, _ in _pairs(expected, found, masks, plan))
    for one, other in _pairs(expected, found, masks, plan):
        if not near(one, other, tolerance * most):
            return "its gradients differ"
    return None


def _pairs(
    expected: Measured, found: Measured, masks: Masks, plan: Plan
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield gradients at the entries that are neither removed nor pruned.

    One after the other: copies of all would take much memory.
    """
    zero = torch.zeros(())
    yield zero, zero
    for one, other in zip(expected.by_input, found.by_input, strict=True):
        yield zero if one is None else one, zero if other is None else other
    for name, gradient in expected.by_parameter.items():
        kept = plan.kept[name]
        mask = sliced(masks[name], kept) if name in masks else None
        before = zero if gradient is None else sliced(gradient, kept)
        given = found.by_parameter[name]
        after = zero if given is None else given
        if mask is not None:
            before, after = before.where(mask, 0.0), after.where(mask, 0.0)
        yield before, after


def buffers_unlike(
    large: nn.Module, small: nn.Module, plan: Plan, dtype: torch.dtype
) -> str | None:
    """Say which buffer of two networks differs where it has a part in the outputs.

    Args:
        large: The masked network.
        small: The smaller one.
        plan: What the smaller one keeps.
        dtype: The precision of both.
    """
    after = dict(small.named_buffers())
    for name, buffer in large.named_buffers():
        needed = plan.needed[name]
        before = sliced(buffer, plan.kept[name])[needed]
        if not near(before, after[name][needed], TOLERANCE[dtype] * largest([before])):
            return f"its buffer '{name}' becomes another"
    return None
