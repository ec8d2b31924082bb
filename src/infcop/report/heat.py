"""A heat map with levels as rows, legible for three columns or sixty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from infcop.report.drawing import INK, canvas, label, thinned

__all__ = ["Grid", "heat_map"]

_SEQUENTIAL = ("#F4F8FB", "#B9D6EA", "#6BA9D3", "#1F78B4", "#08415C")
_DIVERGING = ("#08519C", "#6BAED6", "#F7F7F7", "#FDAE6B", "#A63603")
# The light halves of the same colours, on which dark numbers stay legible.
_SEQUENTIAL_LIGHT = ("#F4F8FB", "#B9D6EA", "#6BA9D3")
_DIVERGING_LIGHT = ("#6BAED6", "#F7F7F7", "#FDAE6B")

_COLUMNS_WITH_NUMBERS = 6
_PHONE_PIXELS = 250
"""What a screen of 390 pixels leaves for the columns."""


@dataclass(frozen=True)
class Grid:
    """Values to be drawn, row by row, with names for both sides."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    show: Callable[[float], str]
    """How a value is written."""

    @property
    def finite(self) -> list[float]:
        """All values that can be drawn."""
        return [value for row in self.values for value in row if math.isfinite(value)]

    @property
    def not_finite(self) -> int:
        """The number of cells left blank."""
        return sum(len(row) for row in self.values) - len(self.finite)


def heat_map(grid: Grid, *, x: str, y: str, diverging: bool, ruled: bool) -> go.Figure:
    """Draw a grid, the first row on top.

    Columns carry their names where those fit on a phone, else numbers from 1. Values that are all
    positive and span more than a factor of 30 are coloured by their logarithm, so that the small
    ones differ too.

    Args:
        grid: What to draw.
        x: Title of the horizontal axis, where columns are numbered.
        y: Title of the vertical axis.
        diverging: Whether zero is a middle, with a colour for either sign.
        ruled: Whether a line sets the first row apart.
    """
    row_height = min(max(460 / len(grid.rows), 9), 30)
    short = [label(name).replace(" → ", "<br>→ ") for name in grid.columns]
    numbers = [str(place) for place in range(1, len(grid.columns) + 1)]
    names, title = (short, "") if _fit(grid.columns) else (numbers, x)
    plot = canvas(round(100 + row_height * len(grid.rows)), title, y)
    plot.add_trace(_cells(grid, diverging))
    plot.update_xaxes(ticks="", showline=False, tickangle=0, title_standoff=24, **thinned(names, 9))
    most_rows = max(int(row_height * len(grid.rows) / 16), 1)
    plot.update_yaxes(
        ticks="",
        showgrid=False,
        autorange="reversed",
        **thinned([*map(label, grid.rows)], most_rows),
    )
    # A blank cell must not look like a value; the colour bar's last label needs some room.
    plot.update_layout(plot_bgcolor="#D1D5DB", margin_r=28)
    if ruled:
        plot.add_hline(y=0.5, line={"color": "white", "width": 4})
    return plot


def _cells(grid: Grid, diverging: bool) -> Any:
    low, high = min(grid.finite, default=0.0), max(grid.finite, default=0.0)
    logarithmic = not diverging and low > 0 and high / low > 30
    scale = math.log10 if logarithmic else float
    extent = max(abs(low), abs(high)) or 1.0
    limits = (scale(low), scale(high)) if logarithmic else (-extent if diverging else 0.0, extent)
    numbered = len(grid.columns) <= _COLUMNS_WITH_NUMBERS
    written = [[grid.show(value) for value in row] for row in grid.values]
    return go.Heatmap(
        z=[[scale(v) if math.isfinite(v) else None for v in row] for row in grid.values],
        zmin=limits[0],
        zmax=limits[1],
        colorscale=_colours(diverging, numbered),
        xgap=1 if len(grid.columns) <= 30 else 0,
        ygap=1 if len(grid.rows) <= 30 else 0,
        text=written,
        texttemplate="%{text}" if numbered else None,
        textfont={"color": INK},
        hovertext=_hover(grid, written),
        hovertemplate="%{hovertext}<extra></extra>",
        colorbar=_colour_bar(grid, limits, logarithmic),
    )


def _colours(diverging: bool, numbered: bool) -> list[str]:
    if numbered:
        return list(_DIVERGING_LIGHT if diverging else _SEQUENTIAL_LIGHT)
    return list(_DIVERGING if diverging else _SEQUENTIAL)


def _colour_bar(grid: Grid, limits: tuple[float, float], logarithmic: bool) -> dict[str, Any]:
    low, high = limits
    places = [low + (high - low) * part / 4 for part in range(4)] + [high]
    written = [grid.show(10**place if logarithmic else place) for place in places]
    return {
        "orientation": "h",
        "y": 1.0,
        "yanchor": "bottom",
        "ypad": 8,
        "thickness": 10,
        "outlinewidth": 0,
        "ticks": "",
        "ticklabeloverflow": "allow",
        "tickvals": places,
        "ticktext": written,
    }


def _hover(grid: Grid, written: list[list[str]]) -> list[list[str]]:
    return [
        [
            f"{label(row)}<br>{label(column)}<br>{cell}"
            for column, cell in zip(grid.columns, cells, strict=True)
        ]
        for row, cells in zip(grid.rows, written, strict=True)
    ]


def _fit(names: Sequence[str]) -> bool:
    """Whether names stand side by side on a phone, at about seven pixels a letter."""
    longest = max(
        (len(line) for name in names for line in name.replace(" → ", "\n→ ").split("\n")), default=0
    )
    return len(names) * 7 * (longest + 1) <= _PHONE_PIXELS
