"""Tiles of a weight: the rectangles of entries that are scored and pruned together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infcop.core.pattern import Block, Channel
from infcop.errors import PruningError
from infcop.models.attention import HeadSlices
from infcop.models.weight_axes import WeightAxes

__all__ = ["Tiles", "head_tiles", "tiles_of"]

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

_PIECE = 2**17
"""Entries that are turned into float64 together: few enough to stay in the cache of a processor."""

_WHOLE_ROWS: dict[Any, Callable[..., Tensor]] = {np.add: torch.sum, np.maximum: torch.amax}
"""What takes the place of ``reduceat`` where there is one stretch of columns: it is faster."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """A weight seen as a matrix of outputs times everything else, cut into rectangles.

    Attributes:
        axes: Where outputs and inputs are in the weight.
        rows: First row of each stretch of rows.
        columns: First column of each stretch of columns.
        group: The number of the group of each tile, ``[stretches of rows, of columns]``.
        count: Groups; those that this weight has no tile of count too.

    Example:
        >>> tiles = tiles_of(Channel(), WeightAxes(output=0, input=1), (2, 3))
        >>> tiles.sizes(torch.tensor([[True, False, True], [True, False, False]]))
        array([2, 1])
        >>> tiles.spread(np.array([True, False]), (2, 3)).tolist()
        [[True, True, True], [False, False, False]]
    """

    axes: WeightAxes
    rows: Counts
    columns: Counts
    group: Counts
    count: int

    def reduced(
        self,
        function: np.ufunc,
        values: Tensor,
        mask: Tensor,
        dead: float,
        change: Callable[[Tensor], Tensor] = Tensor.double,
    ) -> Numbers:
        """Return what the values of each group come to, in float64.

        Args:
            function: How two values become one: ``np.add`` or ``np.maximum``.
            values: One for each entry of the weight.
            mask: Which of them count.
            dead: What a value that does not count is taken for.
            change: What is done to the values beforehand, in float64; it may be done in place.
        """
        matrix = self.axes.outputs_first(values).flatten(1)
        alive = self.axes.outputs_first(mask).flatten(1)
        found = np.full(self.count, dead)
        bounds = np.append(self.rows, len(matrix))
        step = max(_PIECE * len(self.rows) // matrix.numel(), 1)
        # Infinite values come to an infinite sum, or to NaN, which the caller looks for.
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(self.rows), step):
                own = bounds[first : first + step + 1]
                rows = slice(own[0], own[-1])
                piece = change(matrix[rows].to(torch.float64, copy=True))
                # Looking whether all are alive takes a small part of filling in the others.
                if not alive[rows].numpy().all():
                    piece.masked_fill_(~alive[rows], dead)
                if len(self.columns) == 1:
                    along = _WHOLE_ROWS[function](piece, dim=1, keepdim=True).numpy()
                else:
                    along = function.reduceat(piece.numpy(), self.columns, axis=1)
                tiles = (
                    along
                    if len(along) == len(own) - 1
                    else [function.reduce(along[a:b], axis=0) for a, b in pairwise(own - own[0])]
                )
                function.at(found, self.group[first : first + step], tiles)
        return found

    def sizes(self, mask: Tensor) -> Counts:
        """Return how many entries of a mask each group has."""
        # Sums of ones are exact in float64.
        return self.reduced(np.add, mask, mask, 0.0).astype(np.int64)

    def spread(self, chosen: NDArray[np.bool_], shape: tuple[int, ...]) -> Tensor:
        """Return a mask of a weight's shape that is true in the chosen groups."""
        turned = self.axes.turned_shape(shape)
        height, width = turned[0], math.prod(turned[1:])
        tiles = np.repeat(chosen[self.group], np.diff(self.rows, append=height), axis=0)
        matrix = np.repeat(tiles, np.diff(self.columns, append=width), axis=1)
        return self.axes.restored(torch.from_numpy(matrix).reshape(turned)).contiguous()


def tiles_of(pattern: Block | Channel, axes: WeightAxes, shape: tuple[int, ...]) -> Tiles:
    """Return the blocks or output channels of a weight; blocks at the edges may be smaller.

    Example:
        >>> tiles = tiles_of(Block(rows=2, columns=2), WeightAxes(output=0, input=1), (3, 4))
        >>> tiles.sizes(torch.ones(3, 4, dtype=torch.bool))
        array([4, 4, 2, 2])
    """
    turned = axes.turned_shape(shape)
    height, width = turned[0], math.prod(turned[1:])
    if isinstance(pattern, Block):
        rows, columns = np.arange(0, height, pattern.rows), np.arange(0, width, pattern.columns)
    else:
        rows, columns = np.arange(height), np.arange(1)
    group = np.arange(len(rows) * len(columns)).reshape(len(rows), len(columns))
    return Tiles(axes, rows, columns, group, group.size)


def head_tiles(heads: HeadSlices, axes: WeightAxes, shape: tuple[int, ...]) -> Tiles:
    """Return the part of each head in one projection of its attention.

    Raises:
        PruningError: The heads don't make up the projection.

    Example:
        >>> queries = HeadSlices("attention", (), 2, "output", (4, 4, 4))
        >>> head_tiles(queries, WeightAxes(output=0, input=1), (12, 8)).rows
        array([ 0,  2,  4,  6,  8, 10])
    """
    width = axes.turned_shape(shape)[0 if heads.side == "output" else 1]
    if sum(heads.sections) != width:
        raise PruningError(
            f"pattern 'heads': expected {sum(heads.sections)} {heads.side}s in a projection of "
            f"attention '{heads.attention}', got {width}; use another pattern"
        )
    pieces = [section // heads.count for section in heads.sections for _ in range(heads.count)]
    starts = np.array(list(accumulate(pieces[:-1], initial=0)))
    group = np.tile(np.arange(heads.count), len(heads.sections))
    if heads.side == "output":
        return Tiles(axes, starts, np.arange(1), group[:, None], heads.count)
    return Tiles(axes, np.arange(1), starts, group[None, :], heads.count)
