"""Importance by size and by information flow."""

from __future__ import annotations

from torch import Tensor

from infcop.scoring.given import required

__all__ = ["correlation"]


def correlation(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by its size times the correlation of the units that it connects.

    .. math:: s_{ij} = |w_{ij}| \, |\operatorname{corr}(x_j, y_i)|

    :math:`x_j` is an input and :math:`y_i` an output unit of the layer, each averaged over its
    positions; the correlation is Pearson's over the examples. Averaged over all pairs, such
    correlations are the information flow that arXiv 2501.15592 stops pruning levels by; this
    score resolves it to single connections. It is a proposal of this library and of no paper:
    whether it is any good has to be judged by experiment.

    Args:
        weight: The weights.
        evidence: Absolute correlations in [0, 1], broadcastable to ``weight``; 0 for a unit that
            does not vary.
        mask: Not used; pruned weights are zero and score 0.

    Returns:
        Scores >= 0 in the wider dtype of ``weight`` and ``evidence``.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> import torch
        >>> weight = torch.tensor([[2.0, -1.0]])
        >>> correlation(weight, torch.tensor([[0.5, 0.75]]), weight != 0)
        tensor([[1.0000, 0.7500]])
    """
    return weight.detach().abs() * required(evidence, "correlation")
