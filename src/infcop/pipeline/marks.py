"""Where a phase is interrupted to be read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

__all__ = ["Clock", "marks"]


class Clock(Protocol):
    """What knows how many steps a pass has; a training phase does."""

    @property
    def steps_per_pass(self) -> int:
        """Return the steps of a pass."""
        ...

    def steps_at(self, passes: float) -> int:
        """Return the first step at which so many passes are made."""
        ...


def marks(phase: Clock, unit: float, end: float, also: Iterable[float] = ()) -> list[int]:
    """Return the steps, in order, at which a phase of ``end`` passes is read.

    Every multiple of ``unit`` passes, the places in ``also`` that lie inside, and the end; each at
    least one step after the one before, the first at least one step after the beginning.
    """
    # A unit below one step means every step, however far below.
    unit = max(unit, 1 / phase.steps_per_pass)
    multiples = [unit * count for count in range(1, math.ceil(end / unit - 1e-9))]
    last = max(phase.steps_at(end), 1)
    steps = map(phase.steps_at, (*multiples, *also))
    return sorted({*(step for step in steps if 0 < step < last), last})
