"""How what a smaller network gives differs from what the masked one gives."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from infcop.collapse.measure import Measured
from infcop.collapse.near import TOLERANCE, largest, near, unlike
from infcop.collapse.plan import Plan, sliced
from infcop.core.mask import Masks

__all__ = ["Surviving", "buffers_unlike", "measured_unlike"]


_ROUNDING = torch.finfo(torch.float32).eps
"""How far gradients may be apart that were computed in float64 and rounded to float32, relative to
the largest entry of each: two roundings of half as much."""


class Surviving:
    """The entries of gradients that are neither removed nor pruned.

    Args:
        masks: What survives of the parameters of the masked network, by name.
        plan: What the smaller one keeps.
    """

    def __init__(self, masks: Masks, plan: Plan) -> None:
        self._masks = masks
        self._plan = plan

    def of_masked(self, name: str, gradient: Tensor) -> Tensor:
        """Pick them from a gradient of the masked network."""
        return self.of_small(name, sliced(gradient, self._plan.kept[name]))

    def of_small(self, name: str, gradient: Tensor) -> Tensor:
        """Pick them from a gradient of the smaller network."""
        if name not in self._masks:
            return gradient
        return gradient[sliced(self._masks[name], self._plan.kept[name])]


def measured_unlike(expected: Measured, found: Measured, dtype: torch.dtype) -> str | None:
    """Say how outputs or gradients differ; None if they do not.

    Args:
        expected: Those of the masked network, the gradients at entries that survive.
        found: Those of the smaller one.
        dtype: The precision that both were computed in.
    """
    tolerance = TOLERANCE[dtype]
    difference = unlike(expected.outputs, found.outputs, tolerance)
    if difference:
        return difference
    most = max(largest([one]) for one, _ in _pairs(expected, found))
    for one, other in _pairs(expected, found):
        # Of what was computed in a higher precision only the last rounding differs.
        exact = torch.finfo(one.dtype).bits == torch.finfo(dtype).bits
        rounded = 0.0 if exact else _ROUNDING * largest([one])
        if not near(one, other, tolerance * most + rounded):
            return "its gradients differ"
    return None


def _pairs(expected: Measured, found: Measured) -> Iterator[tuple[Tensor, Tensor]]:
    zero = torch.zeros(())
    yield zero, zero
    pairs = [*zip(expected.by_input, found.by_input, strict=True)]
    pairs += [(one, found.by_parameter[name]) for name, one in expected.by_parameter.items()]
    for one, other in pairs:
        yield zero if one is None else one, zero if other is None else other


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
