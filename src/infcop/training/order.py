"""Iterating over any loader in an order that a seed gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import torch

from infcop.core.rng import seed_all
from infcop.tasks.base import Loader

__all__ = ["ordered"]


def ordered(loader: Loader, order: int, skip: int) -> Iterator[Any]:
    """Start a pass in the order that a seed gives, from a batch on.

    Loaders of this package are told the order and begin at any batch. Any other loader draws its
    order from the global generators or from one of its own; all of them are set first, and the
    batches before the first one wanted are read and dropped.
    """
    if hasattr(loader, "set_pass") and hasattr(loader, "iterate"):
        loader.set_pass(order)
        return cast("Iterator[Any]", loader.iterate(skip))
    seed_all(order)
    for part in _parts(loader):
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(order)
        if hasattr(part, "set_epoch"):
            part.set_epoch(order % 2**31)
    batches = iter(loader)
    for _ in range(skip):
        next(batches, None)
    if skip > 0:
        return batches
    # Many loaders draw their order together with the first batch: read it now, before the caller
    # sets the generators for the training step, or a resumed pass would have another order.
    first = next(batches, None)
    return batches if first is None else chain([first], batches)


def _parts(loader: Loader) -> list[Any]:
    """Return everything that may draw the order of a ``DataLoader``."""
    sampler, batch_sampler = (getattr(loader, key, None) for key in ("sampler", "batch_sampler"))
    return [loader, sampler, batch_sampler, getattr(batch_sampler, "sampler", None)]
