"""Where the phases of a run are interrupted to be read."""

from __future__ import annotations

import math
from collections.abc import Iterable

from infcop.pipeline.context import Run
from infcop.rewinding.policy import snapshot_place
from infcop.stopping.build import named_passes
from infcop.training.clock import Clock

__all__ = ["dense_marks", "final_marks", "level_marks", "marks", "reference_place"]


def dense_marks(run: Run, clock: Clock) -> list[int]:
    """Return the steps at which the dense training is read or something of it is kept."""
    dense = run.config.dense
    kept = (snapshot_place(run.config.method.rewind, dense.warmup), reference_place(run))
    also = [place for place in (*kept, dense.warmup) if place]
    return marks(clock, run.config.levels.unit, dense.passes, also=also)


def level_marks(run: Run, clock: Clock) -> list[int]:
    """Return the steps at which a level is read: the last uses up its budget."""
    levels = run.config.levels
    also = [levels.min_passes, *named_passes(run.config.method.stop)]
    return marks(clock, levels.unit, levels.max_passes, also=also)


def final_marks(run: Run, clock: Clock) -> list[int]:
    """Return the steps at which the final training is read."""
    return marks(clock, run.config.levels.unit, run.config.final_passes)


def reference_place(run: Run) -> int:
    """Return the passes after which the reference is read."""
    dense = run.config.dense
    return dense.warmup if run.config.method.reference == "warm-up" else dense.passes


def marks(clock: Clock, unit: float, end: float, also: Iterable[float] = ()) -> list[int]:
    """Return the steps, in order, at which a phase of ``end`` passes is read.

    Every multiple of ``unit`` passes, the places in ``also`` that lie inside, and the end; each at
    least one step after the one before, the first at least one step after the beginning.
    """
    # A unit below one step means every step, however far below.
    unit = max(unit, 1 / clock.steps_per_pass)
    multiples = [unit * count for count in range(1, math.ceil(end / unit - 1e-9))]
    last = max(clock.steps_at(end), 1)
    steps = map(clock.steps_at, (*multiples, *also))
    return sorted({*(step for step in steps if 0 < step < last), last})
