"""Importance by chance."""

from __future__ import annotations

from torch import Tensor

from infcop.scoring.given import required

__all__ = ["random_score"]


def random_score(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    """Score each weight by a number that has nothing to do with it.

    ``score = evidence``: independent standard normal numbers. What any other score must beat.

    Args:
        weight: Not used but for its shape.
        evidence: The noise, of the shape of ``weight``.
        mask: Not used.

    Returns:
        A copy of the noise.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> import torch
        >>> weight = torch.tensor([5.0, 0.1])
        >>> random_score(weight, torch.tensor([-0.5, 1.5]), weight > 0)
        tensor([-0.5000,  1.5000])
    """
    return required(evidence, "random").expand(weight.shape).clone()
