"""Measure a model without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from infcop.models.preserved import preserved_model

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and give it back as it was, also after an exception.

    Restored are the training flag of every module (they may differ), the buffers, the memory of
    the parameters, and the global generators of Python, NumPy and PyTorch, from which loaders
    draw. Parameters are not copied, since that would cost the memory of a second model: a model
    that writes to them in place while it is evaluated is told so.

    Raises:
        ModelError: A parameter was changed in place.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> with undisturbed(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    with preserved_model(model, copy_parameters=False):
        model.eval()
        yield
