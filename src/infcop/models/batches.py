"""Inputs of a model in batches of another size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from infcop.errors import ModelError
from infcop.models.calling import Inputs

__all__ = ["batch_of", "resized"]


def batch_of(inputs: Inputs) -> int:
    """Return the first size of the first tensor: how many examples most inputs hold.

    Raises:
        ModelError: There is no tensor with at least one dimension.

    Example:
        >>> batch_of({"x": torch.ones(3, 2)})
        3
    """
    for leaf in pytree.tree_leaves(inputs):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return len(leaf)
    raise ModelError(
        "expected example inputs with a tensor whose first dimension counts examples, got none; "
        "say how many examples they hold"
    )


def resized(inputs: Inputs, examples: int, wanted: int) -> Inputs | None:
    """Return inputs with another number of examples: the first ones, or all of them repeatedly.

    Every tensor whose first dimension has as many entries as there are examples is taken to hold
    one example in each.

    Args:
        inputs: Positional or keyword arguments.
        examples: How many examples they hold.
        wanted: How many they are to hold, at least 1.

    Returns:
        New inputs; None if no tensor has its examples in the first dimension.

    Example:
        >>> resized((torch.tensor([1, 2, 3]), 0.5), 3, 5)
        (tensor([1, 2, 3, 1, 2]), 0.5)
    """
    if examples < 1:
        return None
    places = torch.arange(wanted) % examples
    changed = 0

    def other(leaf: Any) -> Any:
        nonlocal changed
        if not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) != examples:
            return leaf
        changed += 1
        return leaf.index_select(0, places.to(leaf.device))

    found: Inputs = pytree.tree_map(other, inputs)
    return found if changed else None
