"""The inputs that a network is captured with and compared on."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from infcop.errors import ExportError
from infcop.export.manifest import InputFacts
from infcop.models.calling import Inputs

__all__ = ["batch_size", "described", "on_cpu", "tensors_of"]


def on_cpu(inputs: Any) -> Inputs:
    """Return inputs with their tensors on the CPU; a list becomes a tuple.

    Raises:
        ExportError: They are neither a tuple nor a mapping, or hold no tensor.
    """
    if not isinstance(inputs, tuple | list | dict):
        raise ExportError(
            "export: expected example inputs as a tuple of positional arguments or a dict of "
            f"keyword arguments, got {type(inputs).__name__}; for a single argument give (x,)"
        )
    whole = inputs if isinstance(inputs, dict) else tuple(inputs)
    moved: Inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), whole)
    if not tensors_of(moved):
        raise ExportError("export: expected at least one tensor among the example inputs, got none")
    return moved


def tensors_of(inputs: Any) -> list[Tensor]:
    """Return the tensors in nested values, in their order."""
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def batch_size(inputs: Inputs) -> int | None:
    """Return the first size of the first tensor that has one; None where there is none.

    Example:
        >>> import torch
        >>> batch_size({"x": torch.ones(5, 3), "scale": torch.tensor(2.0)})
        5
    """
    return next((len(tensor) for tensor in tensors_of(inputs) if tensor.ndim), None)


def described(inputs: Inputs) -> tuple[InputFacts, ...]:
    """Return names, types and shapes of the tensors.

    Example:
        >>> import torch
        >>> described((torch.ones(5, 3),))
        (InputFacts(name='0', dtype='float32', shape=(5, 3)),)
    """
    return tuple(
        InputFacts(
            name=".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path),
            dtype=str(leaf.dtype).removeprefix("torch."),
            shape=tuple(leaf.shape),
        )
        for path, leaf in pytree.tree_leaves_with_path(inputs)
        if isinstance(leaf, Tensor)
    )
