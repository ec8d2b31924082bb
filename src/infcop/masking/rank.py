"""The k-th smallest of very many numbers, without a copy of them.

A random sample says between which two values the number must be. One pass over the numbers, piece
by piece, counts those below and collects the few between. The counts are exact whatever the sample
says: where it misleads, more is collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Cut", "Part", "kth_smallest", "pieces"]

_PIECE = 2**20
"""Numbers looked at together: few enough to stay in the cache of a processor."""
_SAMPLE = 2**16
_SURE = 3
"""Half the width of the interval, in square roots of the sample: six standard deviations."""

Numbers = NDArray[Any]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """Numbers of one layer and which of them take part: vectors on the CPU, of one length."""

    values: Tensor
    alive: Tensor


@dataclass(frozen=True)
class Cut:
    """Where the ``k`` smallest numbers end.

    Attributes:
        value: The largest of them.
        ties: How many of them are equal to it; more numbers than these may be.
    """

    value: float
    ties: int


def kth_smallest(parts: Sequence[Part], count: int) -> Cut:
    """Find the smallest ``count`` of the numbers that take part, none of which is NaN.

    Args:
        parts: The numbers; those of different types are compared as the widest of them.
        count: At least 1 and at most as many as take part.

    Example:
        >>> values = torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0])
        >>> kth_smallest([Part(values, torch.ones(5, dtype=torch.bool))], 2)
        Cut(value=1.0, ties=2)
    """
    alive = sum(int(part.alive.count_nonzero()) for part in parts)
    low, high = -np.inf, np.inf
    if alive > _SAMPLE:
        low, high = _bracket(_sample(parts), count / alive)
    below, upto, before, through, between = _counts(parts, low, high)
    if below < count <= upto:
        return Cut(float(low), count - below)
    if upto < count <= before:
        return _within(between, count, upto)
    if before < count <= through:
        return Cut(float(high), count - before)
    if count <= below:
        return _within(_collected(parts, lambda values: values < low), count, 0)
    return _within(_collected(parts, lambda values: values > high), count, through)


def pieces(parts: Sequence[Part]) -> Iterator[tuple[int, int, Numbers, Flags]]:
    """Yield the parts piece by piece: number of the part, first place, values, which take part.

    Example:
        >>> part = Part(torch.tensor([1.0, 2.0]), torch.tensor([True, False]))
        >>> [(number, start, values.tolist()) for number, start, values, _ in pieces([part])]
        [(0, 0, [1.0, 2.0])]
    """
    dtype = np.result_type(np.float32, *(_wide(part.values[:0]).dtype for part in parts))
    for number, part in enumerate(parts):
        for start in range(0, len(part.values), _PIECE):
            values = _wide(part.values[start : start + _PIECE]).astype(dtype, copy=False)
            yield number, start, values, part.alive[start : start + _PIECE].numpy()


def _wide(values: Tensor) -> Numbers:
    """Return a NumPy vector; narrow floats, some unknown to NumPy, widen without rounding."""
    if not values.is_floating_point():
        return values.double().numpy()
    return (values.float() if values.itemsize < 4 else values).numpy()


def _sample(parts: Sequence[Part]) -> Numbers:
    # The outcome does not depend on what is drawn.
    generator = np.random.default_rng(0)
    total = sum(len(part.values) for part in parts)
    drawn = []
    for part in parts:
        size = len(part.values)
        places = torch.from_numpy(generator.integers(0, max(size, 1), _SAMPLE * size // total))
        drawn.append(_wide(part.values[places][part.alive[places]]))
    return np.sort(np.concatenate(drawn))


def _bracket(sample: Numbers, place: float) -> tuple[Any, Any]:
    """Return two values that the number at this place, in (0, 1], is very likely between."""
    margin = _SURE * np.sqrt(len(sample))
    first = int(np.floor(place * len(sample) - margin))
    last = int(np.ceil(place * len(sample) + margin))
    return (
        sample[first] if 0 <= first < len(sample) else sample.dtype.type(-np.inf),
        sample[last] if last < len(sample) else sample.dtype.type(np.inf),
    )


def _counts(parts: Sequence[Part], low: Any, high: Any) -> tuple[int, int, int, int, Numbers]:
    """Return how many are below and up to both values, and what is between them."""
    counts = np.zeros(4, dtype=np.int64)
    between = []
    for _, _, values, alive in pieces(parts):
        above, under = values > low, values < high
        chosen = ((values < low), ~above, under, (values <= high))
        counts += [np.count_nonzero(one & alive) for one in chosen]
        between.append(values[above & under & alive])
    below, upto, before, through = counts.tolist()
    return below, upto, before, through, np.concatenate(between)


def _collected(parts: Sequence[Part], wanted: Callable[[Numbers], Flags]) -> Numbers:
    return np.concatenate([values[wanted(values) & a] for _, _, values, a in pieces(parts)])


def _within(values: Numbers, count: int, below: int) -> Cut:
    """Find the cut among values that ``below`` of the numbers are smaller than."""
    value = float(np.partition(values, count - below - 1)[count - below - 1])
    return Cut(value, count - below - int(np.count_nonzero(values < value)))
