"""The figure of the distance that a flow rule compares with its threshold."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import plotly.graph_objects as go

from infcop.core.records import LevelRecord, RunRecord
from infcop.report import drawing, words
from infcop.report.decisions import compared_distance
from infcop.report.drawing import Figure, Omitted, canvas
from infcop.report.tables import Table

__all__ = ["distance_figure"]

_HEADING = "Distance of the flow from its reference"


class _Comparison(NamedTuple):
    level: int
    place: float
    """Training passes since the first level began."""
    passes: float
    """Training passes since this level began."""
    distance: float
    threshold: float
    stopped: bool


def distance_figure(record: RunRecord) -> Figure | Omitted:
    """Draw distance and threshold of every decision against the training of all levels."""
    compared = _comparisons(record)
    if not compared:
        return Omitted(_HEADING, "the stop rule has compared no flow with a threshold")
    plot = canvas(340, "training passes over all levels", "distance")
    size = 9 if len(compared) <= 60 else 6
    plot.add_trace(_threshold_line(compared))
    plot.add_trace(_distance_line(compared))
    plot.add_trace(_marks([x for x in compared if not x.stopped], "level goes on", "white", size))
    plot.add_trace(_marks([x for x in compared if x.stopped], "level stops", drawing.BLUE, size))
    _name_levels(plot, record)
    plot.update_yaxes(rangemode="tozero")
    return Figure(
        key="distance",
        heading=_HEADING,
        finding=_finding(compared),
        reading=(
            "How far the flow of the sparse network lies from that of the reference, at each "
            "reading: the dense network, or the network as it was last trained. Below the "
            "threshold a level need not train, or not train on; readings without a comparison "
            "are left out. Numbers along the top name the levels."
        ),
        plot=plot,
        table=Table(
            headings=("level", "decision", "passes", "distance", "threshold"),
            rows=tuple(_cells(comparison) for comparison in compared),
            text=frozenset({0, 1}),
        ),
    )


def _comparisons(record: RunRecord) -> list[_Comparison]:
    found: list[_Comparison] = []
    before = 0.0
    for level in record.levels:
        found += _of_level(level, before)
        before += level.passes
    return found


def _of_level(level: LevelRecord, before: float) -> list[_Comparison]:
    return [
        _Comparison(
            level.level, before + reading.passes, reading.passes, *compared, reading.decision.stop
        )
        for reading in level.readings
        if reading.decision and (compared := compared_distance(reading.decision))
    ]


def _distance_line(compared: list[_Comparison]) -> Any:
    x, y = _broken_between_levels(compared, [_drawable(c.distance) for c in compared])
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": drawing.BLUE, "width": 2},
        showlegend=False,
        hoverinfo="skip",
    )


def _threshold_line(compared: list[_Comparison]) -> Any:
    x, y = _broken_between_levels(compared, [_drawable(c.threshold) for c in compared])
    return go.Scatter(
        x=x,
        y=y,
        name="threshold",
        mode="lines+markers" if len(compared) == 1 else "lines",
        connectgaps=True,
        line={"color": drawing.VERMILION, "width": 2, "dash": "dash"},
        hovertemplate="threshold %{y:.3g}<extra></extra>",
    )


def _broken_between_levels(
    compared: list[_Comparison], values: list[float | None]
) -> tuple[list[float | None], list[float | None]]:
    x: list[float | None] = []
    y: list[float | None] = []
    previous = compared[0].level
    for comparison, value in zip(compared, values, strict=True):
        if comparison.level != previous:
            x.append(None)
            y.append(None)
        x.append(comparison.place)
        y.append(value)
        previous = comparison.level
    return x, y


def _marks(compared: list[_Comparison], name: str, fill: str, size: int) -> Any:
    return go.Scatter(
        x=[c.place for c in compared],
        y=[_drawable(c.distance) for c in compared],
        name=name,
        mode="markers",
        marker={"color": fill, "size": size, "line": {"color": drawing.BLUE, "width": 2}},
        hovertext=[
            f"level {c.level}, after {words.plural(c.passes, 'pass')}<br>distance "
            f"{words.number(c.distance)}, threshold {words.number(c.threshold)}"
            for c in compared
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _name_levels(plot: go.Figure, record: RunRecord) -> None:
    """Mark where levels begin and name as many of them as fit."""
    step = -(-len(record.levels) // 12)
    total = sum(level.passes for level in record.levels)
    begin, named = 0.0, -math.inf
    for index, level in enumerate(record.levels):
        plot.add_vline(x=begin, line={"color": "#D1D5DB", "width": 1}, layer="below")
        middle = begin + level.passes / 2
        if index % step == 0 and middle - named > total / 24:
            plot.add_annotation(
                x=middle, y=1, yref="paper", yanchor="top", text=str(level.level), showarrow=False
            )
            named = middle
        begin += level.passes


def _finding(compared: list[_Comparison]) -> str:
    firsts = {c.level: c for c in reversed(compared)}
    at_once = sum(c.distance < c.threshold for c in firsts.values())
    lasts = {c.level: c for c in compared}
    below = sum(c.distance < c.threshold for c in lasts.values())
    unusable = sum(not math.isfinite(c.distance) for c in compared)
    sentences = [
        f"The distance was below the threshold at the last reading of {below} of "
        f"{words.plural(len(lasts), 'level')}, and already at the first reading of {at_once}"
    ]
    finite = [c for c in compared if math.isfinite(c.distance)]
    if finite:
        high = max(finite, key=lambda c: c.distance)
        sentences.append(
            f"The largest was {words.number(high.distance)}, at level {high.level} after "
            f"{words.plural(high.passes, 'pass')}"
        )
    if unusable:
        sentences.append(f"{words.plural(unusable, 'reading')} without a finite distance left out")
    return ". ".join(sentences) + "."


def _cells(comparison: _Comparison) -> tuple[str, ...]:
    return (
        str(comparison.level),
        "stop" if comparison.stopped else "go on",
        words.passes(comparison.passes),
        words.number(comparison.distance),
        words.number(comparison.threshold),
    )


def _drawable(value: float) -> float | None:
    return value if math.isfinite(value) else None
