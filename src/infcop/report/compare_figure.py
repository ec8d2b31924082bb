"""The Pareto picture of a comparison: a small panel for each density of a setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from infcop.core.study import Estimate, StudyCell, StudyResults
from infcop.report import drawing, words
from infcop.report.compare_words import dense_value, density_name, main_name, main_value
from infcop.report.drawing import canvas, label

__all__ = ["LegendEntry", "Panel", "legend", "pareto_panels"]

_COLOURS = (
    drawing.BLUE,
    drawing.VERMILION,
    drawing.GREEN,
    drawing.PURPLE,
    drawing.ORANGE,
    drawing.INK,
)
_SYMBOLS = {
    "circle": "M12 7A5 5 0 1 1 2 7A5 5 0 1 1 12 7Z",
    "square": "M2.5 2.5H11.5V11.5H2.5Z",
    "diamond": "M7 1L13 7L7 13L1 7Z",
    "triangle-up": "M7 1.5L13 12.5H1Z",
    "x": "M3.5 1L7 4.5L10.5 1L13 3.5L9.5 7L13 10.5L10.5 13L7 9.5L3.5 13L1 10.5L4.5 7L1 3.5Z",
}
"""Names that plotly draws, with the outline that the legend shows; there are five of them and six
colours, so thirty methods look different, and a print in grey still tells five apart."""


class LegendEntry(NamedTuple):
    """How a method is drawn."""

    method: str
    colour: str
    symbol: str
    outline: str


class Panel(NamedTuple):
    """A small drawing, and what it shows."""

    key: str
    """Names the element of the page."""
    heading: str
    finding: str
    """All that a screen reader gets."""
    caption: str
    plot: go.Figure


def legend(results: StudyResults) -> list[LegendEntry]:
    """Return how each method is drawn, the same in every panel."""
    symbols = list(_SYMBOLS.items())
    return [
        LegendEntry(method, _COLOURS[place % len(_COLOURS)], *symbols[place % len(symbols)])
        for place, method in enumerate(results.config.methods)
    ]


def pareto_panels(results: StudyResults, setting: str) -> list[Panel]:
    """Draw the main metric against cost, a panel for each density that has results."""
    panels = []
    for place, density in enumerate(results.config.densities):
        cells = [c for c in results.cells if (c.setting, c.density) == (setting, density)]
        if cells:
            key = f"panel-{list(results.config.settings).index(setting)}-{place}"
            panels.append(_panel(cells, legend(results), key))
    return panels


def _panel(cells: Sequence[StudyCell], entries: Sequence[LegendEntry], key: str) -> Panel:
    first = cells[0]
    scale = 100 if words.is_share(first) else 1
    unit = " (%)" if words.is_share(first) else ""
    plot = canvas(300, "cost / dense training", f"{main_name(first)}{unit}")
    ordered = sorted(cells, key=lambda cell: cell.cost_vs_dense.mean)
    plot.add_trace(_line([cell for cell in ordered if cell.pareto], scale))
    looks = {entry.method: entry for entry in entries}
    for cell in cells:
        plot.add_trace(_point(cell, looks[cell.method], scale))
    plot.update_layout(showlegend=False)
    plot.update_xaxes(**_cost_axis(cells))
    plot.update_yaxes(nticks=6)
    on_line = [cell.method for cell in ordered if cell.pareto]
    return Panel(
        key=key,
        heading=f"{density_name(first.density)} of the weights kept",
        finding=_finding(ordered),
        caption=f"On the Pareto line: {', '.join(on_line)}. "
        f"{dense_value(ordered)[0].upper()}{dense_value(ordered)[1:]}.",
        plot=plot,
    )


def _point(cell: StudyCell, look: LegendEntry, scale: float) -> Any:
    cost = f"{cell.cost_vs_dense.mean:.2f} times the dense training"
    return go.Scatter(
        x=[cell.cost_vs_dense.mean],
        y=[scale * cell.main.mean],
        error_x=_bars(cell.cost_vs_dense, 1, look.colour),
        error_y=_bars(cell.main, scale, look.colour),
        name=label(cell.method),
        mode="markers",
        marker={
            "symbol": look.symbol if cell.pareto else f"{look.symbol}-open",
            "color": look.colour,
            "size": 11,
            "line": {"width": 0 if cell.pareto else 2, "color": look.colour},
        },
        hovertemplate=(
            f"{label(cell.method)}<br>{main_value(cell, cell.main)}<br>{cost}<extra></extra>"
        ),
    )


def _bars(found: Estimate, scale: float, colour: str) -> dict[str, Any]:
    half = found.half_width
    if half is None:
        return {"visible": False}
    return {"type": "data", "array": [scale * half], "color": colour, "thickness": 1, "width": 3}


def _line(cells: Sequence[StudyCell], scale: float) -> Any:
    """Return the best that any cost buys, as stairs from one method to the next better one."""
    return go.Scatter(
        x=[cell.cost_vs_dense.mean for cell in cells],
        y=[scale * cell.main.mean for cell in cells],
        mode="lines",
        line={"color": drawing.GREY, "width": 1.5, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )


def _cost_axis(cells: Sequence[StudyCell]) -> dict[str, Any]:
    """Return a logarithmic axis where costs lie far apart, with ticks that have short names."""
    costs = [cell.cost_vs_dense.mean for cell in cells]
    if min(costs) <= 0 or max(costs) < 3 * min(costs):
        return {"nticks": 6}
    ticks = [lead * 10.0**power for power in range(-2, 5) for lead in (1, 2, 3, 5)]
    shown = [tick for tick in ticks if 0.5 * min(costs) <= tick <= 2 * max(costs)]
    return {"type": "log", "tickvals": shown, "ticktext": [f"{tick:g}" for tick in shown]}


def _finding(cells: Sequence[StudyCell]) -> str:
    """Say the panel in words, for those who can't see it."""
    told = [
        f"{cell.method} {main_value(cell, cell.main)} at {cell.cost_vs_dense.mean:.2f} times the "
        "dense training"
        for cell in cells
    ]
    return f"At {density_name(cells[0].density)}: {'; '.join(told)}."
