"""Importance by what training does to a weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infcop.core.names import did_you_mean
from infcop.errors import PruningError
from infcop.scoring.given import required

__all__ = ["MovementSum", "movement"]


def movement(weight: Tensor, evidence: Tensor | None, mask: Tensor) -> Tensor:
    r"""Score each weight by how far training moves it away from zero.

    .. math:: s_i = -\sum_t w_i^{(t)} g_i^{(t)}

    over training steps :math:`t`, with :math:`g` the gradient of the step's loss (Sanh et al.
    2020, arXiv 2005.07683, equation 5, without its constant learning rate). A step of gradient
    descent moves a weight away from zero where :math:`w g < 0`.

    Args:
        weight: Not used but for its shape.
        evidence: The sum, of the shape of ``weight``.
        mask: Not used.

    Returns:
        A copy of the sum.

    Raises:
        PruningError: There is no evidence.

    Example:
        >>> weight = torch.tensor([5.0, 0.1])
        >>> movement(weight, torch.tensor([-0.5, 1.5]), weight > 0)
        tensor([-0.5000,  1.5000])
    """
    return required(evidence, "movement").expand(weight.shape).clone()


class MovementSum:
    """Sums up ``-weight * gradient`` over training steps.

    The sums are kept in float32 (in float64 for float64 weights) beside the weights. Rounding adds
    about 1e-7 of a sum's largest part per step, far less than the gradients of other batches would
    change it, and some accelerators have no float64.

    Under distributed data parallel training every process has the same sums, since the gradients
    are averaged over the processes before they are listened to: nothing is left to join.

    Args:
        parameters: The weights by name.

    Example:
        >>> weight = nn.Parameter(torch.tensor([2.0, -1.0]))
        >>> moved = MovementSum({"w": weight})
        >>> weight.grad = torch.tensor([-0.5, -3.0])
        >>> moved.add()
        >>> moved.values()
        {'w': tensor([ 1., -3.])}
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._sums = {
            name: torch.zeros_like(parameter, dtype=_summed(parameter), requires_grad=False)
            for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def add(self) -> None:
        """Take in a step: after ``backward``, before the optimiser's step and before clipping.

        A weight without a gradient does not move.
        """
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._sums[name].addcmul_(parameter, parameter.grad, value=-1)

    def values(self) -> dict[str, Tensor]:
        """Return copies of the sums so far."""
        return {name: total.clone() for name, total in self._sums.items()}

    def load(self, sums: Mapping[str, Tensor]) -> None:
        """Go on from sums that were taken earlier.

        Raises:
            PruningError: A sum is missing or of another shape than its weight.
        """
        for name, total in self._sums.items():
            if name not in sums or sums[name].shape != total.shape:
                got = f"shape {tuple(sums[name].shape)}" if name in sums else "none"
                raise PruningError(
                    f"MovementSum.load: expected a sum of shape {tuple(total.shape)} for "
                    f"'{name}', got {got}; {did_you_mean(name, sums)}"
                )
        for name, total in self._sums.items():
            total.copy_(sums[name].detach())


def _summed(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)
