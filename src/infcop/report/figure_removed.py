"""The figure of what was removed from each layer."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from infcop.core.footprint import Footprint, LayerSizes
from infcop.report import drawing, words
from infcop.report.drawing import Figure, Omitted, canvas, label, thinned
from infcop.report.footprint_tables import layer_sizes_table

__all__ = ["removed_figure"]

_HEADING = "What was removed from each layer"
_NAMED = 5
"""So many names stand side by side on a phone."""


def removed_figure(footprint: Footprint) -> Figure | Omitted:
    """Draw the output units of each layer with weights, before and after."""
    layers = [layer for layer in footprint.layers if layer.outputs is not None]
    if not layers:
        return Omitted(_HEADING, "no layer of the network has output units that could be counted")
    numbers = [place for place, x in enumerate(footprint.layers, 1) if x.outputs is not None]
    short = max(len(_name(layer)) for layer in layers) <= 10 and len(layers) <= _NAMED
    names = [label(_name(x)) for x in layers] if short else [str(place) for place in numbers]
    plot = canvas(320, "" if short else "layer, numbered as in the table", "output units")
    plot.add_trace(_bars(layers, 0, "before", "#D1D5DB"))
    plot.add_trace(_bars(layers, 1, "after", drawing.BLUE))
    plot.update_layout(barmode="overlay", bargap=0.25)
    plot.update_xaxes(range=[-0.6, len(layers) - 0.4], tickangle=0, ticks="", **thinned(names, 12))
    plot.update_yaxes(rangemode="tozero")
    return Figure(
        key="removed",
        heading=_HEADING,
        finding=_finding(layers),
        reading=(
            "Each bar is a layer with weights, in the order of the model. Grey is what it had, "
            "blue what is left. A layer also shrinks where the layers before it give it less."
        ),
        plot=plot,
        table=layer_sizes_table(footprint),
    )


def _bars(layers: list[LayerSizes], which: int, name: str, colour: str) -> Any:
    units = [layer.outputs[which] if layer.outputs else 0 for layer in layers]
    return go.Bar(
        x=list(range(len(layers))),
        y=units,
        name=name,
        marker={"color": colour},
        hovertext=[f"{label(_name(layer))}<br>{_change(layer)}" for layer in layers],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _name(layer: LayerSizes) -> str:
    return layer.name or "the model"


def _at_start(name: str) -> str:
    """Return a name as it begins a sentence; that of a layer is written as it is."""
    return "The model" if name == "the model" else name


def _change(layer: LayerSizes) -> str:
    before, after = layer.outputs or (0, 0)
    if before == after:
        return f"all {words.count(before)} units stay"
    return f"{words.count(after)} of {words.count(before)} units"


def _finding(layers: list[LayerSizes]) -> str:
    pairs = [(layer.outputs or (0, 0)) for layer in layers]
    before, after = (sum(pair[which] for pair in pairs) for which in (0, 1))
    if before == after:
        return f"All {words.count(before)} output units of the layers stay."
    kept = {_name(x): a / b for x, (b, a) in zip(layers, pairs, strict=True) if b}
    least = min(kept, key=kept.__getitem__)
    whole = sum(b == a for b, a in pairs)
    keep = "keeps" if whole == 1 else "keep"
    untouched = (
        f"; {words.plural(whole, 'layer')} of {len(layers)} {keep} every unit" if whole else ""
    )
    return (
        f"{words.count(after)} of {words.count(before)} output units are left, "
        f"{words.percent(after / before)}. {_at_start(least)} keeps the smallest part of its "
        "units, "
        f"{words.percent(kept[least])}{untouched}."
    )
