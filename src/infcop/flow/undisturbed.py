"""Measure a model without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from infcop.core.rng import preserved_rng

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and give it back as it was, also after an exception.

    Restored are the training flag of every module (they may differ), every buffer, and the
    global generators of Python, NumPy and PyTorch, from which loaders draw. Parameters and their
    ``.grad`` are not copied: nothing measured here writes to them.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> with undisturbed(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = _buffers(model)
    with preserved_rng():
        try:
            model.eval()
            yield
        finally:
            for module, flag in flags:
                module.training = flag
            _restore(buffers)


def _buffers(model: nn.Module) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
    """Return each buffer with its owner, its name and a copy of its values."""
    return [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]


@torch.no_grad()
def _restore(buffers: list[tuple[nn.Module, str, Tensor, Tensor]]) -> None:
    for module, name, buffer, values in buffers:
        # Compared by value, since writes through ``.data`` leave no other trace; and not written
        # without need, since an expanded buffer can't be.
        if not torch.equal(buffer, values):
            buffer.copy_(values)
        setattr(module, name, buffer)  # A forward pass may have bound another tensor to it.
