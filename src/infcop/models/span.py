"""Input channels of a layer, and the places in some tensor before it that they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod

__all__ = ["Span", "joined"]

Range = tuple[int, int]


@dataclass(frozen=True)
class Span:
    """A range of a layer's input channels, traced back to positions of a tensor.

    The positions are spread evenly over the channels: after a flattening one position of the
    tensor before it stands for several channels.

    Attributes:
        channels: First channel, and the one after the last.
        axis: The axis of the tensor along which the channels are told apart; None where every
            entry of the tensor may take part in every channel.
        positions: First position along the axis, and the one after the last.

    Example:
        >>> Span((0, 8), 1, (0, 4)).within(1, 3)
        Span(channels=(2, 6), axis=1, positions=(1, 3))
    """

    channels: Range
    axis: int | None
    positions: Range = (0, 0)

    def anywhere(self) -> Span:
        """Return the same channels, coming from any place."""
        return Span(self.channels, None)

    def along(self, axis: int) -> Span:
        """Return the same positions along another axis."""
        return replace(self, axis=axis)

    def shifted(self, by: int) -> Span:
        """Return the same channels at other positions."""
        return replace(self, positions=(self.positions[0] + by, self.positions[1] + by))

    def within(self, start: int, stop: int) -> Span | None:
        """Return what comes from these positions, or None where nothing does."""
        first, last = self.positions
        low, high = max(first, start), min(last, stop)
        if self.axis is None or (low == first and high == last):
            return self
        if low >= high:
            return None
        channel, end = self.channels
        width, length = end - channel, last - first
        # Rounded outwards; a border inside of a channel ends the bookkeeping of positions.
        begin, begin_rest = divmod((low - first) * width, length)
        until, until_rest = divmod((high - first) * width, length)
        channels = (channel + begin, channel + until + bool(until_rest))
        if begin_rest or until_rest:
            return Span(channels, None)
        return Span(channels, self.axis, (low, high))

    def reshaped(self, shape: tuple[int, ...], before: tuple[int, ...]) -> Span:
        """Return the span in a tensor that a view gave this tensor's shape.

        Args:
            shape: The shape of this tensor.
            before: The shape of the one that was reshaped.

        Example:
            >>> Span((0, 12), 1, (0, 12)).reshaped((5, 12), before=(5, 3, 2, 2))
            Span(channels=(0, 12), axis=1, positions=(0, 3))
        """
        if self.axis is None:
            return self
        if prod(shape) == 0:
            return self.anywhere()
        size, first, last = shape[self.axis], *self.positions
        outer = prod(shape[: self.axis])
        products = [1, *accumulate(before, lambda one, other: one * other)]
        # Where as many entries lie outside, both axes cut the tensor into blocks that nest.
        axes = [axis for axis in range(len(before)) if products[axis] == outer]
        for axis in sorted(axes, key=lambda axis: (before[axis] != size, -axis)):
            length = before[axis]
            if length % size == 0:
                ratio = length // size
                return Span(self.channels, axis, (first * ratio, last * ratio))
            ratio, rest = divmod(size, length)
            if rest == 0 and first % ratio == 0 and last % ratio == 0:
                return Span(self.channels, axis, (first // ratio, last // ratio))
        return self.anywhere()


def joined(ranges: set[Range]) -> tuple[Range, ...]:
    """Return sorted ranges in which those that touch or overlap have become one.

    Example:
        >>> joined({(4, 6), (0, 2), (2, 3), (5, 8)})
        ((0, 3), (4, 8))
    """
    merged: list[Range] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)
