"""The operations behind a tensor, as autograd remembers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["nodes_behind"]


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
