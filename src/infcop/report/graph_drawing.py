"""The picture of a measured graph, as the numbers that an SVG needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from infcop.core.edges import Edge
from infcop.core.measurement import MeasuredEdge, MeasuredLayer, MeasurementRecord
from infcop.report import words
from infcop.report.graph_layout import Arrangement, arranged

__all__ = ["MOST_DRAWN", "Drawing", "Link", "Node", "Scale", "draw", "shape_text", "with_error"]

MOST_DRAWN = 1200
"""Edges in one drawing; the weaker ones of a graph with more are only counted."""

# The ends and the middle of the scale of the report's heat maps, the middle dark enough for lines.
_NEGATIVE, _MIDDLE, _POSITIVE = (8, 81, 156), (178, 184, 194), (166, 54, 3)

_MARGIN = 12.0
_BESIDE = 22.0
"""Between two layers of a row."""

_LETTER = 7.0
"""Pixels that a letter of a name takes."""

_MANY_ROWS, _MANY_EDGES = 40, 250


@dataclass(frozen=True)
class Node:
    """A layer as a box: its place, lines of text, and what a pointer on it shows."""

    x: float
    y: float
    width: float
    height: float
    name: str
    lines: tuple[str, ...]
    baseline: float
    """Of the first line; the others follow 16 pixels apart."""
    dead: bool
    """Whether it has units that did not vary."""
    title: str


@dataclass(frozen=True)
class Link:
    """An edge as a curve."""

    path: str
    colour: str
    width: float
    opacity: float
    """Below 1 for the weak ones of many edges, which would hide the strong ones."""
    back: bool
    """Whether it leads to the same or an earlier layer."""
    title: str


@dataclass(frozen=True)
class Scale:
    """How colours and widths are read; the largest values on it."""

    signed: float
    absolute: float
    colours: tuple[str, str, str]
    widths: tuple[float, float]


@dataclass(frozen=True)
class Drawing:
    """A picture of a graph."""

    width: float
    height: float
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    """The weakest first, so that the strongest lie on top."""
    left_out: int
    """Edges that are not drawn."""
    scale: Scale | None
    """None where no information flow was measured."""
    dense: bool
    """Whether there are so many edges that the weak ones are faint."""


@dataclass(frozen=True)
class _Sizes:
    width: float
    height: float
    gap: float
    lane: float
    letters: int
    lines: int


def draw(record: MeasurementRecord) -> Drawing:
    """Draw layers in rows from the input down to the output, edges coloured by their flow.

    An edge to the next row is a curve between two rows. Any other goes around: out between two
    rows, along a lane beside all layers, and back in between two rows; so none is hidden behind a
    layer.

    Example:
        >>> layers = [
        ...     MeasuredLayer(name=name, kind="Linear", parameter=f"{name}.weight", shape=(2, 2),
        ...                   density=1.0, calls=1) for name in "ab"]
        >>> drawing = draw(MeasurementRecord(
        ...     model="m", examples=2, seed=0, parameters=8, prunable=8, layers=layers,
        ...     edges=[MeasuredEdge(producer="a", consumer="b", signed=0.5, absolute=0.5)]))
        >>> [node.name for node in drawing.nodes], drawing.links[0].colour
        (['a', 'b'], '#a63603')
    """
    strongest = sorted(record.edges, key=_strength, reverse=True)[:MOST_DRAWN]
    kept = {edge.ends for edge in strongest}
    drawn = [edge for edge in record.edges if edge.ends in kept]
    found = arranged([layer.name for layer in record.layers], [edge.ends for edge in drawn])
    sizes = _sizes(record, found)
    nodes, area = _nodes(record, found, sizes)
    boxes = {node.name: node for node in nodes}
    order = {layer.name: place for place, layer in enumerate(record.layers)}
    dense = len(drawn) > _MANY_EDGES
    scale = _scale(drawn, dense=dense)
    links = [
        Link(
            path=_path(boxes, found, edge.ends, sizes, area),
            colour=_colour(edge, scale),
            width=_width(edge, scale),
            opacity=_opacity(edge, scale) if dense else 1.0,
            back=order[edge.consumer] <= order[edge.producer],
            title=_edge_title(edge),
        )
        for edge in reversed(strongest)
    ]
    bottom = max((node.y + node.height for node in nodes), default=0.0)
    return Drawing(
        width=math.ceil(area + found.lanes * sizes.lane + 2 * _MARGIN),
        height=math.ceil(bottom + sizes.gap),
        nodes=tuple(nodes),
        links=tuple(links),
        left_out=len(record.edges) - len(drawn),
        scale=scale,
        dense=dense,
    )


def shape_text(shape: Sequence[int]) -> str:
    """Return the sizes of a tensor as people write them.

    Example:
        >>> shape_text((16, 3, 3, 3))
        '16×3×3×3'
    """
    return "\N{MULTIPLICATION SIGN}".join(map(str, shape))


def _strength(edge: MeasuredEdge) -> float:
    return abs(edge.signed) if edge.signed is not None and math.isfinite(edge.signed) else 0.0


def _sizes(record: MeasurementRecord, found: Arrangement) -> _Sizes:
    longest = max((len(layer.name) for layer in record.layers), default=0)
    lane = min(max(340 / max(found.lanes, 1), 2.0), 9.0)
    if len(found.rows) > _MANY_ROWS:
        letters = min(max(longest, 12), 34)
        return _Sizes(letters * _LETTER + 20, 22, 18, lane, letters, 1)
    letters = min(max(longest, 18), 28)
    lines = 3 if any(layer.dead_units for layer in record.layers) else 2
    return _Sizes(letters * _LETTER + 20, 14 + 16 * lines, 34, lane, letters, lines)


def _nodes(
    record: MeasurementRecord, found: Arrangement, sizes: _Sizes
) -> tuple[list[Node], float]:
    """Return the boxes, and where the last of them ends on the right."""
    layers = {layer.name: layer for layer in record.layers}
    widest = max((len(names) for names in found.rows), default=0)
    step = sizes.width + _BESIDE
    nodes = []
    for number, names in enumerate(found.rows):
        left = _MARGIN + (widest - len(names)) * step / 2
        top = sizes.gap + number * (sizes.height + sizes.gap)
        nodes += [
            _node(layers[name], left + place * step, top, sizes) for place, name in enumerate(names)
        ]
    return nodes, _MARGIN + max(widest * step - _BESIDE, 0)


def _node(layer: MeasuredLayer, x: float, y: float, sizes: _Sizes) -> Node:
    lines = _lines(layer, sizes)
    return Node(
        x=x,
        y=y,
        width=sizes.width,
        height=sizes.height,
        name=layer.name,
        lines=lines,
        baseline=y + (sizes.height - 16 * len(lines)) / 2 + 12,
        dead=bool(layer.dead_units),
        title=_layer_title(layer),
    )


def _lines(layer: MeasuredLayer, sizes: _Sizes) -> tuple[str, ...]:
    name = _shortened(layer.name, sizes.letters)
    if sizes.lines == 1:
        return (name,)
    calls = f", {layer.calls} calls" if layer.calls > 1 else ""
    lines = (name, f"{layer.kind} {shape_text(layer.shape)}{calls}")
    if not layer.dead_units:
        return lines
    return (*lines, f"{layer.dead_units} of {layer.units} units dead")


def _shortened(name: str, letters: int) -> str:
    """Return the end of a name, which tells layers of one block apart, from a dot on if it can."""
    if len(name) <= letters:
        return name
    end = name[1 - letters :]
    _, dot, whole = end.partition(".")
    return f"…{whole if dot and len(whole) > letters / 2 else end}"


def _path(
    boxes: dict[str, Node], found: Arrangement, edge: Edge, sizes: _Sizes, area: float
) -> str:
    producer, consumer = boxes[edge[0]], boxes[edge[1]]
    top, bottom = consumer.y, producer.y + producer.height
    if edge not in found.around:
        start, end = producer.x + producer.width / 2, consumer.x + consumer.width / 2
        half = (bottom + top) / 2
        return _text("M", start, bottom, "C", start, half, end, half, end, top)
    # The outer lanes leave and enter further to the right, so that they cross fewer others.
    lane = area + (found.around[edge] + 1) * sizes.lane
    aside = sizes.width / 2 - 8 - 24 / (1 + found.around[edge])
    start, end = (box.x + box.width / 2 + aside for box in (producer, consumer))
    gap = sizes.gap
    if top <= bottom:  # back up, so the lane is entered from below and left at its top
        out = (start, bottom + 0.9 * gap, lane, bottom + 0.9 * gap, lane, bottom)
        back = (lane, top - 0.9 * gap, end, top - 0.9 * gap, end, top)
        return _text("M", start, bottom, "C", *out, "V", top, "C", *back)
    out = (start, bottom + 0.8 * gap, lane, bottom + 0.1 * gap, lane, bottom + gap)
    back = (lane, top - 0.1 * gap, end, top - 0.8 * gap, end, top)
    return _text("M", start, bottom, "C", *out, "V", top - gap, "C", *back)


def _text(*parts: str | float) -> str:
    return " ".join(
        part if isinstance(part, str) else f"{part:.1f}".rstrip("0").rstrip(".") for part in parts
    )


def _scale(edges: Sequence[MeasuredEdge], *, dense: bool) -> Scale | None:
    signed = [_strength(edge) for edge in edges if edge.signed is not None]
    if not signed:
        return None
    sizes = [e.absolute for e in edges if e.absolute is not None and math.isfinite(e.absolute)]
    return Scale(
        signed=max(signed) or 1.0,
        absolute=max(sizes, default=0.0) or 1.0,
        colours=(_hex(_NEGATIVE), _hex(_MIDDLE), _hex(_POSITIVE)),
        widths=(0.7, 2.5) if dense else (1.2, 5.0),
    )


def _colour(edge: MeasuredEdge, scale: Scale | None) -> str:
    if scale is None or edge.signed is None or not math.isfinite(edge.signed):
        return _hex(_MIDDLE)
    end = _POSITIVE if edge.signed > 0 else _NEGATIVE
    share = min(abs(edge.signed) / scale.signed, 1.0)
    return _hex(tuple(round(m + (e - m) * share) for m, e in zip(_MIDDLE, end, strict=True)))


def _width(edge: MeasuredEdge, scale: Scale | None) -> float:
    if scale is None or edge.absolute is None or not math.isfinite(edge.absolute):
        return 1.5
    thin, thick = scale.widths
    return round(thin + (thick - thin) * min(edge.absolute / scale.absolute, 1.0), 2)


def _opacity(edge: MeasuredEdge, scale: Scale | None) -> float:
    share = 0.0 if scale is None else min(_strength(edge) / scale.signed, 1.0)
    return round(0.3 + 0.7 * share, 2)


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _edge_title(edge: MeasuredEdge) -> str:
    told = [f"{edge.producer} \N{RIGHTWARDS ARROW} {edge.consumer}"]
    if edge.signed is not None:
        told.append(f"signed mean {with_error(edge.signed, edge.signed_error)}")
    if edge.absolute is not None:
        told.append(f"absolute mean {with_error(edge.absolute, edge.absolute_error)}")
    if edge.effective_rank is not None and edge.widths is not None:
        told.append(
            f"effective rank {words.number(edge.effective_rank)} of at most {min(edge.widths)}"
        )
    return "\n".join(told)


def with_error(value: float, error: float | None) -> str:
    """Return a value with its standard error, where there is one, both to the same decimal.

    Example:
        >>> with_error(0.25, 0.01), with_error(0.25, 0.00012), with_error(0.25, None)
        ('0.250 ± 0.010', '0.2500 ± 0.0001', '0.250')
    """
    if error is None or not math.isfinite(error) or not math.isfinite(value):
        return words.number(value)
    decimals = 3 if error >= 5e-4 or error == 0 else 4 if error >= 5e-5 else 6
    return f"{value:.{decimals}f} \N{PLUS-MINUS SIGN} {error:.{decimals}f}"


def _layer_title(layer: MeasuredLayer) -> str:
    told = [
        layer.name,
        f"{layer.kind} {shape_text(layer.shape)}, density {words.percent(layer.density)}",
        *(pooling.sentence for pooling in layer.pooling),
    ]
    if layer.calls > 1:
        told.append(f"called {layer.calls} times")
    if layer.dead_units is not None:
        told.append(f"{layer.dead_units} of {layer.units} units dead")
    if layer.gradient_norm is not None:
        told.append(f"gradient norm {words.number(layer.gradient_norm)}")
    return "\n".join(told)
