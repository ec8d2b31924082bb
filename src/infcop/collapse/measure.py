"""Running a network to compare it: its outputs and its gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from infcop.collapse.copies import in_dtype
from infcop.errors import CollapseError

__all__ = ["Measured", "followed", "in_precision", "measured", "outputs_of", "shuffled", "stirred"]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network gives.

    Attributes:
        outputs: All tensors of its output.
        by_input: The gradients of a weighted sum of the outputs by each floating-point input.
        by_parameter: The same by each trainable parameter; None where it has no part.
    """

    outputs: list[Tensor]
    by_input: list[Tensor | None]
    by_parameter: dict[str, Tensor | None]


def measured(
    model: nn.Module, arguments: Any, take: Callable[[str, Tensor], Tensor] | None = None
) -> Measured:
    """Run a network forwards and backwards; nothing is left on it.

    Args:
        model: The network, in evaluation mode.
        arguments: Positional and keyword arguments; they are copied.
        take: What to keep of the gradient by a parameter, given its name and the gradient. Each is
            let go before the next is there, so that all of them never take memory at once.

    Raises:
        CollapseError: It returns something that can't be compared.

    Example:
        >>> found = measured(nn.Linear(2, 1), ((torch.ones(3, 2),), {}))
        >>> [output.shape for output in found.outputs], list(found.by_parameter)
        ([torch.Size([3, 1])], ['weight', 'bias'])
    """
    leaves = pytree.tree_map(_leaf, arguments)
    inputs = [x for x in pytree.tree_leaves(leaves) if isinstance(x, Tensor) and x.requires_grad]
    parameters = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    by_parameter: dict[str, Tensor | None] = dict.fromkeys(parameters)
    with (
        torch.enable_grad(),
        _handed_over(parameters, take or _as_it_is, by_parameter),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        args, kwargs = pytree.tree_map(_cloned, leaves)
        outputs = _tensors_of(model(*args, **kwargs))
        # The same weights for every network: they depend on the shapes of the outputs alone.
        generator = torch.Generator().manual_seed(1)
        total = torch.zeros((), dtype=torch.float64)
        for output in outputs:
            if output.requires_grad:
                weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
                total = total + (output.double() * weights).sum()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
    return Measured([x.detach() for x in outputs], [x.grad for x in inputs], by_parameter)


def _as_it_is(_: str, gradient: Tensor) -> Tensor:
    return gradient


@contextmanager
def _handed_over(
    parameters: Mapping[str, nn.Parameter],
    take: Callable[[str, Tensor], Tensor],
    found: dict[str, Tensor | None],
) -> Iterator[None]:
    """Put what is taken of each gradient into ``found`` as soon as it is there."""

    def hand_over(name: str) -> Callable[[Tensor], None]:
        def done(parameter: Tensor) -> None:
            if parameter.grad is not None:
                # Embeddings may give sparse ones.
                taken, before = take(name, parameter.grad.to_dense()), found[name]
                # A checkpoint that goes backwards on its own brings a gradient in parts.
                found[name] = taken if before is None else before + taken
                parameter.grad = None

        return done

    handles = [
        parameter.register_post_accumulate_grad_hook(hand_over(name))  # type: ignore[no-untyped-call]
        for name, parameter in parameters.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters.values():
            parameter.grad = None


def _leaf(argument: Any) -> Any:
    """Return a copy to take gradients by."""
    if not isinstance(argument, Tensor):
        return argument
    copied = argument.detach().clone()
    return copied.requires_grad_() if copied.is_floating_point() else copied


def _cloned(leaf: Any) -> Any:
    """Return what a model may write to."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def outputs_of(model: nn.Module, arguments: Any) -> list[Tensor]:
    """Run a network forwards; nothing is left on it, save what it writes to its buffers.

    Example:
        >>> [output.shape for output in outputs_of(nn.Linear(2, 1), ((torch.ones(3, 2),), {}))]
        [torch.Size([3, 1])]
    """
    # Without gradients some layers take other ways, which round otherwise.
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args, kwargs = pytree.tree_map(_cloned, arguments)
        return [output.detach() for output in _tensors_of(model(*args, **kwargs))]


def _tensors_of(output: Any) -> list[Tensor]:
    tensors = []
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif not (leaf is None or isinstance(leaf, (bool, int, float, str))):
            raise CollapseError(
                "compact: expected a model that returns tensors, alone or in tuples, lists and "
                f"dictionaries, got a {type(leaf).__name__} among them; let it return tensors "
                "only (models of transformers: pass use_cache=False)"
            )
    return tensors


def in_precision(arguments: Any, dtype: torch.dtype) -> Any:
    """Return arguments with their tensors of real and complex numbers in another precision."""

    def cast(leaf: Any) -> Any:
        return in_dtype(leaf, dtype) if isinstance(leaf, Tensor) else leaf

    return pytree.tree_map(cast, arguments)


def shuffled(arguments: Any, integers: bool = True) -> Any:
    """Return random arguments of the same kind.

    Floating-point tensors become normal numbers of the same mean and spread, or of spread 1 where
    all entries are the same; the entries of others change places.

    Args:
        arguments: The arguments.
        integers: Whether to change others than floating-point tensors.

    Example:
        >>> shuffled(torch.tensor([7, 7, 7]))
        tensor([7, 7, 7])
    """
    generator = torch.Generator().manual_seed(0)

    def other(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.numel():
            return leaf
        if leaf.is_floating_point():
            noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
            return (leaf.double().mean() + noise * _spread(leaf)).to(leaf.dtype)
        if not integers:
            return leaf
        order = torch.randperm(leaf.numel(), generator=generator)
        return leaf.reshape(-1)[order].reshape(leaf.shape)

    return pytree.tree_map(other, arguments)


_STIRRED = 1e-3
"""Of the spread of the numbers."""


def stirred(arguments: Any) -> Any:
    """Return arguments with a little noise on floating-point tensors.

    Example:
        >>> given = torch.tensor([0.0, 0.0, 100.0])
        >>> 0 < float((stirred(given) - given).abs().max()) < 0.5
        True
    """
    generator = torch.Generator().manual_seed(2)

    def other(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or not leaf.numel():
            return leaf
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        return (leaf.double() + _STIRRED * _spread(leaf) * noise).to(leaf.dtype)

    return pytree.tree_map(other, arguments)


def _spread(tensor: Tensor) -> Tensor:
    """Return the standard deviation, or 1 where all entries are the same."""
    spread = tensor.double().std(correction=0)
    return spread if bool(spread > 0) else torch.ones_like(spread)


@contextmanager
def followed(model: nn.Module) -> Iterator[list[str]]:
    """Give the names of the modules that have been entered and not left.

    After an exception the last one is that in which it was raised.
    """
    entered: list[str] = []

    def enter(path: str) -> Any:
        return lambda *_: entered.append(path)

    def leave(*_: Any) -> None:
        entered.pop()

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path), prepend=True))
        handles.append(module.register_forward_hook(leave))
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()
