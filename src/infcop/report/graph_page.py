"""The page of a measurement: the graph as a picture, and its numbers, without any script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from infcop.core.measurement import MeasurementRecord
from infcop.errors import RunFolderError
from infcop.report import words
from infcop.report.graph_drawing import MOST_DRAWN, Drawing, draw
from infcop.report.graph_tables import edge_table, layer_table, left_alone_table
from infcop.report.graph_words import dead_layers, findings, subject_line
from infcop.report.writing import template, write_page

__all__ = ["render_graph", "write_graph"]

_MOST_ROWS = 1000
"""Edges in the page's table; the strongest of a graph with more."""

_SHORT = 20
"""Letters of a layer's name that stay on one line of a table."""


def render_graph(record: MeasurementRecord) -> str:
    """Return the page of a measurement.

    Everything is inside, and there is no script: the page forbids itself any by a content
    security policy, and every text of the record is escaped.

    Example:
        >>> record = MeasurementRecord(
        ...     model="<net>", examples=2, seed=0, parameters=8, prunable=8, layers=[], edges=[])
        >>> "<h1>&lt;net&gt;</h1>" in render_graph(record)
        True
    """
    drawing = draw(record)
    shown = sorted(record.edges, key=lambda edge: abs(edge.signed or 0), reverse=True)[:_MOST_ROWS]
    kept = {edge.ends for edge in shown}
    page: str = template("graph.html.j2").render(
        record=record,
        subject=subject_line(record),
        findings=findings(record),
        numbers=_numbers(record),
        drawing=drawing,
        scale=_scale(drawing),
        most_drawn=MOST_DRAWN,
        layers=layer_table(record),
        edges=edge_table([edge for edge in record.edges if edge.ends in kept]),
        more_edges=len(record.edges) - len(shown),
        left_alone=left_alone_table(record),
        short_names=all(len(layer.name) <= _SHORT for layer in record.layers),
        errors=any(edge.signed_error is not None for edge in record.edges),
    )
    return page


def write_graph(record: MeasurementRecord, path: str | os.PathLike[str]) -> Path:
    """Write the page of a measurement; its folder is made where it is missing.

    Returns:
        The path written.

    Raises:
        RunFolderError: The file can't be written; what was there before is left as it was.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"can't make the folder of '{target}': {error.strerror or error}. Expected a folder "
            "that can be written to"
        ) from error
    write_page(target, render_graph(record))
    return target


def _numbers(record: MeasurementRecord) -> list[tuple[str, str, str]]:
    """Return what it is, its value, and what to know beside it."""
    share = record.prunable / record.parameters if record.parameters else 0.0
    return [
        ("prunable layers", words.count(len(record.layers)), _unused(record)),
        ("edges", words.count(len(record.edges)), _selection(record)),
        ("of the parameters may be pruned", words.percent(share), words.count(record.prunable)),
        _dead(record),
    ]


def _dead(record: MeasurementRecord) -> tuple[str, str, str]:
    if all(layer.dead_units is None for layer in record.layers):
        return "dead units", "?", "not measured"
    dead = dead_layers(record)
    units = sum(layer.dead_units or 0 for layer in dead)
    return "dead units", words.count(units), f"in {words.plural(len(dead), 'layer')}"


def _unused(record: MeasurementRecord) -> str:
    count = len(record.unused)
    return f"{count} more {'is' if count == 1 else 'are'} not used" if count else "none unused"


def _selection(record: MeasurementRecord) -> str:
    named = {"graph": "of the whole graph", "main-path": "of the main path"}
    return named.get(str(record.selection), "between layers that were named")


def _scale(drawing: Drawing) -> dict[str, Any] | None:
    """Return the words and lines of the legend."""
    scale = drawing.scale
    if scale is None:
        return None
    thin, thick = scale.widths
    return {
        "low": words.number(-scale.signed),
        "high": words.number(scale.signed),
        "colours": scale.colours,
        "widths": [
            ("0", thin),
            (words.number(scale.absolute / 2), (thin + thick) / 2),
            (words.number(scale.absolute), thick),
        ],
    }
