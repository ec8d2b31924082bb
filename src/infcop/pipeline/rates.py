"""The learning rates of a run's levels and final training, from its settings and its record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from infcop.core.method import Adaptive
from infcop.core.rate import OneRunRate
from infcop.core.records import PhaseRecord
from infcop.masking.schedule import level_count
from infcop.pipeline.context import Run
from infcop.rewinding.policy import schedule_start
from infcop.stopping.rule import reached
from infcop.training.clock import Clock
from infcop.training.rates import LevelFacts, final_rate, level_rate

__all__ = ["final_rates", "level_rates", "recovery_passes"]


def level_rates(run: Run) -> Callable[[float], float]:
    """Return the learning rate of the present level by the passes since it began."""
    config, dense = run.config, run.config.dense
    *before, level = run.record.levels
    facts = LevelFacts(
        start=schedule_start(config.method.rewind, _dense_passes(run), dense.warmup),
        pruned_norm=level.pruned_norm,
        pruned_fraction=level.removed / (level.removed + level.kept),
        before=sum(past.passes for past in before),
        run_passes=_run_passes(run),
    )
    return partial(level_rate, config, facts)


def final_rates(run: Run, recovery: float = 0.0) -> Callable[[float], float]:
    """Return the learning rate of the final training by the passes since it began.

    So many passes of recovery from going back come first, at the rate of a level.
    """
    before = sum(level.passes for level in run.record.levels)
    facts = LevelFacts(before=before, run_passes=_run_passes(run))
    recovering = level_rates(run) if recovery else None

    def rate(passes: float) -> float:
        if recovering is not None and not reached(passes, recovery):
            return recovering(passes)
        return final_rate(run.config, max(passes - recovery, 0.0), facts)

    return rate


def recovery_passes(run: Run, done: PhaseRecord) -> float:
    """Return the passes, in whole steps, that the rule asked for when the weights had gone back."""
    first = done.readings[0] if done.readings else None
    if first is None or first.passes > 0 or first.decision is None or not first.decision.until:
        return 0.0
    clock = Clock(len(run.task.train_loader))
    passes = min(first.decision.until, run.config.levels.max_passes)
    return max(clock.steps_at(passes), 1) / clock.steps_per_pass


def _dense_passes(run: Run) -> float:
    """Return the passes that the dense network was trained for, which may have stopped early."""
    return run.record.dense.readings[-1].passes


def _run_passes(run: Run) -> float:
    """Return the passes of all levels and the final training, where they are known beforehand."""
    config, schedule = run.config, run.config.method.schedule
    if not isinstance(config.method.rate, OneRunRate) or isinstance(schedule, Adaptive):
        return 0.0
    most = config.levels.max_levels
    count = level_count(schedule, run.masks.total, run.target_kept, most, config.method.pattern)
    clock = Clock(len(run.task.train_loader))
    steps = max(clock.steps_at(config.level_passes), 1) if config.level_passes > 0 else 0
    level = steps / clock.steps_per_pass
    return count * level + config.final_passes
