"""Passes over the data, counted in optimiser steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(frozen=True)
class Clock:
    """Knows how many steps a pass has.

    Example:
        >>> Clock(steps_per_pass=4).steps_at(1.6)
        7
    """

    steps_per_pass: int

    def steps_at(self, passes: float) -> int:
        """Return the first step at which so many passes are made."""
        return math.ceil(passes * self.steps_per_pass - 1e-9)
