"""The figure of accuracy against density."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from infcop.core.records import LevelRecord, RunRecord
from infcop.report import drawing, words
from infcop.report.drawing import Figure, Omitted, canvas
from infcop.report.spending import dense_main, main_after_pruning, main_at_end
from infcop.report.tables import Table

__all__ = ["accuracy_figure"]

_Point = tuple[float, float | None]


def accuracy_figure(record: RunRecord) -> Figure | Omitted:
    """Draw the held-out main metric against density: after pruning, after training, at the end."""
    name = record.data.main_metric.replace("_", " ")
    heading = f"{name[:1].upper()}{name[1:]} against density"
    pruned = [(x.density, main_after_pruning(x)) for x in record.levels]
    trained = [(x.density, main_at_end(x)) for x in record.levels]
    if not any(y is not None for _, y in (*pruned, *trained)):
        return Omitted(heading, "no level has been evaluated on held-out data")
    unit = " (%)" if words.is_share(record.data) else ""
    plot = canvas(360, "weights kept (%)", f"held-out {name}{unit}")
    dense = dense_main(record)
    lowest = min(level.density for level in record.levels)
    if dense is not None:
        ends = [(1.0, dense), (lowest, dense)]
        plot.add_trace(
            _line(record, ends, "dense network", drawing.GREY, mode="lines", dash="dash")
        )
    plot.add_trace(_line(record, pruned, "right after pruning", drawing.ORANGE, fill="white"))
    plot.add_trace(_line(record, trained, "at the end of the level", drawing.BLUE))
    if record.final and record.final.readings:
        point = (record.levels[-1].density, record.final.readings[-1].main)
        plot.add_trace(_final(record, point))
    plot.update_xaxes(type="log", **_density_axis(lowest))
    return Figure(
        key="accuracy",
        heading=heading,
        finding=_accuracy_finding(record, name),
        reading=(
            "From left to right the network gets sparser. Each level first prunes (open circles), "
            "then trains until its rule says stop (full circles). Held-out examples are used for "
            "decisions and never trained on; the test split is kept for the answer above."
        ),
        plot=plot,
        table=_accuracy_table(record, name),
    )


def _line(
    record: RunRecord,
    points: Sequence[_Point],
    name: str,
    colour: str,
    *,
    mode: str = "lines+markers",
    fill: str | None = None,
    dash: str = "solid",
) -> Any:
    scale = 100 if words.is_share(record.data) else 1
    return go.Scatter(
        x=[100 * x for x, _ in points],
        y=[None if y is None or not math.isfinite(y) else scale * y for _, y in points],
        name=name,
        mode=mode,
        line={"color": colour, "dash": dash, "width": 2},
        marker={"size": 9, "color": fill or colour, "line": {"color": colour, "width": 2}},
        hovertext=[f"{words.percent(x)} kept: {words.metric(record.data, y)}" for x, y in points],
        hovertemplate=f"{name}<br>%{{hovertext}}<extra></extra>",
    )


def _final(record: RunRecord, point: _Point) -> Any:
    trace = _line(record, [point], "after the final training", drawing.GREEN, mode="markers")
    return trace.update(marker={"symbol": "star", "size": 16, "line": {"width": 0}})


def _density_axis(lowest: float) -> dict[str, Any]:
    """Return a logarithmic axis from 100 % down, with as many ticks as a small screen takes."""
    ticks = _ticks_above(100 * lowest)
    return {
        "range": [math.log10(112), math.log10(100 * lowest * 0.88)],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _ticks_above(lowest: float) -> list[float]:
    if lowest > 40:
        return [float(tick) for tick in range(100, int(lowest), -10)]
    for leading in ((5, 2, 1), (3, 1), (1,)):
        decades = [10.0**power for power in range(2, -9, -1)]
        ticks = [lead * decade for decade in decades for lead in leading]
        shown = [tick for tick in ticks if 0.88 * lowest <= tick <= 100]
        if len(shown) <= 7:
            break
    return shown


def _accuracy_finding(record: RunRecord, name: str) -> str:
    data = record.data
    dense = dense_main(record)
    parts = ["No dense network was trained"]
    if dense is not None:
        early = ", whose training stopped early," if record.dense.stopped_by else ""
        value = words.metric(data, dense)
        parts = [f"The dense network{early} has a held-out {name} of {value}"]
    for place, value_of in (
        ("right after pruning", main_after_pruning),
        ("at the end of a level", main_at_end),
    ):
        worst = _worst(record, value_of)
        if worst is not None:
            value = words.metric(data, value_of(worst))
            where = f"level {worst.level}, {words.percent(worst.density)} of the weights kept"
            parts.append(f"The worst value {place} is {value} ({where})")
    if record.final and record.final.readings:
        value = words.metric(data, record.final.readings[-1].main)
        parts.append(f"After the final training it is {value}")
    return ". ".join(parts) + "."


def _worst(
    record: RunRecord, value_of: Callable[[LevelRecord], float | None]
) -> LevelRecord | None:
    sign = 1 if record.data.higher_is_better else -1
    measured = [
        (sign * value, -level.level, level)
        for level in record.levels
        if (value := value_of(level)) is not None and math.isfinite(value)
    ]
    return min(measured)[2] if measured else None


def _accuracy_table(record: RunRecord, name: str) -> Table:
    data = record.data
    rows = [("dense", words.percent(1.0), "", words.metric(data, dense_main(record)))]
    rows += [
        (
            str(level.level),
            words.percent(level.density),
            words.metric(data, main_after_pruning(level)),
            words.metric(data, main_at_end(level)),
        )
        for level in record.levels
    ]
    if record.final and record.final.readings:
        end = words.metric(data, record.final.readings[-1].main)
        rows.append(("final", words.percent(record.levels[-1].density), "", end))
    return Table(
        headings=("level", "density", f"{name} after pruning", f"{name} after training"),
        rows=tuple(rows),
    )
