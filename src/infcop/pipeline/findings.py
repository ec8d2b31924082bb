"""From a traced model and a reading of its flow to the values of a measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from infcop.core.edges import Edge, Edges, Tap
from infcop.core.measurement import MeasuredEdge, MeasuredLayer, Pooling
from infcop.flow.information import correlation, effective_rank
from infcop.flow.reading import FlowReading
from infcop.models.calling import Inputs
from infcop.models.graph import LayerGraph, trace_graph
from infcop.models.kinds import channel_axis
from infcop.models.prunable import Prunable, get_parameters, memory_key, prunable_layers

__all__ = ["Traced", "correlations", "measured_edges", "measured_layers", "traced_model"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Traced:
    """A model with what one pass through it showed.

    Attributes:
        layers: The prunable layers by name.
        parameters: Per layer, the name under which its weight is pruned.
        prunable: The names of all prunable weights.
        graph: Their calls and edges.
        shapes: What each call returned; calls that returned no tensor are not named.
    """

    layers: Mapping[str, nn.Module]
    parameters: Mapping[str, str]
    prunable: tuple[str, ...]
    graph: LayerGraph
    shapes: Mapping[Tap, Shape]


def traced_model(model: nn.Module, prunable: Prunable, inputs: Inputs, examples: int) -> Traced:
    """Trace a model on one batch, which holds so many examples.

    Raises:
        ModelError: The model rejects the inputs.
    """
    layers = prunable_layers(model, prunable)
    with _recorded(layers) as returned:
        graph = trace_graph(model, inputs, prunable, examples=examples)
    # The trace runs the model more than once; its first pass gave the calls of the graph.
    shapes = {tap: shape for tap in graph.calls if (shape := returned.get(tap)) is not None}
    weights = get_parameters(model, prunable.names)
    names = {memory_key(parameter): name for name, parameter in weights.items()}
    parameters = {name: names[memory_key(_weight(layer))] for name, layer in layers.items()}
    return Traced(layers, parameters, prunable.names, graph, shapes)


def measured_layers(traced: Traced, reading: FlowReading) -> tuple[MeasuredLayer, ...]:
    """Return the layers that ran, in the order of their first calls."""
    calls = Counter(name for name, _ in traced.graph.calls)
    norms, means = (
        dict(zip(traced.prunable, reading.flows.get(flow, ()), strict=False))
        for flow in ("gradient.norm", "gradient.mean")
    )
    return tuple(
        MeasuredLayer(
            name=name,
            kind=type(traced.layers[name]).__name__,
            parameter=(parameter := traced.parameters[name]),
            shape=tuple((weight := _weight(traced.layers[name])).shape),
            density=int(weight.detach().count_nonzero()) / weight.numel(),
            calls=calls[name],
            pooling=_pooling(traced, name),
            units=_units(traced, name),
            dead_units=reading.dead_units.get(name),
            gradient_norm=norms.get(parameter),
            gradient_mean=means.get(parameter),
        )
        for name in traced.graph.layers
    )


def measured_edges(
    traced: Traced, chosen: Edges, reading: FlowReading, *, every: bool
) -> tuple[MeasuredEdge, ...]:
    """Return the edges that were measured, or every edge of the graph, some without numbers."""
    numbers = _numbers(chosen, reading)
    graph = traced.graph
    return tuple(
        MeasuredEdge(
            producer=edge[0],
            consumer=edge[1],
            calls=chosen.pairs.get(edge) or graph.pairs[edge],
            channels=tuple(graph.channels.get(edge, ())),
            **numbers.get(edge, {}),
        )
        for edge in (graph.edges if every else chosen.edges)
    )


def correlations(reading: FlowReading) -> dict[Edge, Tensor]:
    """Return the correlation matrix of every edge that was measured."""
    moments = reading.moments
    return {} if moments is None else {edge: correlation(moments, edge) for edge in moments.edges}


def _numbers(chosen: Edges, reading: FlowReading) -> dict[Edge, dict[str, Any]]:
    moments = reading.moments
    if moments is None:
        return {}
    known = {
        "signed": reading.flows["information.signed"],
        "absolute": reading.flows["information.absolute"],
        "effective_rank": effective_rank(moments),
        "samples": [moments.parts[edge].n for edge in chosen.edges],
        "widths": [tuple(moments.parts[edge].cxy.shape) for edge in chosen.edges],
        "signed_error": reading.standard_errors.get("information.signed"),
        "absolute_error": reading.standard_errors.get("information.absolute"),
    }
    columns = {key: values for key, values in known.items() if values is not None}
    return {
        edge: {key: values[place] for key, values in columns.items()}
        for place, edge in enumerate(chosen.edges)
    }


def _pooling(traced: Traced, name: str) -> tuple[Pooling, ...]:
    """Return how the calls of a layer are pooled, each way once."""
    found: dict[Pooling, None] = {}
    for tap, layout in traced.graph.layouts.items():
        if tap[0] == name and tap in traced.shapes:
            axes = range(len(traced.shapes[tap]))
            channels = channel_axis(traced.layers[name], len(axes))
            averaged = tuple(axis for axis in axes if axis not in (layout.axis, channels))
            found[Pooling(averaged=averaged, examples=layout.axis, fold=layout.fold)] = None
    return tuple(found)


def _units(traced: Traced, name: str) -> int | None:
    shape = traced.shapes.get((name, 0))
    return None if shape is None else shape[channel_axis(traced.layers[name], len(shape))]


def _weight(layer: nn.Module) -> nn.Parameter:
    return layer.get_parameter("weight")


@contextmanager
def _recorded(layers: Mapping[str, nn.Module]) -> Iterator[dict[Tap, Shape | None]]:
    """Note the shape of whatever the layers return, call by call."""
    returned: dict[Tap, Shape | None] = {}
    calls: Counter[str] = Counter()

    def noting(name: str) -> Any:
        def note(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            returned[name, calls[name]] = shape
            calls[name] += 1

        return note

    handles = [layer.register_forward_hook(noting(name)) for name, layer in layers.items()]
    try:
        yield returned
    finally:
        for handle in handles:
            handle.remove()
