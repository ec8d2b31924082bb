"""The tables of a measurement, the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from infcop.core.measurement import MeasuredEdge, MeasuredLayer, MeasurementRecord
from infcop.report import words
from infcop.report.graph_drawing import shape_text, with_error
from infcop.report.tables import Table

__all__ = ["edge_table", "layer_table", "left_alone_table"]

Column = tuple[str, bool, list[str]]
"""A heading, whether the cells are words, and the cells."""


def layer_table(record: MeasurementRecord) -> Table:
    """Return a row for each layer, without the columns that say nothing.

    Example:
        >>> layer = MeasuredLayer(
        ...     name="fc", kind="Linear", parameter="fc.weight", shape=(2, 3), density=0.5, calls=1)
        >>> record = MeasurementRecord(
        ...     model="m", examples=2, seed=0, parameters=6, prunable=6, layers=[layer], edges=[])
        >>> table = layer_table(record)
        >>> table.headings, table.rows
        (('layer', 'kind', 'weight', 'density'), (('fc', 'Linear', '2×3', '50.0 %'),))
    """
    layers = record.layers
    columns: list[Column] = [
        ("layer", True, [layer.name for layer in layers]),
        ("kind", True, [layer.kind for layer in layers]),
        ("weight", True, [shape_text(layer.shape) for layer in layers]),
        ("density", False, [words.percent(layer.density) for layer in layers]),
    ]
    if any(layer.calls > 1 for layer in layers):
        columns.append(("calls", False, [words.count(layer.calls) for layer in layers]))
    if any(layer.dead_units is not None for layer in layers):
        columns.append(("dead units", False, [_dead(layer) for layer in layers]))
    if record.gradient is not None:
        columns += [
            ("gradient norm", False, [_optional(layer.gradient_norm) for layer in layers]),
            ("gradient mean", False, [_optional(layer.gradient_mean) for layer in layers]),
        ]
    if any(layer.pooling for layer in layers):
        columns.append(("outputs", True, [_pooling(layer) for layer in layers]))
    return _table(columns)


def edge_table(edges: Sequence[MeasuredEdge]) -> Table:
    """Return a row for each edge, without the columns that say nothing.

    Example:
        >>> edge_table([MeasuredEdge(producer="a", consumer="b", signed=0.1, signed_error=0.02)])
        Table(headings=('from', 'to', 'signed mean'), rows=(('a', 'b', '0.100 ± 0.020'),), ...
    """
    columns: list[Column] = [
        ("from", True, [edge.producer for edge in edges]),
        ("to", True, [edge.consumer for edge in edges]),
    ]
    if any(edge.signed is not None for edge in edges):
        signed = [_with_error(edge.signed, edge.signed_error) for edge in edges]
        columns.append(("signed mean", False, signed))
    if any(edge.absolute is not None for edge in edges):
        absolute = [_with_error(edge.absolute, edge.absolute_error) for edge in edges]
        columns.append(("absolute mean", False, absolute))
    if any(edge.effective_rank is not None for edge in edges):
        columns.append(("effective rank", False, [_rank(edge) for edge in edges]))
    if any(edge.widths is not None for edge in edges):
        columns.append(("widths", False, [_widths(edge) for edge in edges]))
    if any(edge.channels for edge in edges):
        columns.append(("enters at channels", True, [_ranges(edge) for edge in edges]))
    if any(edge.calls != ((0, 0),) for edge in edges):
        columns.append(("calls", True, [_calls(edge) for edge in edges]))
    return _table(columns)


def left_alone_table(record: MeasurementRecord) -> Table:
    """Return the parameters that are not prunable, with the reason."""
    rows = tuple(record.excluded.items())
    return Table(
        headings=("parameter", "why it is not prunable"), rows=rows, text=frozenset({0, 1})
    )


def _table(columns: Sequence[Column]) -> Table:
    return Table(
        headings=tuple(heading for heading, _, _ in columns),
        rows=tuple(zip(*(cells for _, _, cells in columns), strict=True)),
        text=frozenset(place for place, (_, is_text, _) in enumerate(columns) if is_text),
    )


def _optional(value: float | None) -> str:
    return "" if value is None else words.number(value)


def _with_error(value: float | None, error: float | None) -> str:
    return "" if value is None else with_error(value, error)


def _dead(layer: MeasuredLayer) -> str:
    if layer.dead_units is None:
        return "not measured"
    return f"{words.count(layer.dead_units)} of {words.count(layer.units or 0)}"


def _pooling(layer: MeasuredLayer) -> str:
    return "; ".join(pooling.sentence for pooling in layer.pooling)


def _rank(edge: MeasuredEdge) -> str:
    return "" if edge.effective_rank is None else f"{edge.effective_rank:.1f}"


def _widths(edge: MeasuredEdge) -> str:
    return "" if edge.widths is None else shape_text(edge.widths)


def _ranges(edge: MeasuredEdge) -> str:
    return ", ".join(f"{first}-{end - 1}" for first, end in edge.channels)


def _calls(edge: MeasuredEdge) -> str:
    """Return which call reaches which, counted from 1, a few of them."""
    told = [f"{one + 1} to {other + 1}" for one, other in edge.calls[:4]]
    more = len(edge.calls) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
