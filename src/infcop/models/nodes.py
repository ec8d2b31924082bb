"""The operations behind a tensor, as autograd remembers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["has_reentrant_checkpoint", "nodes_behind"]


def nodes_behind(tensors: Iterable[Tensor]) -> Iterator[Node]:
    """Yield every node of the graphs of some tensors, each once.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> [node.name().split("::")[-1] for node in nodes_behind([(2 * weight).sum()])]
        ['SumBackward0', 'MulBackward0', 'AccumulateGrad']
    """
    stack = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                stack.append(before)


def has_reentrant_checkpoint(loss: Tensor) -> bool:
    """Return whether part of a loss was computed inside a reentrant activation checkpoint.

    Such a checkpoint hides what is inside it: its parameters would seem to have no gradient.

    Example:
        >>> import torch
        >>> from torch.utils.checkpoint import checkpoint
        >>> weight = torch.ones(2, requires_grad=True)
        >>> [
        ...     has_reentrant_checkpoint(checkpoint(torch.sum, weight, use_reentrant=reentrant))
        ...     for reentrant in (True, False)
        ... ]
        [True, False]
    """
    return any(node.name() == "CheckpointFunctionBackward" for node in nodes_behind([loss]))
