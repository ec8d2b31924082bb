"""The levels of full records, with what became of the held-out metric in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from infcop.core.records import LevelRecord, Reading
from infcop.core.replay import Course, ReplayedRecord
from infcop.errors import ConfigError
from infcop.stopping.rule import reached
from infcop.study.full_records import FullRecord, trained_readings
from infcop.study.recovery import deficits, end_of, is_within, noise_of, recovered_at

__all__ = ["FullCourse", "courses_of", "fixed_losses", "lost_by_fixed", "replayed_record"]

_PLACES = 60
"""Budgets at which the loss of a fixed one is drawn."""


@dataclass(frozen=True)
class FullCourse:
    """A level of a record and how its metric went."""

    full: FullRecord
    level: LevelRecord
    readings: tuple[Reading, ...]
    """While it trained."""
    deficit: tuple[float, ...]
    """At each of them; NaN where it is not known."""
    tolerance: float
    facts: Course

    def lost(self, reading: Reading) -> float | None:
        """Return how much worse the metric is at a reading than at the end of the level."""
        (found,) = deficits(_metric([reading]), self.facts.end, self.full.sign)
        return found if math.isfinite(found) else None


def courses_of(full: FullRecord, tolerance: float | None) -> list[FullCourse]:
    """Return the courses of all levels that have stopped.

    Args:
        full: The record.
        tolerance: In the metric's units; by default twice the noise of the record.

    Raises:
        ConfigError: The tolerance is negative or not finite.
    """
    if tolerance is None:
        tolerance = 2 * noise_of([_metric(trained_readings(level)) for level in full.levels])
    elif not (tolerance >= 0 and math.isfinite(tolerance)):
        raise ConfigError(
            f"replay: expected a finite tolerance of at least 0, in the units of the metric, got "
            f"{tolerance}; leave it out for twice the noise of the metric"
        )
    return [_course(full, level, tolerance) for level in full.levels]


def replayed_record(full: FullRecord, courses: Sequence[FullCourse]) -> ReplayedRecord:
    """Return what is told of a record."""
    metrics = [value for course in courses for value in _metric(course.readings)]
    return ReplayedRecord(
        name=full.name,
        model=full.record.model.name,
        data=full.record.data.name,
        levels=len(courses),
        readings=len(metrics),
        budget=full.config.levels.max_passes,
        tolerance=courses[0].tolerance,
        finished=len(full.levels) == len(full.record.levels) and full.record.outcome is not None,
        not_finite=sum(not math.isfinite(value) for value in metrics),
    )


def fixed_losses(courses: Sequence[FullCourse]) -> tuple[tuple[float, float], ...]:
    """Return what fixed budgets lose, from the first readings to the shortest whole budget."""
    shortest = max(course.readings[0].passes for course in courses)
    longest = min(course.readings[-1].passes for course in courses)
    places = np.linspace(shortest, max(shortest, longest), _PLACES).tolist()
    found = [(passes, lost_by_fixed(courses, passes)) for passes in dict.fromkeys(places)]
    return tuple((passes, lost) for passes, lost in found if lost is not None)


def lost_by_fixed(courses: Sequence[FullCourse], passes: float) -> float | None:
    """Return what the same number of passes at every level loses, on average over the levels.

    Between two readings the deficit is taken on a straight line. None before the first reading.
    """
    found = []
    for course in courses:
        known = [
            (reading.passes, deficit)
            for reading, deficit in zip(course.readings, course.deficit, strict=True)
            if math.isfinite(deficit)
        ]
        if not known:
            continue
        if not reached(passes, course.readings[0].passes):
            return None
        places, values = zip(*known, strict=True)
        found.append(float(np.interp(passes, places, values)))
    return fmean(found) if found else None


def _course(full: FullRecord, level: LevelRecord, tolerance: float) -> FullCourse:
    readings = trained_readings(level)
    metric = _metric(readings)
    end = end_of(metric)
    deficit = deficits(metric, end, full.sign)
    first = level.readings[0]
    shock = deficits(_metric([first]), end, full.sign)[0]
    return FullCourse(
        full=full,
        level=level,
        readings=readings,
        deficit=tuple(deficit),
        tolerance=tolerance,
        facts=Course(
            record=full.name,
            level=level.level,
            density=level.density,
            end=end,
            recovered=recovered_at([r.passes for r in readings], deficit, tolerance),
            spared=first.phase == "pruned" and is_within(shock, tolerance),
        ),
    )


def _metric(readings: Sequence[Reading]) -> list[float]:
    return [math.nan if reading.main is None else reading.main for reading in readings]
