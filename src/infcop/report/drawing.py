"""What a figure of the page is, and how all of them look."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from infcop.report.tables import Table

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PURPLE",
    "VERMILION",
    "Figure",
    "Omitted",
    "canvas",
    "label",
    "thinned",
    "to_draw",
]

# The palette of Okabe and Ito, which people with any colour vision can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
VERMILION, PURPLE, GREY = "#D55E00", "#CC79A7", "#6B7280"

INK, _GRID = "#1F2937", "#E5E7EB"
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Figure:
    """A drawing with the words and numbers that say the same."""

    key: str
    """Names the element of the page; letters, digits and dashes."""
    heading: str
    finding: str
    """What the data show, in words: the caption, and all that a screen reader gets."""
    reading: str
    """How to read the drawing."""
    plot: go.Figure
    table: Table


@dataclass(frozen=True)
class Omitted:
    """A figure that the record has no data for."""

    heading: str
    why: str


def canvas(height: int, x: str, y: str) -> go.Figure:
    """Return an empty figure in the house style, with titles for its axes."""
    axis = {
        "showgrid": False,
        "gridcolor": _GRID,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": GREY,
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
        # Without this a finger that scrolls the page would pan the figure.
        "fixedrange": True,
    }
    return go.Figure(
        layout={
            "template": {"layout": {"xaxis": axis, "yaxis": {**axis, "showgrid": True}}},
            "height": height,
            "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
            "font": {"family": _FONT, "size": 13, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "dragmode": False,
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": "white", "bordercolor": GREY, "font": {"color": INK}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {"title": {"text": x, "standoff": 8, "font": {"size": 13}}},
            "yaxis": {"title": {"text": y, "standoff": 8, "font": {"size": 13}}},
        }
    )


def label(name: str) -> str:
    """Return a name as plotly must get it: its labels are a subset of HTML."""
    return html.escape(name)


def thinned(labels: Sequence[str], most: int) -> dict[str, Any]:
    """Return tick settings that name at most so many of the places 0, 1, 2, ... evenly spaced."""
    step = max(-(-len(labels) // most), 1)
    places = list(range(0, len(labels), step))
    return {"tickvals": places, "ticktext": [labels[place] for place in places]}


def to_draw(key: str, plot: go.Figure) -> dict[str, Any]:
    """Return what the page's script draws: the element's name, traces and layout."""
    drawn = _plain(plot.to_plotly_json())
    return {"key": key, "data": drawn["data"], "layout": drawn["layout"]}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what is not finite becomes null, a gap in the drawing."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
