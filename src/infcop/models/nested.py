"""Tensors in nested containers: a model's arguments, a layer's inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

__all__ = ["described", "mapped", "tensors_in"]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in tuples, lists and mappings, in their order.

    Example:
        >>> import torch
        >>> [t.item() for t in tensors_in({"a": torch.tensor(1), "b": (2, [torch.tensor(3)])})]
        [1, 3]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return the same nesting of tuples, lists and dictionaries with other tensors in it.

    Example:
        >>> import torch
        >>> mapped({"a": [torch.tensor(1), "text"]}, torch.neg)
        {'a': [tensor(-1), 'text']}
    """
    if isinstance(value, Tensor):
        return function(value)
    if type(value) is dict:
        return {key: mapped(item, function) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(item, function) for item in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, function) for item in value))
    return value


def described(inputs: Any) -> str:
    """Return types and shapes of a model's arguments, for a message.

    Example:
        >>> import torch
        >>> described((torch.zeros(2, 3), "text")), described({"x": torch.zeros(1)})
        ('float32 [2, 3], str', 'x=float32 [1]')
    """
    if isinstance(inputs, Mapping):
        return ", ".join(f"{key}={_described(item)}" for key, item in inputs.items())
    return ", ".join(_described(item) for item in inputs)


def _described(item: Any) -> str:
    if isinstance(item, Tensor):
        return f"{str(item.dtype).removeprefix('torch.')} {list(item.shape)}"
    return type(item).__name__
