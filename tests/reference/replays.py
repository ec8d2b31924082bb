"""Full records made up for tests, so small that every answer is known by head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infcop.core.config import RunConfig
from infcop.core.records import (
    Comparison,
    DataFacts,
    LevelRecord,
    ModelFacts,
    PhaseRecord,
    Reading,
    RunRecord,
    StopDecision,
    StopReason,
)

__all__ = ["away", "dense_reading", "full_record", "level_of"]


def away(distance: float) -> Comparison:
    """Return a comparison of two states that lie so far apart, by the Frobenius distance."""
    return Comparison(difference=(distance**2,), present=(1.0,), reference=(1.0,))


def dense_reading(passes: float, main: float, moved: float | None = None) -> Reading:
    """Return a reading of the dense training, which has moved so far since the one before."""
    return Reading(
        phase="dense",
        level=0,
        passes=passes,
        main=main,
        flows={"information.signed": (0.5, 0.0), "gradient.norm": (1.0,)},
        comparisons={} if moved is None else {"last": away(moved)},
    )


def level_of(
    level: int,
    metric: Sequence[float],
    *,
    shock: float = 0.5,
    pruned: float = 0.1,
    distances: Sequence[float] | None = None,
    unit: float = 1.0,
    stopped: bool = True,
    **changes: Any,
) -> LevelRecord:
    """Return a level that was read every ``unit`` passes.

    Args:
        level: Its number.
        metric: The held-out metric at every reading.
        shock: Distance from the trained network right after pruning.
        pruned: The metric right after pruning.
        distances: From the trained network, at every reading; by default what the metric lacks of
            1. The signed flow lies as far from the dense one.
        unit: Passes between readings.
        stopped: Whether the level has ended, after its last reading.
        changes: Fields of every reading.
    """
    distances = [1 - value for value in metric] if distances is None else distances
    readings = [
        Reading(
            phase="pruned",
            level=level,
            passes=0,
            main=pruned,
            flows={"information.signed": (0.5, shock), "gradient.norm": (1.0,)},
            comparisons={"trained": away(shock)},
        )
    ]
    for place, (value, distance) in enumerate(zip(metric, distances, strict=True), start=1):
        reading = Reading(
            phase="level",
            level=level,
            passes=unit * place,
            main=value,
            train_loss=1 / place,
            flows={"information.signed": (0.5, distance), "gradient.norm": (2.0,)},
            comparisons={"trained": away(distance)},
            mask_change=None if place == 1 else 0.1 / place,
        )
        readings.append(reading.model_copy(update=changes))
    budget = StopDecision(stop=True, reason=StopReason.BUDGET)
    return LevelRecord(
        level=level,
        kept=100 - level,
        density=0.8**level,
        kept_per_layer={"fc.weight": 100 - level},
        removed=1,
        rewound_to="epoch",
        readings=tuple(readings),
        stopped_by=budget if stopped else None,
    )


def full_record(
    *levels: LevelRecord,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    dense: Sequence[Reading] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Return a record with these levels.

    Args:
        levels: From 1 on.
        metric: Name of the main metric.
        higher_is_better: Its direction.
        dense: Readings of the dense training; by default four that lie 0.2 apart.
        settings: Groups of settings that differ.
    """
    if dense is None:
        dense = [dense_reading(1, 0.7), *(dense_reading(p, 0.8, 0.2) for p in (2, 3, 4))]
    budget = max((level.passes for level in levels), default=4.0)
    config = {
        "method": {"name": "lth", "flow": {"every_reading": True}},
        "dense": {"passes": 4},
        "levels": {"max_passes": budget},
        **(settings or {}),
    }
    return RunRecord(
        config=RunConfig.model_validate(config).model_dump(mode="json"),
        versions={},
        hardware={},
        model=ModelFacts(name="net", parameters=100, prunable={"fc.weight": (10, 10)}),
        data=DataFacts(
            name="digits",
            train=100,
            probe=10,
            held_out=10,
            test=0,
            main_metric=metric,
            higher_is_better=higher_is_better,
        ),
        dense=PhaseRecord(readings=tuple(dense)),
        reference=dense[-1] if dense else None,
        levels=levels,
    )
