"""How much of the training before a reading its flow is read from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from infcop.pipeline.context import Run
from infcop.pipeline.dense import dense_places, reference_place
from infcop.pipeline.marks import marks
from infcop.stopping.build import named_passes, needed_flows

__all__ = ["training_window"]


@dataclass(frozen=True)
class _Clock:
    """What ``marks`` has to know of a phase that has not begun."""

    steps_per_pass: int

    def steps_at(self, passes: float) -> int:
        return math.ceil(passes * self.steps_per_pass - 1e-9)


def training_window(run: Run) -> int:
    """Return the steps that every reading of flow from training listens to.

    As many as hold ``probe_examples`` examples, but no more than the shortest stretch that ends
    with such a reading: readings over stretches of unlike length could not be compared.
    """
    clock = _Clock(len(run.task.train_loader))
    shortest = min(_stretches(run, clock))
    examples = run.config.probe_examples
    if examples is None:
        return shortest
    wanted = math.ceil(examples / (run.record.data.train / clock.steps_per_pass))
    usual = clock.steps_at(run.config.levels.unit)
    if 2 * shortest < min(wanted, usual):
        run.warn(
            f"flow is read from the last {shortest} training steps before each reading instead of "
            f"the {wanted} that hold probe_examples={examples}, since two readings are that close; "
            "let the passes that the stop rule names be multiples of levels.unit"
        )
    return min(wanted, shortest)


def _stretches(run: Run, clock: _Clock) -> list[int]:
    """Return the steps between each reading of flow and the mark before it."""
    config = run.config
    unit, levels = config.levels.unit, config.levels
    dense = marks(clock, unit, config.dense.passes, also=dense_places(run))
    read = {dense[-1], clock.steps_at(reference_place(run))}
    found = [stop - before for before, stop in pairwise((0, *dense)) if stop in read]
    if needed_flows(config.method.stop):
        also = [levels.min_passes, *named_passes(config.method.stop)]
        stops = marks(clock, unit, levels.max_passes, also=also)
        found += [stop - before for before, stop in pairwise((0, *stops))]
    if config.final_passes:
        final = (0, *marks(clock, unit, config.final_passes))
        found.append(final[-1] - final[-2])
    return found
