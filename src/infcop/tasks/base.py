"""The contract between a workload and the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Loader", "Metrics", "Task"]


@runtime_checkable
class Loader(Protocol):
    """Anything that can be iterated over again and knows how many batches it gives."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Metrics:
    """The outcome of an evaluation.

    Attributes:
        values: All metrics by name, the main one included.
        main: The name of the one that decisions use.
        higher_is_better: Its direction.
        examples: How many examples were evaluated.
    """

    values: Mapping[str, float]
    main: str
    higher_is_better: bool
    examples: int

    @property
    def main_value(self) -> float:
        """The value of the main metric."""
        return self.values[self.main]


class Task(Protocol):
    """What a search needs to know of a workload.

    ``train_loader`` is what training uses, ``held_out_loader`` what decisions use; neither may
    hold test data. ``test_loader``, where there is one, is read once, at the very end.
    ``probe_loader`` gives the examples that flow is read on, always the same in the same order;
    where it is None, the search keeps a fixed set of examples from ``train_loader``.
    """

    train_loader: Loader
    held_out_loader: Loader
    test_loader: Loader | None
    probe_loader: Loader | None

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the mean loss of a batch, ready for ``backward``."""
        ...

    def evaluate(self, model: nn.Module, loader: Loader) -> Metrics:
        """Return the metrics of a model that is in evaluation mode already."""
        ...

    def inputs(self, batch: Any) -> tuple[Any, ...] | Mapping[str, Any]:
        """Return the positional arguments that the model is called with, or its keyword ones."""
        ...

    def batch_size(self, batch: Any) -> int:
        """Return the number of examples in a batch."""
        ...
