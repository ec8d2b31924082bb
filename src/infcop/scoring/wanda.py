"""Importance by size and by input."""

from __future__ import annotations

from torch import Tensor

from infcop.scoring.given import required

__all__ = ["wanda"]


def wanda(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by its size times the size of what it multiplies.

    .. math:: s_{ij} = |w_{ij}| \, \|x_j\|_2 / \sqrt{P}

    (Sun et al. 2024, arXiv 2306.11695, equation 1, there without the divisor.) :math:`x_j` are the
    values of the input feature or channel :math:`j` at all :math:`P` positions of all examples.
    The division keeps the scores as they are when there are more data, and makes them comparable
    between layers with different numbers of positions; within a layer it changes no order.

    Args:
        weight: The weights.
        evidence: The root mean squares of the inputs, broadcastable to ``weight``.
        mask: Not used; pruned weights are zero and score 0.

    Returns:
        Scores >= 0 in the wider dtype of ``weight`` and ``evidence``.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> import torch
        >>> weight = torch.tensor([[2.0, -1.0], [1.0, 1.0]])
        >>> wanda(weight, torch.tensor([[0.5, 3.0]]), weight != 0)
        tensor([[1.0000, 3.0000],
                [0.5000, 3.0000]])
    """
    return weight.detach().abs() * required(evidence, "wanda")
