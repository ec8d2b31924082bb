"""Every distance that a full record can give, and how it goes with the deficit of the metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import get_args

from infcop.core.comparison import ANCHORS, Anchor, Measure, Units, comparison_name, distance
from infcop.core.records import FLOWS
from infcop.core.replay import Correlation, Curves
from infcop.pipeline.stop_context import reference_reading
from infcop.stopping.flow import flow_distance
from infcop.study.courses import FullCourse
from infcop.study.rank import spearman

__all__ = ["CLOCK", "LOSS", "MASK", "correlations", "curves", "distances"]

MASK = "mask change"
LOSS = "training loss"
CLOCK = "passes left"
"""What no measuring is needed for: a distance that tells no more is worth nothing."""

_FEWEST = 3
"""Readings below which ranks say nothing."""

_PANELS = 6

Series = tuple[float | None, ...]


def distances(course: FullCourse) -> dict[str, Series]:
    """Return every distance at each reading of a level, None where it was not measured."""
    warmed_apart = course.full.config.dense.warmup < course.full.config.dense.passes
    anchors = [anchor for anchor in ANCHORS if warmed_apart or anchor != "warm-up"]
    found = dict(
        [*_matrices(course, anchors), *_vectors(course, [a for a in anchors if a != "last"])]
    )
    found[MASK] = tuple(reading.mask_change for reading in course.readings)
    found[LOSS] = tuple(reading.train_loss for reading in course.readings)
    budget = course.full.config.levels.max_passes
    found[CLOCK] = tuple(budget - reading.passes for reading in course.readings)
    return {name: series for name, series in found.items() if any(v is not None for v in series)}


def correlations(courses: Sequence[FullCourse]) -> tuple[Correlation, ...]:
    """Return Spearman's correlation of each distance with the deficit, averaged over levels.

    The closest come first. Levels that lack a distance altogether do not count in any way.
    """
    measured = [(course, distances(course)) for course in courses]
    names = list(dict.fromkeys(name for _, found in measured for name in found))
    told = [_correlation(name, measured) for name in names]
    return tuple(sorted(told, key=lambda one: -2.0 if one.mean is None else one.mean, reverse=True))


def curves(courses: Sequence[FullCourse], names: Sequence[str]) -> tuple[Curves, ...]:
    """Return the chosen distances along a few levels of the first record, evenly spread."""
    own = [course for course in courses if course.full is courses[0].full]
    count = min(len(own), _PANELS)
    places = {round(k * (len(own) - 1) / max(count - 1, 1)) for k in range(count)}
    return tuple(_curves(own[place], names) for place in sorted(places))


def _curves(course: FullCourse, names: Sequence[str]) -> Curves:
    found = distances(course)
    return Curves(
        record=course.facts.record,
        level=course.facts.level,
        density=course.facts.density,
        recovered=course.facts.recovered,
        passes=tuple(reading.passes for reading in course.readings),
        deficit=_finite(course.deficit),
        distances={name: _finite(found[name]) for name in names if name in found},
    )


def _matrices(course: FullCourse, anchors: Sequence[Anchor]) -> Iterator[tuple[str, Series]]:
    kinds: tuple[Units, ...] = get_args(Units)
    measures: tuple[Measure, ...] = get_args(Measure)
    for anchor in anchors:
        for units in kinds:
            name = comparison_name(anchor, units)
            for measure in measures:
                yield (
                    f"{measure} to {name}",
                    tuple(
                        distance(reading.comparisons[name], measure)
                        if name in reading.comparisons
                        else None
                        for reading in course.readings
                    ),
                )


def _vectors(course: FullCourse, anchors: Sequence[Anchor]) -> Iterator[tuple[str, Series]]:
    record, config = course.full.record, course.full.config
    for anchor in anchors:
        method = config.method.model_copy(update={"reference": anchor})
        own = config.model_copy(update={"method": method})
        reference = reference_reading(record, own, course.level.level)
        for flow in FLOWS:
            yield (
                f"{flow} to {anchor}",
                tuple(
                    flow_distance(reading.flows[flow], reference.flows[flow])
                    if reference is not None and flow in reading.flows and flow in reference.flows
                    else None
                    for reading in course.readings
                ),
            )


def _correlation(
    name: str, measured: Sequence[tuple[FullCourse, dict[str, Series]]]
) -> Correlation:
    values: list[float] = []
    constant = short = not_finite = 0
    for course, found in measured:
        if name not in found:
            continue
        pairs = [
            (value, deficit)
            for value, deficit in zip(found[name], course.deficit, strict=True)
            if value is not None
        ]
        not_finite += sum(not math.isfinite(value) for value, _ in pairs)
        known = [pair for pair in pairs if all(map(math.isfinite, pair))]
        if len(known) < _FEWEST:
            short += 1
            continue
        first, second = zip(*known, strict=True)
        if (value := spearman(first, second)) is None:
            constant += 1
        else:
            values.append(value)
    return Correlation(
        name=name,
        mean=fmean(values) if values else None,
        lowest=min(values, default=None),
        levels=len(values),
        constant=constant,
        short=short,
        not_finite=not_finite,
    )


def _finite(values: Sequence[float | None]) -> Series:
    return tuple(v if v is not None and math.isfinite(v) else None for v in values)
