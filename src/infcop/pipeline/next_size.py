"""Which size of a network to try next, from what the last ones came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Tried", "between", "next_kept"]

_NARROW = 0.01


@dataclass(frozen=True)
class Tried:
    """A network that was tried.

    Attributes:
        kept: The size that was asked for.
        size: The size that it has, which whole channels keep at or below that.
        part: What a forward pass takes of the dense one.
    """

    kept: float
    size: float
    part: float


def next_kept(tried: Sequence[Tried], wanted: float) -> float:
    """Return the size to ask for next, taking the part to go by a power of the size.

    The power is that of the last two networks, within bounds: one that was timed in a bad moment
    shall not lead far astray.

    Example:
        >>> next_kept([Tried(50, 50, 0.25)], 0.5)
        100.0
    """
    last = tried[-1]
    return float(last.kept * (wanted / last.part) ** (1 / _steepness(tried)))


def between(tried: Sequence[Tried], wanted: float, kept: float) -> float | None:
    """Return a size between those that are known to be too small and too large.

    For parts without noise, which grow with the size. None if there is no such size.

    Args:
        tried: The networks so far.
        wanted: The part.
        kept: The size that would be tried otherwise.

    Example:
        >>> tried = [Tried(40, 39, 0.4), Tried(90, 88, 0.8)]
        >>> between(tried, 0.5, 50.0), round(between(tried, 0.5, 95.0), 2)
        (50.0, 59.33)
        >>> between([Tried(40, 39, 0.4), Tried(42, 41, 0.8)], 0.5, 50.0) is None
        True
    """
    low = max((one.kept for one in tried if one.part < wanted), default=0.0)
    # A size that is asked for gives that or less, so the size itself gives the same again.
    high = min((one.size for one in tried if one.part >= wanted), default=math.inf)
    if math.floor(low) + 1 >= high:
        return None
    return kept if low + 1 <= kept <= high - 1 else math.sqrt(max(low, 1.0) * high)


def _steepness(tried: Sequence[Tried]) -> float:
    if len(tried) < 2:
        return 1.0
    before, last = tried[-2:]
    if abs(math.log(before.kept / last.kept)) < _NARROW:
        return 1.0
    power = math.log(before.part / last.part) / math.log(before.kept / last.kept)
    return min(max(power, 0.3), 2.0)
