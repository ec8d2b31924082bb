"""How far numbers lie from their mean, and what rounding alone makes of a constant."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CONSTANT_TOLERANCE", "centre", "epsilon", "is_constant"]

CONSTANT_TOLERANCE = 8.0
"""What varies by at most this many machine epsilons of its mean counts as constant: rounding alone
can make that of a constant."""


@torch.no_grad()
def centre(values: Tensor) -> Tensor:
    """Take the means off float64 values ``[N, C]``, in place, and return them, ``[C]``.

    Everything is measured from the first row: a constant column then has no deviation at all, and
    a mean far from zero costs no digits.

    Example:
        >>> values = torch.tensor([[1.0, 5.0], [3.0, 5.0]], dtype=torch.float64)
        >>> centre(values), values
        (tensor([2., 5.], dtype=torch.float64), tensor([[-1.,  0.],
                [ 1.,  0.]], dtype=torch.float64))
    """
    first = values[0].clone()
    values -= first
    offset = values.mean(dim=0)
    values -= offset
    return first + offset


def epsilon(dtype: torch.dtype) -> float:
    """Return the machine epsilon of a type, float32's for coarser ones.

    Example:
        >>> epsilon(torch.float16) == epsilon(torch.float32) == 2**-23
        True
    """
    return torch.finfo(torch.promote_types(dtype, torch.float32)).eps


def is_constant(mean: Tensor, deviation: Tensor, eps: float) -> Tensor:
    r"""Return where :math:`s \le 8 \epsilon |\mu|`: what does not vary beyond rounding.

    Written so that NaN compares false: what is not finite is not constant, and must stay visible.

    Args:
        mean: Means, of any shape.
        deviation: Standard deviations of the same shape.
        eps: The machine epsilon of the numbers, see :func:`epsilon`.

    Example:
        >>> is_constant(torch.tensor([1.0, 1.0]), torch.tensor([1e-7, 1e-5]), 2**-23)
        tensor([ True, False])
    """
    return deviation <= CONSTANT_TOLERANCE * eps * mean.abs()
