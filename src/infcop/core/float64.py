"""The one place that knows where float64 can be had."""

from __future__ import annotations

from torch import Tensor, float64

__all__ = ["to_float64"]


def to_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64 on its own device, or on the CPU where that device has none.

    Apple's ``mps`` devices have no float64 arithmetic; every other device keeps its tensors.

    Example:
        >>> import torch
        >>> to_float64(torch.tensor([0.5], dtype=torch.bfloat16)).dtype
        torch.float64
    """
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    return tensor.to(float64)
