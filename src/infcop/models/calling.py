"""Calling a model with the inputs that a task gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from infcop.errors import ModelError

__all__ = ["Inputs", "call"]

Inputs = tuple[Any, ...] | Mapping[str, Any]
"""The positional arguments of a model, or its keyword arguments."""


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Return what the model gives for positional or keyword arguments.

    Raises:
        ModelError: The inputs are neither a tuple nor a mapping.

    Example:
        >>> import torch
        >>> call(nn.Linear(2, 1), {"input": torch.ones(3, 2)}).shape
        torch.Size([3, 1])
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    raise ModelError(
        "call: expected the model's inputs as a tuple of positional arguments or a mapping of "
        f"keyword arguments, got {type(inputs).__name__}; for a single argument return (x,)"
    )
