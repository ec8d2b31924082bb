"""Looking into a model without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from infcop.core.rng import preserved_rng
from infcop.errors import ModelError

__all__ = ["preserved_model"]


@contextmanager
def preserved_model(model: nn.Module, *, copy_parameters: bool = True) -> Iterator[None]:
    """Give the model and the random generators back as they were, also after an exception.

    Kept are the training flag of every module, which parameters and buffers there are, and the
    values of all of them: forward passes may count calls, fill caches or renormalise weights.
    Plain Python attributes are out of reach.

    Args:
        model: Any model.
        copy_parameters: Whether to keep copies of the parameters, which costs the memory of a
            second model. Without them only embeddings that renormalise themselves are copied, and
            a parameter that is found changed in place is an error.

    Raises:
        ModelError: A parameter was changed in place and had not been copied.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> with preserved_model(model):
        ...     _ = model(torch.randn(4, 2))
        >>> model.num_batches_tracked
        tensor(0)
    """
    flags = [(module, module.training) for module in model.modules()]
    owned = [(m, dict(m._parameters), dict(m._buffers)) for m in model.modules()]
    parameters = {name: p for name, p in model.named_parameters() if not is_lazy(p)}
    # Aliases, not copies: a forward pass may put other memory under a parameter.
    memory = [(p, p.data) for p in parameters.values()]
    copied = {id(p): p for p in (parameters.values() if copy_parameters else _renormalised(model))}
    values = [(t, t.detach().clone()) for t in (*copied.values(), *model.buffers())]
    marks = [(name, p, _mark(p)) for name, p in parameters.items() if id(p) not in copied]
    with preserved_rng():
        try:
            yield
        finally:
            for module, training in flags:
                module.training = training
            for module, own_parameters, own_buffers in owned:
                _rebind(module._parameters, own_parameters)
                _rebind(module._buffers, own_buffers)
            for parameter, data in memory:
                if parameter.data_ptr() != data.data_ptr() or parameter.shape != data.shape:
                    parameter.data = data
            _write_back(values)
    changed = [name for name, parameter, mark in marks if _mark(parameter) != mark]
    if changed:
        raise ModelError(
            f"the model writes to its parameters {changed[:3]} while it is evaluated, so it can't "
            "be looked into without a trace; let its forward pass compute new tensors instead"
        )


def _renormalised(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            yield module.weight


def _mark(parameter: Tensor) -> tuple[int, ...]:
    """Return numbers that hardly any change leaves alone: writes may leave no other trace."""
    version = 0 if parameter.is_inference() else parameter._version
    if parameter.layout != torch.strided or not parameter.is_floating_point():
        return (version,)
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = parameter.detach().view(whole[parameter.element_size()])
    bits = bits.reshape(len(bits) if bits.ndim > 1 else 1, -1)
    # Weighted by their places, so that exchanged entries and changed signs show as well.
    sums = (bits.sum(dim=axis, dtype=torch.int64) for axis in (0, 1))
    return (version, *(int((one * torch.arange(1, len(one) + 1).to(one)).sum()) for one in sums))


def _rebind(present: MutableMapping[str, Any], before: dict[str, Any]) -> None:
    # A scripted module's are no dictionary, and can't be bound to anything else either.
    if isinstance(present, dict) and _identities(present) != _identities(before):
        present.clear()
        present.update(before)


def _identities(named: dict[str, Any]) -> list[tuple[str, int]]:
    return [(name, id(value)) for name, value in named.items()]


@torch.no_grad()
def _write_back(values: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, before in values:
        if tensor.shape != before.shape:
            tensor.resize_(before.shape)
        # Only what has changed: the version counters of the rest stay as they are, and an expanded
        # buffer can't be written to.
        if not _same(tensor, before):
            tensor.copy_(before)


def _same(one: Tensor, other: Tensor) -> bool:
    if torch.equal(one, other):
        return True
    # NaN is not equal to itself.
    return one.is_floating_point() and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
