"""Running a model to look at it, without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from infcop.models.undisturbed import undisturbed
from infcop.models.unwrap import uncompiled

__all__ = ["measuring"]


@contextmanager
def measuring(model: nn.Module, *, train: bool, gradients: bool) -> Iterator[None]:
    """Set the mode of a model and give it back as it was, also after an exception.

    Restored are the training flag of every module, the buffers, the memory of the parameters and
    the global generators. What was compiled runs as it was written, since compiled code may pass
    hooks over and has no second derivatives.

    Args:
        model: The model.
        train: Training mode: batch statistics, dropout. Evaluation mode otherwise.
        gradients: Whether autograd records.

    Raises:
        ModelError: A parameter was changed in place.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> with measuring(model, train=False, gradients=False):
        ...     model[0].training
        False
        >>> model[0].training
        True
    """
    with undisturbed(model, train=train), uncompiled(), torch.set_grad_enabled(gradients):
        yield
