"""Copies of a model that share its parameters."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["in_dtype", "lean_copy"]

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in another precision; complex numbers stay complex, others as they are.

    Example:
        >>> in_dtype(torch.ones(1, dtype=torch.complex64), torch.float64).dtype
        torch.complex128
        >>> in_dtype(torch.ones(1, dtype=torch.int64), torch.float64).dtype
        torch.int64
    """
    if tensor.is_complex():
        return tensor.to(_COMPLEX.get(dtype, tensor.dtype))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def lean_copy(
    model: nn.Module, dtype: torch.dtype | None = None, *, parameters: bool = True
) -> nn.Module:
    """Return a copy with buffers of its own and the same parameters.

    Nothing may be written to the parameters. Another precision needs parameters of its own.

    Args:
        model: The model.
        dtype: The precision of parameters and buffers; None to leave it.
        parameters: Whether to change that of parameters; otherwise only buffers get it.

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
        wanted = parameter.detach()
        if dtype is not None and parameters:
            wanted = in_dtype(wanted, dtype)
        if wanted.dtype != parameter.dtype:
            memo[id(parameter)] = copy.deepcopy(parameter)
            memo[id(parameter)].data = wanted
    for buffer in model.buffers():
        values = buffer.detach()
        changed = values if dtype is None else in_dtype(values, dtype)
        memo[id(buffer)] = changed.clone() if changed is values else changed
    return copy.deepcopy(model, memo)
