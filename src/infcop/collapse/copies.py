"""Copies of a model that share its parameters."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["lean_copy"]


def lean_copy(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy with buffers of its own and the same parameters.

    Nothing may be written to the parameters. Another precision needs parameters of its own.

    Args:
        model: The model.
        dtype: The precision of floating-point parameters and buffers; None to leave it.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> copied = lean_copy(model)
        >>> copied.weight is model.weight, copied.running_mean is model.running_mean
        (True, False)
        >>> lean_copy(model, torch.float64).weight.dtype
        torch.float64
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = parameter
        if dtype is not None and parameter.is_floating_point() and parameter.dtype != dtype:
            memo[id(parameter)] = copy.deepcopy(parameter)
            memo[id(parameter)].data = parameter.detach().to(dtype)
    for buffer in model.buffers():
        floating = dtype is not None and buffer.is_floating_point()
        memo[id(buffer)] = buffer.detach().to(dtype if floating else buffer.dtype, copy=True)
    return copy.deepcopy(model, memo)
