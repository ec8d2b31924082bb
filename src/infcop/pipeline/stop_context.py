"""How the stop rule of a level is asked: the same in a run and in the replay of its record."""

from __future__ import annotations

from infcop.core.config import SearchConfig
from infcop.core.method import AtLeast
from infcop.core.records import Reading, RunRecord
from infcop.stopping.build import build_rule
from infcop.stopping.rule import StopContext, StopRule, reached

__all__ = ["asks_at_once", "level_rule", "reference_reading", "stop_context"]


def level_rule(config: SearchConfig) -> StopRule:
    """Return the rule that decides at the readings of a level, with its minimum and its cap."""
    stop = AtLeast(passes=config.min_passes, of=config.method.stop)
    return build_rule(stop, config.levels.max_passes)


def asks_at_once(config: SearchConfig) -> bool:
    """Return whether the rule is asked right after pruning, so a level may need no training."""
    never_trains = config.level_passes == 0
    return never_trains or (config.min_passes == 0 and config.method.flow.source != "training")


def stop_context(record: RunRecord, config: SearchConfig, level: int) -> StopContext:
    """Return what the rule is told before a level.

    Args:
        record: All that was measured, at least up to the reading right after the level's pruning.
        config: The settings; only those of stopping and of the dense training count.
        level: Number of the level, from 1.
    """
    sign = 1 if record.data.higher_is_better else -1
    warmup = [
        reading.main
        for reading in record.dense.readings
        if reading.main is not None and reached(config.dense.warmup, reading.passes)
    ]
    return StopContext(
        reference=reference_reading(record, config, level),
        dense_passes=config.dense.passes,
        dense=record.dense.readings,
        warmup_best=max(warmup, key=lambda value: sign * value, default=None),
        higher_is_better=record.data.higher_is_better,
        max_passes=config.levels.max_passes,
    )


def reference_reading(record: RunRecord, config: SearchConfig, level: int) -> Reading | None:
    """Return the reading that flow vectors are compared with at a level, if it was taken."""
    which, dense = config.method.reference, record.dense.readings
    if which == "pruned":
        return record.levels[level - 1].readings[0]
    if which == "trained":
        before = [one for one in record.levels[: level - 1] if one.passes > 0]
        return next(reversed(before[-1].readings if before else dense), None)
    place = config.dense.warmup if which == "warm-up" else config.dense.passes
    return next((reading for reading in dense if reached(reading.passes, place)), None)
