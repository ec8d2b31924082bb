"""Importance by size."""

from __future__ import annotations

from torch import Tensor

__all__ = ["magnitude"]


def magnitude(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    """Score each weight by its absolute value.

    ``score = |weight|`` (Han et al. 2015, arXiv 1506.02626, section 3).

    Args:
        weight: The weights, of any shape and floating dtype.
        evidence: Not used.
        mask: Not used.

    Returns:
        Non-negative scores of the shape, dtype and device of ``weight``, sharing no memory with
        it and outside of autograd.

    Example:
        >>> import torch
        >>> weight = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
        >>> magnitude(weight, None, torch.ones_like(weight, dtype=torch.bool))
        tensor([[1., 3.],
                [0., 2.]])
    """
    return weight.detach().abs()
