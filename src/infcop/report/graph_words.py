"""A measurement in sentences, and in plain text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from infcop.core.measurement import MeasuredEdge, MeasuredLayer, MeasurementRecord
from infcop.report import words
from infcop.report.graph_tables import edge_table, layer_table
from infcop.report.tables import Table, plain_lines

__all__ = ["dead_layers", "findings", "measurement_lines", "subject_line"]

_MOST_LINES = 60
"""Rows of a table in the terminal."""


def subject_line(record: MeasurementRecord) -> str:
    """Return what was measured, on what.

    Example:
        >>> subject_line(MeasurementRecord(
        ...     model="m", examples=2048, seed=0, parameters=8, prunable=8, layers=[], edges=[]))
        'weights as given; 2,048 examples of custom data, in evaluation mode'
    """
    data = "custom data" if record.data == "custom" else record.data
    gradient = "" if record.gradient is None else f"; {record.gradient} gradient"
    return (
        f"weights {record.weights}; {words.plural(record.examples, 'example')} of "
        f"{data}, in evaluation mode{gradient}"
    )


def findings(record: MeasurementRecord) -> list[str]:
    """Return the facts that stand out, a sentence each."""
    return [*_graph(record), *_flow(record), *_layers(record)]


def dead_layers(record: MeasurementRecord) -> list[MeasuredLayer]:
    """Return the layers that have dead units."""
    return [layer for layer in record.layers if layer.dead_units]


def measurement_lines(record: MeasurementRecord) -> list[str]:
    """Return findings and tables as lines of plain text."""
    lines = [
        f"{record.model}: {subject_line(record)}",
        *findings(record),
        "",
        *_text_of(layer_table(record), "layers"),
    ]
    if record.edges:
        lines += ["", *_text_of(edge_table(record.edges), "edges")]
    return lines


def _graph(record: MeasurementRecord) -> Iterator[str]:
    share = words.percent(record.prunable / record.parameters) if record.parameters else "none"
    yield (
        f"{words.plural(len(record.layers), 'prunable layer')} and "
        f"{words.plural(len(record.edges), 'edge')}; {words.count(record.prunable)} of "
        f"{words.count(record.parameters)} parameters ({share}) may be pruned."
    )


def _flow(record: MeasurementRecord) -> Iterator[str]:
    known = [
        (edge.signed, edge)
        for edge in record.edges
        if edge.signed is not None and math.isfinite(edge.signed)
    ]
    if not known:
        return
    most, weakest = (choose(known, key=lambda one: abs(one[0])) for choose in (max, min))
    yield f"The flow is strongest {_place(most[1])} (signed mean {words.number(most[0])})."
    if len(known) > 1:
        yield f"It is weakest {_place(weakest[1])} ({words.number(weakest[0])})."


def _place(edge: MeasuredEdge) -> str:
    return f"from {edge.producer} to {edge.consumer}"


def _layers(record: MeasurementRecord) -> Iterator[str]:
    if dead := dead_layers(record):
        units = sum(layer.dead_units or 0 for layer in dead)
        one = "is" if units == 1 else "are"
        yield (
            f"{words.plural(units, 'unit')} in {words.plural(len(dead), 'layer')} {one} dead: the "
            "output did not vary over the examples."
        )
    if repeated := record.called_more_than_once:
        yield f"Called more than once: {_some(repeated)}."
    if record.unused:
        yield f"Not used in the forward pass: {_some(record.unused)}."


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _text_of(table: Table, what: str) -> Iterator[str]:
    yield from plain_lines(replace(table, rows=table.rows[:_MOST_LINES]))
    if len(table.rows) > _MOST_LINES:
        yield f"... and {len(table.rows) - _MOST_LINES} more {what}: see the page, or use --json"
