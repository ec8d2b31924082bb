"""Summing in float64 wherever the device is."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["beside", "wide"]


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float64 on its own device, or on the CPU where that device has none.

    Example:
        >>> wide(torch.tensor([0.5], dtype=torch.bfloat16)).dtype
        torch.float64
    """
    # Apple's devices have no float64 arithmetic.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).to(torch.float64)


def beside(evidence: Tensor, weight: Tensor) -> Tensor:
    """Return evidence on the device of its weight, in float64 where that device has it.

    Squares of gradients and products of many layers leave the range of float32.

    Example:
        >>> beside(torch.tensor([0.5]), torch.ones(1)).dtype
        torch.float64
    """
    dtype = torch.float32 if weight.device.type == "mps" else torch.float64
    return evidence.detach().to(dtype).to(weight.device)
