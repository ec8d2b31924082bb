"""Classification with cross-entropy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from infcop.errors import ConfigError, DataError
from infcop.tasks.base import Loader, Metrics

__all__ = ["Classification"]


class Classification:
    """Classes predicted by logits of shape ``[B, C]``; the main metric is the accuracy.

    Loss: mean cross-entropy over the batch, with label smoothing ``s`` (Szegedy et al. 2016,
    section 7): ``(1 - s) * CE(label) + s * mean over classes of CE(class)``.

    Args:
        train_loader: Batches ``(inputs, labels)`` to train on; ``labels`` are int64 of shape
            ``[B]`` in ``[0, C)``. Reshuffling between passes is welcome.
        held_out_loader: Batches that decisions are taken on. Never the test data.
        test_loader: Batches read once, at the end.
        probe_loader: Batches that flow is read on, in a fixed order; by default a fixed set of
            training batches.
        label_smoothing: ``s``, in [0, 1).

    Raises:
        ConfigError: ``label_smoothing`` is out of range.
        DataError: A loader is empty or does not know its length.

    Example:
        >>> batch = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> task = Classification([batch], [batch])
        >>> task.batch_size(batch)
        4
        >>> task.training_step(nn.Linear(3, 2), batch).shape
        torch.Size([])
    """

    def __init__(
        self,
        train_loader: Iterable[Any],
        held_out_loader: Iterable[Any],
        test_loader: Iterable[Any] | None = None,
        probe_loader: Iterable[Any] | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"Classification: expected label_smoothing in [0, 1), got {label_smoothing}"
            )
        self.train_loader = _checked(train_loader, "train_loader")
        self.held_out_loader = _checked(held_out_loader, "held_out_loader")
        self.test_loader = None if test_loader is None else _checked(test_loader, "test_loader")
        self.probe_loader = None if probe_loader is None else _checked(probe_loader, "probe_loader")
        self.label_smoothing = label_smoothing

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the mean cross-entropy of a batch."""
        inputs, labels = _pair(batch)
        return _cross_entropy(model(inputs), labels, label_smoothing=self.label_smoothing)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, loader: Loader) -> Metrics:
        """Return accuracy in [0, 1] and mean cross-entropy over a loader."""
        correct: list[Tensor] = []
        losses: list[Tensor] = []
        examples = 0
        for inputs, labels in map(_pair, loader):
            logits = model(inputs)
            correct.append((logits.argmax(dim=1) == labels).sum())
            losses.append(_cross_entropy(_wide(logits), labels, reduction="sum"))
            examples += len(labels)
        values = {
            "accuracy": sum(map(float, correct)) / examples,
            "loss": sum(map(float, losses)) / examples,
        }
        return Metrics(values, main="accuracy", higher_is_better=True, examples=examples)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return what the model is called with."""
        return (_pair(batch)[0],)

    def batch_size(self, batch: Any) -> int:
        """Return the number of labels."""
        return len(_pair(batch)[1])


def _wide(logits: Tensor) -> Tensor:
    """Return the logits in float64, or in float32 on devices that have no more."""
    return logits.float() if logits.device.type == "mps" else logits.double()


def _pair(batch: Any) -> tuple[Any, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        got = f"{len(batch)} values" if isinstance(batch, tuple | list) else type(batch).__name__
        raise DataError(
            f"Classification: expected batches (inputs, labels), got {got}; write a task of your "
            "own for other batches"
        )
    return batch[0], batch[1]


def _cross_entropy(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    try:
        return functional.cross_entropy(logits, labels, **options)
    except IndexError as error:
        raise DataError(
            f"Classification: expected labels in [0, {logits.shape[1]}), the classes of the "
            f"model, got {int(labels.min())} to {int(labels.max())}; number the classes from 0, "
            "or give the model as many outputs as there are classes"
        ) from error


def _checked(loader: Iterable[Any], name: str) -> Loader:
    try:
        length = len(loader)  # type: ignore[arg-type]
    except TypeError:
        length = None
    if length is None or not isinstance(loader, Loader):
        raise DataError(
            f"Classification: expected {name} to be iterable with a length, got a "
            f"{type(loader).__name__} without; give a list of batches, or a DataLoader over a "
            "dataset that knows its length"
        )
    if length == 0:
        raise DataError(
            f"Classification: {name} is empty; it must give at least one batch "
            "(a large batch size with drop_last leaves none of a small set)"
        )
    return loader
