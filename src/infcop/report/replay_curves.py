"""Metric and distances along a level, all on one scale: a small panel for each level."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from infcop.core.replay import Curves, Replay
from infcop.report import drawing, words
from infcop.report.compare_figure import LegendEntry, Panel
from infcop.report.drawing import canvas, label
from infcop.report.replay_words import loss, metric_name, number

__all__ = ["curve_legend", "curve_panels"]

_COLOURS = (drawing.VERMILION, drawing.PURPLE, drawing.BLUE, drawing.GREEN, drawing.ORANGE)
_LINE = "M0 5.5H14V8.5H0Z"


def curve_legend(replay: Replay) -> list[LegendEntry]:
    """Return how the metric and each distance is drawn, the same in every panel."""
    names = dict.fromkeys(name for curves in replay.curves for name in curves.distances)
    first = LegendEntry(f"{metric_name(replay)} lacking", drawing.INK, "", _LINE)
    return [
        first,
        *(
            LegendEntry(name, _COLOURS[place % len(_COLOURS)], "", _LINE)
            for place, name in enumerate(names)
        ),
    ]


def curve_panels(replay: Replay) -> list[Panel]:
    """Draw the chosen levels, each curve as a share of its largest value in the level."""
    return [_panel(replay, curves, f"curve-{k}") for k, curves in enumerate(replay.curves)]


def _panel(replay: Replay, curves: Curves, key: str) -> Panel:
    plot = canvas(260, "training passes of the level", "share of the largest")
    colours = {entry.method: entry.colour for entry in curve_legend(replay)}
    for name, values in curves.distances.items():
        told = [number(value) for value in values]
        plot.add_trace(_line(curves, values, told, name, colours[name], 1.5))
    told = [loss(replay, value) for value in curves.deficit]
    lacking = f"{metric_name(replay)} lacking"
    plot.add_trace(_line(curves, curves.deficit, told, lacking, drawing.INK, 2.5))
    if curves.recovered is not None:
        line = {"color": drawing.GREY, "width": 1, "dash": "dot"}
        plot.add_vline(x=curves.recovered, line=line)
    plot.update_layout(showlegend=False)
    plot.update_xaxes(rangemode="tozero")
    where = f"level {curves.level}, density {words.percent(curves.density)}"
    known = [value for value in curves.deficit if value is not None]
    if not known or curves.recovered is None:
        caption = "The metric is not finite."
    else:
        caption = (
            f"Lacks {loss(replay, known[0])} at first, recovered after "
            f"{words.plural(curves.recovered, 'pass')}."
        )
    return Panel(
        key=key,
        heading=f"{where[0].upper()}{where[1:]}",
        finding=caption,
        caption=caption,
        plot=plot,
    )


def _line(
    curves: Curves,
    values: tuple[float | None, ...],
    told: list[str],
    name: str,
    colour: str,
    width: float,
) -> Any:
    largest = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
    return go.Scatter(
        x=list(curves.passes),
        y=[None if value is None else value / largest for value in values],
        name=label(name),
        mode="lines",
        line={"color": colour, "width": width},
        hovertext=[f"{label(name)}<br>{value}" for value in told],
        hovertemplate="%{hovertext}<br>after %{x:.3g} passes<extra></extra>",
    )
