"""How much of the training before a reading its flow is read from."""

from __future__ import annotations

import math
from itertools import pairwise

from infcop.pipeline.context import Run
from infcop.pipeline.marks import dense_marks, dense_reads, final_marks, level_marks
from infcop.pipeline.reading import reads_flow
from infcop.training.clock import Clock

__all__ = ["training_window"]


def training_window(run: Run) -> int:
    """Return the steps that every reading of flow from training listens to.

    As many as hold ``probe_examples`` examples, but no more than the shortest stretch that ends
    with such a reading: readings over stretches of unlike length could not be compared.
    """
    clock = Clock(len(run.task.train_loader))
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


def _stretches(run: Run, clock: Clock) -> list[int]:
    """Return the steps between each reading of flow and the mark before it."""
    dense = dense_marks(run, clock)
    read = dense_reads(run, clock)
    found = [stop - before for before, stop in pairwise((0, *dense)) if stop in read]
    if reads_flow(run):
        found += [stop - before for before, stop in pairwise((0, *level_marks(run, clock)))]
    if run.config.final_passes:
        final = (0, *final_marks(run, clock))
        found.append(final[-1] - final[-2])
    return found
