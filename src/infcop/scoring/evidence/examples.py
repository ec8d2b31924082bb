"""The examples that a score looks at, batch by batch or one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from infcop.core.rng import seed_all
from infcop.errors import PruningError
from infcop.scoring.evidence.together import Together, no_example
from infcop.tasks.base import Task

__all__ = ["Examples", "single_examples"]


@dataclass(frozen=True)
class Examples:
    """Batches that can be gone through again, each time with the same random numbers.

    Attributes:
        task: Says how large a batch is and what its loss is.
        batches: Gives the batches anew, the same each time.
        seed: Set before each time through, for models that draw: dropout, for instance.
        together: Who else has examples that count as much as these.
    """

    task: Task
    batches: Callable[[], Iterable[Any]]
    seed: int
    together: Together = field(default_factory=Together)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield the batches that hold anything, with their sizes.

        Raises:
            PruningError: There is none, which shows at the end. With others, it is theirs to say
                whether they have none either.
        """
        seed_all(self.seed)
        found = False
        for batch in self.batches():
            size = self.task.batch_size(batch)
            if size > 0:
                found = True
                yield size, batch
        if not found and self.together.group is None:
            raise no_example()


def single_examples(task: Task, batch: Any, size: int) -> Iterator[Any]:
    """Yield batches of one example each.

    Every tensor whose first axis is as long as the batch is cut along it, in tuples, lists and
    mappings however nested; all else is handed on as it is.

    Raises:
        PruningError: Nothing could be cut, or what came out is no batch of one.

    Example:
        >>> import torch
        >>> from infcop.tasks.classification import Classification
        >>> batch = (torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]))
        >>> [label.tolist() for _, label in single_examples(Classification([0], [0]), batch, 2)]
        [[0], [1]]
    """
    if size == 1:
        yield batch
        return
    for number in range(size):
        one = _cut(batch, size, number)
        if (rest := task.batch_size(one)) != 1:
            raise PruningError(
                f"score 'fisher': expected a batch whose tensors have its {size} examples along "
                f"their first axes, to cut it into single ones, got {rest} examples after cutting; "
                "give batches made of tuples, lists, dictionaries and tensors, or batches of one"
            )
        yield one


def _cut(value: Any, size: int, number: int) -> Any:
    if isinstance(value, Tensor):
        fits = value.ndim > 0 and value.shape[0] == size
        return value[number : number + 1] if fits else value
    if isinstance(value, MutableMapping):
        # A copy of its own kind: tasks may read more from it than its items.
        mapping = copy(value)
        for key, item in value.items():
            mapping[key] = _cut(item, size, number)
        return mapping
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cut(item, size, number) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_cut(item, size, number) for item in value)
    return value
