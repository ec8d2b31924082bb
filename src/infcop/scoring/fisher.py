"""Importance by the curvature of the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from infcop.scoring.given import required

__all__ = ["fisher"]


def fisher(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by the second-order change of the loss when it is removed.

    .. math:: s_i = \tfrac{1}{2} w_i^2 F_i, \qquad
        F_i = \frac{1}{N} \sum_n \Bigl(\frac{\partial L_n}{\partial w_i}\Bigr)^2

    The saliency of optimal brain damage (LeCun et al. 1990, equation 5), with the diagonal of the
    empirical Fisher information in place of the Hessian's (Theis et al. 2018, arXiv 1801.05787,
    section 3.1). :math:`L_n` is the loss of a single example.

    Args:
        weight: The weights.
        evidence: :math:`F`, of the shape of ``weight``.
        mask: Not used; pruned weights are zero and score 0.

    Returns:
        Scores >= 0 in the wider dtype of ``weight`` and ``evidence``.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> weight = torch.tensor([2.0, -1.0])
        >>> fisher(weight, torch.tensor([0.5, 3.0]), weight != 0)
        tensor([1.0000, 1.5000])
    """
    information = required(evidence, "fisher")
    # In the wider type from the start: the square of a small weight must not vanish.
    wide = weight.detach().to(torch.promote_types(weight.dtype, information.dtype))
    return wide.square() * information * 0.5
