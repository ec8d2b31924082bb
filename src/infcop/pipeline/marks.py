"""Where the phases of a run are interrupted to be read."""

from __future__ import annotations

import math
from collections.abc import Iterable

from infcop.pipeline.context import Run
from infcop.rewinding.policy import snapshot_place
from infcop.stopping.build import named_passes, needed_floors
from infcop.training.clock import Clock

__all__ = ["dense_marks", "dense_reads", "final_marks", "level_marks", "marks", "reference_place"]


def dense_marks(run: Run, clock: Clock) -> list[int]:
    """Return the steps at which the dense training is read: every pass, whatever the method.

    Randomness depends on the places where training is interrupted, so methods that are compared
    must have the same ones. Only a place within a pass that levels rewind to is added.
    """
    place = snapshot_place(run.config.method.rewind, run.config.dense.warmup)
    return marks(clock, 1, run.config.dense.passes, also=[] if place is None else [place])


def level_marks(run: Run, clock: Clock, also: Iterable[float] = ()) -> list[int]:
    """Return the steps at which a level is read: the last uses up its budget."""
    levels = run.config.levels
    named = [run.config.min_passes, *named_passes(run.config.method.stop), *also]
    return marks(clock, levels.unit, levels.max_passes, also=named)


def final_marks(run: Run, clock: Clock, recovery: float = 0.0) -> list[int]:
    """Return the steps at which the final training is read, which may follow a recovery."""
    # Only levels are short enough to be read several times per pass.
    unit = max(run.config.levels.unit, 1.0)
    also = [recovery] if recovery else []
    return marks(clock, unit, recovery + run.config.final_passes, also=also)


def dense_reads(run: Run, clock: Clock) -> set[int]:
    """Return the steps of the dense training at which flow is read: where something needs it."""
    dense = dense_marks(run, clock)
    if run.config.method.flow.every_reading:
        return set(dense)
    found = {dense[-1], clock.steps_at(reference_place(run)), *_drift_marks(run, clock)}
    if run.states.wants("warm-up"):
        found.add(clock.steps_at(run.config.dense.warmup))
    return found


def _drift_marks(run: Run, clock: Clock) -> list[int]:
    """Return the steps of the dense training whose flow a noise floor is taken from."""
    parts = [p for p in needed_floors(run.config.method.stop) if p.kind != "halves"]
    if not parts:
        return []
    passes = dense_marks(run, clock)
    changes = max(len(passes) if p.readings is None else p.readings for p in parts)
    return passes[-(changes + 1) :]


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
