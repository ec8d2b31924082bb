"""The same inputs in other sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, count
from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["alone", "resized", "uneven"]


def resized(arguments: Any) -> Iterator[list[tuple[str, Any]]]:
    """Yield, per dimension, arguments in which it has another size, the best choice first.

    The batch is doubled; other dimensions are halved, or else doubled. All tensors that have the
    size of the first one along a dimension change together.

    Example:
        >>> for choices in resized((torch.zeros(4, 6),)):
        ...     print(*(what for what, _ in choices), sep=", or ")
        8 instead of 4 along dimension 0
        3 instead of 6 along dimension 1, or 12 instead of 6 along dimension 1
    """
    for dim, size in enumerate(_sizes(arguments)):
        sizes = [2 * size] if dim == 0 or size < 2 else [_half(size), 2 * size]
        yield [_changed(arguments, {dim: new}) for new in (sizes if size else [])]


def uneven(arguments: Any, *, single: bool) -> Iterator[tuple[str, Any]]:
    """Yield arguments in sizes that do not divide as theirs do.

    Every dimension gets one less, and a size that neither 2 nor 3 divides: the next smaller one,
    or else, beyond the batch, the next larger one. Then every two dimensions beyond the first get
    such sizes at the same time, and half of theirs.

    Args:
        arguments: The arguments.
        single: Whether one example is left where other dimensions than the first change.

    Example:
        >>> for what, _ in uneven((torch.zeros(1, 9, 8),), single=True):
        ...     print(what)
        8 instead of 9 along dimension 1
        7 instead of 9 along dimension 1
        7 instead of 8 along dimension 2
        5 instead of 8 along dimension 2
        8 instead of 9 along dimension 1 and 7 instead of 8 along dimension 2
        7 instead of 9 along dimension 1 and 5 instead of 8 along dimension 2
        5 instead of 9 along dimension 1 and 4 instead of 8 along dimension 2
    """
    sizes = _sizes(arguments)
    if 0 in sizes:
        return
    batch = {0: 1} if single else {}
    for dim, size in enumerate(sizes):
        for new in (_less(size), _indivisible(size)):
            if new and (dim or new < size):
                yield _changed(arguments, {**(batch if dim else {}), dim: new})
    for dims in combinations(range(1, len(sizes)), 2):
        if all(sizes[dim] > 1 for dim in dims):
            for other in (_less, _indivisible, _half):
                yield _changed(arguments, {**batch, **{dim: other(sizes[dim]) for dim in dims}})


def alone(arguments: Any) -> Any:
    """Return arguments with a batch of 1.

    Example:
        >>> alone((torch.zeros(4, 6), 2))[0].shape
        torch.Size([1, 6])
    """
    sizes = _sizes(arguments)
    return _changed(arguments, {0: 1})[1] if sizes and sizes[0] else arguments


def _sizes(arguments: Any) -> Sequence[int]:
    """Return, per dimension, the size of the first tensor that has it."""
    tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
    return [
        next(tensor.shape[dim] for tensor in tensors if tensor.ndim > dim)
        for dim in range(max((tensor.ndim for tensor in tensors), default=0))
    ]


def _less(size: int) -> int:
    return size - 1


def _half(size: int) -> int:
    return (size + 1) // 2


def _indivisible(size: int) -> int:
    """Return a size that neither 2 nor 3 divides, and that is not one less."""
    smaller = (new for new in range(size - 2, 1, -1) if gcd(new, 6) == 1)
    return next(smaller, None) or next(new for new in count(max(size + 1, 5)) if gcd(new, 6) == 1)


def _changed(arguments: Any, sizes: dict[int, int]) -> tuple[str, Any]:
    """Return what has changed, and the arguments in these sizes."""
    before = _sizes(arguments)
    what = []
    for dim, new in sizes.items():
        if new != before[dim]:
            what.append(f"{new} instead of {before[dim]} along dimension {dim}")
            arguments = pytree.tree_map(_with_size(dim, before[dim], new), arguments)
    return " and ".join(what), arguments


def _with_size(dim: int, old: int, new: int) -> Callable[[Any], Any]:
    def change(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.ndim <= dim or leaf.shape[dim] != old:
            return leaf
        if new < old:
            return leaf.narrow(dim, 0, new)
        return leaf.index_select(dim, torch.arange(new, device=leaf.device) % old)

    return change
