"""The batches that flow is read on, always the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from infcop.core.rng import derive_seed
from infcop.errors import DataError
from infcop.tasks.base import Loader, Task
from infcop.training.order import ordered

__all__ = ["batch_to_trace", "take_probe"]

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def take_probe(task: Task, examples: int | None, seed: int) -> list[Any]:
    """Return the probe loader's batches, or the first training batches of a seeded order.

    Sets the global generators: keep them around it.

    Args:
        task: Gives the loaders.
        examples: Training batches are taken until they hold so many; None takes all.
        seed: Of the order.

    Raises:
        DataError: The probe loader shuffles, or there are fewer than two examples.
    """
    if task.probe_loader is not None:
        if _shuffles(task.probe_loader):
            raise DataError(
                "probe_loader shuffles; expected the same examples in the same order at every "
                "reading. Make it with shuffle=False"
            )
        batches = list(task.probe_loader)
    else:
        order = derive_seed(seed, "probe")
        batches = _first(ordered(task.train_loader, order, 0), task, examples)
    if sum(task.batch_size(batch) for batch in batches) < 2:
        raise DataError(
            "the probe holds fewer than two examples; expected at least two, since flow is a "
            "correlation over examples. Give more training data or another probe_loader"
        )
    return batches


def batch_to_trace(batches: Sequence[Any], task: Task) -> Any:
    """Return the first batch with two examples: with one it can't be seen where examples are."""
    return next((batch for batch in batches if task.batch_size(batch) > 1), batches[0])


def _shuffles(loader: Loader) -> bool:
    """Whether a ``DataLoader`` draws its order anew each time."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(owner, "sampler", None) for owner in (loader, batch_sampler))
    return any(isinstance(sampler, _SHUFFLING) for sampler in samplers)


def _first(batches: Iterable[Any], task: Task, examples: int | None) -> list[Any]:
    taken: list[Any] = []
    count = 0
    for batch in batches:
        taken.append(batch)
        count += task.batch_size(batch)
        if examples is not None and count >= examples:
            break
    return taken
