"""Run a model without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from infcop.models.preserved import preserved_model

__all__ = ["set_mode", "undisturbed"]


@contextmanager
def undisturbed(model: nn.Module, *, train: bool = False) -> Iterator[None]:
    """Put a model into a mode and give it back as it was, also after an exception.

    Restored are the training flag of every module (they may differ), the buffers, the memory of
    the parameters, and the global generators of Python, NumPy and PyTorch, from which loaders
    draw. Parameters are not copied, since that would cost the memory of a second model: a model
    that writes to them in place while it runs is told so.

    Args:
        model: Any model.
        train: Training mode: batch statistics, dropout. Evaluation mode otherwise.

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
        set_mode(model, train=train)
        yield


def set_mode(model: nn.Module, *, train: bool) -> None:
    """Set the training flag of every module, whatever the model's own methods would do besides.

    A model may override ``train`` and ``eval``, for instance to merge weights.

    Example:
        >>> model = nn.Sequential(nn.Dropout())
        >>> set_mode(model, train=False)
        >>> model.training, model[0].training
        (False, False)
    """
    for module in model.modules():
        module.training = train
