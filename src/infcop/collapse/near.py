"""Whether tensors are the same up to rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["TOLERANCE", "largest", "near", "unlike"]

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""The largest difference: of outputs relative to the largest entry of the output, of gradients
relative to the largest entry of all gradients."""


def unlike(expected: Sequence[Tensor], found: Sequence[Tensor], tolerance: float) -> str | None:
    """Say how outputs differ; None if they do not.

    Args:
        expected: Those of the masked network.
        found: Those of the smaller one.
        tolerance: The largest difference, relative to the largest entry of each.
    """
    if [x.shape for x in expected] != [x.shape for x in found]:
        return "its outputs have other shapes"
    for one, other in zip(expected, found, strict=True):
        if not near(one, other, tolerance * largest([one])):
            return "its outputs differ"
    return None


def largest(tensors: Sequence[Tensor]) -> float:
    """Return the largest finite magnitude of all entries, 0 without any.

    Example:
        >>> largest([torch.tensor([1.0, -3.0]), torch.tensor([float("inf")])])
        3.0
    """
    found = 0.0
    for x in tensors:
        measurable = x.numel() and (x.is_floating_point() or x.is_complex())
        most = float(x.abs().max()) if measurable else 0.0
        if not math.isfinite(most):
            most = float(x.abs().nan_to_num(posinf=0.0).max())
        found = max(found, most)
    return found


def near(one: Tensor, other: Tensor, most: float) -> bool:
    """Whether no entries differ by more than ``most``; integers have to be the same."""
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    difference = (one - other).abs()
    if not difference.numel() or bool(difference.max() <= most):
        return True
    # A root has no finite gradient at zero.
    alike = (one == other) | (one.isnan() & other.isnan())
    return bool((alike | (difference <= most)).all())
