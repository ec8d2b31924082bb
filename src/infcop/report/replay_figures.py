"""The figures of a replay: what rules spend and lose, and where they stop against recovery."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import plotly.graph_objects as go

from infcop.core.replay import Replay, ReplayedRule
from infcop.report import drawing, words
from infcop.report.compare_figure import Panel
from infcop.report.drawing import Figure, canvas, label
from infcop.report.heat import Grid, heat_map
from infcop.report.replay_tables import rule_table
from infcop.report.replay_words import (
    better_than_fixed,
    is_share,
    kind_of,
    loss,
    metric_name,
    number,
)
from infcop.report.tables import Table

__all__ = ["loss_figure", "stop_figure", "stop_panels"]

_PANELS = 12
_ROW_PIXELS = 17


class _Look(NamedTuple):
    name: str
    colour: str
    symbol: str


_INFORMATION = _Look("information flow", drawing.BLUE, "circle")
_GRADIENT = _Look("gradient flow", drawing.PURPLE, "square")
_MATRICES = _Look("matrices", drawing.VERMILION, "diamond")
_METRIC = _Look("metric or loss", drawing.INK, "triangle-up")
_TOGETHER = _Look("several together", drawing.ORANGE, "x")
_LOOKS = {
    "information-flow": _INFORMATION,
    "relative-information-flow": _INFORMATION,
    "gradient-flow": _GRADIENT,
    "relative-gradient-flow": _GRADIENT,
    "matrix-flow": _MATRICES,
    "shock-budget": _MATRICES,
    "settling": _MATRICES,
    "mask-distance": _Look("mask", drawing.GREEN, "pentagon"),
    "accuracy-target": _METRIC,
    "plateau": _METRIC,
    "loss-plateau": _METRIC,
    "any-of": _TOGETHER,
    "all-of": _TOGETHER,
    "fixed-budget": _Look("fixed budget", drawing.GREY, "circle"),
}


def loss_figure(replay: Replay) -> Figure:
    """Draw what each rule spends and loses, and what fixed budgets do."""
    scale, unit = (100, "points") if is_share(replay) else (1, replay.main_metric.replace("_", " "))
    plot = canvas(420, "training passes per level", f"{unit} lost")
    plot.add_trace(_fixed_line(replay, scale))
    groups: dict[_Look, list[ReplayedRule]] = defaultdict(list)
    for rule in replay.rules:
        if rule.lost is not None:
            groups[_LOOKS[kind_of(rule.rule.stop)]].append(rule)
    for look, rules in groups.items():
        plot.add_trace(_points(replay, look, rules, scale))
    plot.add_hline(y=0, line={"color": drawing.GREY, "width": 1}, layer="below")
    plot.update_xaxes(rangemode="tozero")
    return Figure(
        key="losses",
        heading="What every rule spends, and what it loses",
        finding=better_than_fixed(replay),
        reading=(
            f"A point is a rule: the passes it gives to a level, and the {metric_name(replay)} "
            "that the level lacks there against its end, both on average over all levels. The "
            "line is a fixed budget, the same at every level. A rule below it spends its passes "
            "where they are needed."
        ),
        plot=plot,
        table=rule_table(replay),
    )


def stop_figure(replay: Replay) -> Figure:
    """Draw for every rule and level how far its stop lies from recovery, as a heat map."""
    several = len(replay.records) > 1
    grid = Grid(
        rows=[rule.label for rule in replay.rules],
        columns=[
            f"{course.record}, level {course.level}" if several else str(course.level)
            for course in replay.courses
        ],
        values=[_wasted(replay, rule) for rule in replay.rules],
        show=number,
    )
    across = "level, counted over all records" if several else "level"
    plot = heat_map(grid, x=across, y="", diverging=True, ruled=False)
    # Every rule has its name, however many there are.
    plot.update_layout(height=110 + _ROW_PIXELS * len(grid.rows))
    names = [label(name) for name in grid.rows]
    plot.update_yaxes(tickvals=list(range(len(names))), ticktext=names, tickfont={"size": 11})
    return Figure(
        key="stops",
        heading="Where every rule stops, level by level",
        finding=_stop_finding(replay),
        reading=(
            "Passes from the place where the metric had recovered to the place where the rule "
            "stops. Orange: trained on for nothing; blue: stopped too early; near white: at the "
            "right place. Grey: not known."
        ),
        plot=plot,
        table=Table(
            headings=("rule", *grid.columns),
            rows=tuple(
                (name, *("" if math.isnan(value) else number(value) for value in row))
                for name, row in zip(grid.rows, grid.values, strict=True)
            ),
        ),
    )


def stop_panels(replay: Replay) -> list[Panel]:
    """Draw stop against recovery, a panel for each rule, or for the nearest rule of each kind."""
    return [
        _stop_panel(replay, rule, f"stop-{place}") for place, rule in enumerate(_chosen(replay))
    ]


def _chosen(replay: Replay) -> list[ReplayedRule]:
    known = [rule for rule in replay.rules if rule.wasted is not None]
    if len(known) <= _PANELS:
        return known
    nearest: dict[str, ReplayedRule] = {}
    for rule in known:
        kind = kind_of(rule.rule.stop)
        if kind not in nearest or _distance(rule) < _distance(nearest[kind]):
            nearest[kind] = rule
    return sorted(nearest.values(), key=_distance)[:_PANELS]


def _distance(rule: ReplayedRule) -> float:
    """Return how far from recovery a rule stops on average, on either side."""
    return fmean(abs(level.wasted) for level in rule.levels if level.wasted is not None)


def _stop_panel(replay: Replay, rule: ReplayedRule, key: str) -> Panel:
    places: dict[tuple[float, float], list[str]] = defaultdict(list)
    for level in rule.levels:
        if level.recovered is not None:
            name = f"{level.record}, level {level.level}"
            places[level.recovered, level.passes].append(name)
    most = max(record.budget for record in replay.records)
    plot = canvas(260, "recovered after", "stops after")
    plot.add_trace(
        go.Scatter(
            x=[0, most],
            y=[0, most],
            mode="lines",
            line={"color": drawing.GREY, "width": 1, "dash": "dot"},
            hoverinfo="skip",
        )
    )
    look = _LOOKS[kind_of(rule.rule.stop)]
    plot.add_trace(
        go.Scatter(
            x=[x for x, _ in places],
            y=[y for _, y in places],
            mode="markers",
            marker={
                "color": look.colour,
                "opacity": 0.75,
                "size": [6 + 4 * math.sqrt(len(names)) for names in places.values()],
            },
            hovertext=[_hover(names, *place) for place, names in places.items()],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    margin = 0.05 * most
    plot.update_xaxes(range=[-margin, most + margin], nticks=6)
    plot.update_yaxes(range=[-margin, most + margin], nticks=6)
    plot.update_layout(showlegend=False)
    wasted = [level.wasted for level in rule.levels if level.wasted is not None]
    early, late = sum(w < 0 for w in wasted), sum(w > 0 for w in wasted)
    caption = (
        f"{words.plural(early, 'level')} too early, {late} too late, "
        f"{len(wasted) - early - late} in place. Loses {loss(replay, rule.lost)}."
    )
    return Panel(key=key, heading=rule.label, finding=caption, caption=caption, plot=plot)


def _hover(names: Sequence[str], recovered: float, stop: float) -> str:
    told = "<br>".join(map(label, names[:8])) + ("<br>and more" if len(names) > 8 else "")
    return f"{told}<br>recovered after {words.passes(recovered)}, stops after {words.passes(stop)}"


def _wasted(replay: Replay, rule: ReplayedRule) -> list[float]:
    found = {(level.record, level.level): level.wasted for level in rule.levels}
    values = [found.get((course.record, course.level)) for course in replay.courses]
    return [math.nan if value is None else value for value in values]


def _fixed_line(replay: Replay, scale: float) -> Any:
    return go.Scatter(
        x=[passes for passes, _ in replay.fixed],
        y=[scale * lost for _, lost in replay.fixed],
        name="any fixed budget",
        mode="lines",
        line={"color": drawing.GREY, "width": 2},
        hoverinfo="skip",
    )


def _points(replay: Replay, look: _Look, rules: Sequence[ReplayedRule], scale: float) -> Any:
    return go.Scatter(
        x=[rule.passes for rule in rules],
        y=[scale * (rule.lost or 0.0) for rule in rules],
        name=look.name,
        mode="markers",
        cliponaxis=False,
        marker={"color": look.colour, "symbol": look.symbol, "size": 9, "opacity": 0.85},
        hovertext=[
            f"{label(rule.label)}<br>{words.plural(rule.passes, 'pass')}, loses "
            f"{loss(replay, rule.lost)}"
            for rule in rules
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _stop_finding(replay: Replay) -> str:
    known = [rule for rule in replay.rules if rule.wasted is not None]
    if not known:
        return "At no level is it known where the metric had recovered."
    best = min(known, key=_distance)
    return (
        f"{best.label} stops nearest to recovery: {number(_distance(best))} passes away from it, "
        "to either side, on average over the levels."
    )
