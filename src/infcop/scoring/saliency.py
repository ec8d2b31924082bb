"""Importance by derivatives: weight times gradient, of one function or another."""

from __future__ import annotations

from torch import Tensor

from infcop.scoring.given import required

__all__ = ["grasp", "snip", "synflow", "taylor"]


def snip(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by how much the loss depends on its connection.

    .. math:: s_i = |w_i g_i| \Bigl/ \sum_{\text{layers}, j} |w_j g_j|

    (Lee et al. 2019, arXiv 1810.02340, equations 5 and 6.) With :math:`g` the gradient of the mean
    loss, :math:`w_i g_i` is the derivative of the loss by a factor in front of the weight, where
    the factor is 1. This function returns the numerator: the sum runs over all layers, of which
    it sees one, and is divided by where all are scored together. It changes no order.

    Args:
        weight: The weights.
        evidence: Gradient of the mean loss, of the shape of ``weight``.
        mask: Not used; pruned weights are zero and score 0.

    Returns:
        Scores >= 0 in the wider dtype of ``weight`` and ``evidence``.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> import torch
        >>> weight = torch.tensor([2.0, -1.0])
        >>> snip(weight, torch.tensor([-0.5, 3.0]), weight != 0)
        tensor([1., 3.])
    """
    return _product(weight, evidence, "snip").abs_()


def taylor(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by the first-order change of the loss when it is removed.

    .. math:: s_i = |w_i g_i| \approx |L(w) - L(w \text{ with } w_i = 0)|

    (Molchanov et al. 2017, arXiv 1611.06440, equation 7, for single weights instead of feature
    maps.) Unlike SNIP's it keeps its unit, that of the loss; both give the same order.

    Args:
        weight: The weights.
        evidence: Gradient of the mean loss, of the shape of ``weight``.
        mask: Not used; pruned weights are zero and score 0.

    Returns:
        Scores >= 0 in the wider dtype of ``weight`` and ``evidence``.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> import torch
        >>> weight = torch.tensor([2.0, -1.0])
        >>> taylor(weight, torch.tensor([-0.5, 3.0]), weight != 0)
        tensor([1., 3.])
    """
    return _product(weight, evidence, "taylor").abs_()


def grasp(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by how much of the gradient flow would go with it.

    .. math:: s_i = w_i (H g)_i

    with :math:`g` the gradient of the mean loss and :math:`H` its Hessian. Removing the weights
    :math:`\delta = -w` changes the squared norm of the gradient by :math:`2 \delta^T H g` in first
    order, so a weight with a large positive score holds the gradient up, and one with a negative
    score holds it down. The largest are kept, the most negative are removed first.

    The paper (Wang et al. 2020, arXiv 2002.07376, equation 8) calls :math:`-w_i (H g)_i` the score
    and removes the largest. That is the same selection; here the sign is turned, as for every
    score the higher means the more important.

    Args:
        weight: The weights.
        evidence: Hessian times gradient, of the shape of ``weight``.
        mask: Not used; pruned weights are zero and score 0.

    Returns:
        Scores of either sign in the wider dtype of ``weight`` and ``evidence``.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> import torch
        >>> weight = torch.tensor([2.0, -1.0])
        >>> grasp(weight, torch.tensor([0.5, 3.0]), weight != 0)
        tensor([ 1., -3.])
    """
    return _product(weight, evidence, "grasp")


def synflow(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by the synaptic flow that runs through it.

    .. math:: s_i = \Bigl| w_i \frac{\partial R}{\partial |w_i|} \Bigr|

    (Tanaka et al. 2020, arXiv 2006.05467, equation 4.) :math:`R` is the sum of the outputs of the
    network with all parameters replaced by their absolute values, for an input of ones. In a
    network without biases whose activations are positively homogeneous, the scores of every cut
    between input and output sum to :math:`R`.

    Args:
        weight: The weights.
        evidence: The derivative of :math:`R`, of the shape of ``weight``.
        mask: Not used; pruned weights are zero and score 0.

    Returns:
        Scores >= 0 in the wider dtype of ``weight`` and ``evidence``.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> import torch
        >>> weight = torch.tensor([2.0, -1.0])
        >>> synflow(weight, torch.tensor([0.5, 3.0]), weight != 0)
        tensor([1., 3.])
    """
    return _product(weight, evidence, "synflow").abs_()


def _product(weight: Tensor, evidence: Tensor | None, kind: str) -> Tensor:
    return weight.detach() * required(evidence, kind)
