"""Looking into a model without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from infcop.core.rng import preserved_rng

__all__ = ["preserved_model"]


@contextmanager
def preserved_model(model: nn.Module) -> Iterator[None]:
    """Give the model and the random generators back as they were, also after an exception.

    Kept are the training flag of every module, which buffers there are and the values of all
    parameters and buffers: forward passes may count calls, fill caches or renormalise weights.
    Plain Python attributes are out of reach. Costs one copy of the parameters and buffers.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> with preserved_model(model):
        ...     _ = model(torch.randn(4, 2))
        >>> model.num_batches_tracked
        tensor(0)
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    values = [(tensor, tensor.detach().clone()) for tensor in _tensors(model)]
    with preserved_rng():
        try:
            yield
        finally:
            for module, training in flags:
                module.training = training
            for module, own in buffers:
                module._buffers.clear()
                module._buffers.update(own)
            _write_back(values)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


@torch.no_grad()
def _write_back(values: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, value in values:
        # Only what has changed, and so the version counters of the rest stay as they are.
        if not torch.equal(tensor, value):
            tensor.copy_(value)
