"""Trying out a user's task on one batch, so that misfits show before any training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from infcop.errors import DataError, InfcopError, ModelError
from infcop.tasks.base import Loader, Metrics, Task
from infcop.training.engine import Engine, evaluating

__all__ = ["check_task", "try_out"]

_METHODS = ("training_step", "evaluate", "inputs", "batch_size")
_LOADERS = ("train_loader", "held_out_loader", "test_loader", "probe_loader")
_OPTIONAL = ("test_loader", "probe_loader")


def check_task(task: Task) -> None:
    """Make sure that an object has what a task needs.

    Raises:
        DataError: A method or a loader is missing, or a loader is empty or has no length.
    """
    for name in (*_METHODS, *_LOADERS):
        if not hasattr(task, name):
            what = "method" if name in _METHODS else "attribute"
            raise DataError(
                f"search: expected the task to have the {what} '{name}', but "
                f"{type(task).__name__} has none"
                + ("; set it to None where there is no such loader" if name in _OPTIONAL else "")
            )
    for name in _LOADERS:
        loader = getattr(task, name)
        if loader is None and name in _OPTIONAL:
            continue
        if not isinstance(loader, Loader) or (length := _length(loader)) is None:
            raise DataError(
                f"search: expected {name} to be iterable with a length, got a "
                f"{type(loader).__name__} without; give a list of batches, or a DataLoader over a "
                "dataset that knows its length"
            )
        if length == 0:
            raise DataError(f"search: {name} is empty; it must give at least one batch")


def _length(loader: Loader) -> int | None:
    try:
        return len(loader)
    except TypeError:  # a DataLoader has the method even where its dataset has none
        return None


def try_out(model: nn.Module, task: Task, engine: Engine, batch: Any) -> Metrics:
    """Return the metrics of one batch, after computing its loss too.

    Raises:
        ModelError: Model, task and batch don't fit each other.
        DataError: The loss is not finite before any training.
    """
    batch = engine.move(batch)
    try:
        with torch.no_grad(), evaluating(model), engine.autocast():
            loss = task.training_step(model, batch)
            metrics = task.evaluate(model, [batch])
    except InfcopError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model can't be run on a batch of the data: {type(error).__name__}: {error}. "
            "Expected the task's training_step and evaluate to accept model and batch; check the "
            "shapes, types and labels that the loader gives"
        ) from error
    _check_loss(loss)
    _check_metrics(metrics)
    return metrics


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ModelError(f"training_step: expected the mean loss as a scalar tensor, got {got}")
    if not bool(torch.isfinite(loss)):
        raise DataError(
            f"the loss of the untrained model on the first batch is {float(loss)}; expected a "
            "finite number. Look for non-finite inputs or initial weights"
        )


def _check_metrics(metrics: object) -> None:
    if not isinstance(metrics, Metrics):
        raise ModelError(
            f"evaluate: expected infcop.Metrics, got {type(metrics).__name__}; return "
            "Metrics(values, main=..., higher_is_better=..., examples=...)"
        )
    if metrics.main not in metrics.values:
        raise ModelError(
            f"evaluate: expected the main metric '{metrics.main}' among the values, got "
            f"{', '.join(sorted(metrics.values)) or 'none'}"
        )
