"""Edges between the prunable layers of any model, found from one real batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from torch import nn

from infcop.core.edges import Edge, Edges, Layout, Tap
from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.models.calling import Inputs
from infcop.models.channels import call_pairs
from infcop.models.layout import find_layouts, fingerprint
from infcop.models.prunable import Prunable, prunable_layers
from infcop.models.span import Range
from infcop.models.trace import record_calls
from infcop.models.unwrap import unwrapped

__all__ = ["LayerGraph", "main_path", "select_edges", "trace_graph"]

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LayerGraph:
    """Which prunable layers feed which.

    Attributes:
        calls: Every call of a layer in the traced forward pass, in the order of execution.
        edges: Pairs (producer, consumer): the consumer receives the producer's output with no
            other prunable layer between. In the order of the consumers' first calls, then of the
            producers'.
        pairs: Per edge, which call of the producer reaches which call of the consumer.
        channels: Per edge, the ranges of the consumer's input channels at which the producer's
            output enters; the second number of a range is the one after its last channel.
        layouts: Where the examples are in the output of each call; a call in whose output they
            have no place, or that returns no tensor, is not named.
        unused: Prunable layers that were not called in this forward pass.
    """

    calls: tuple[Tap, ...]
    edges: tuple[Edge, ...]
    pairs: Mapping[Edge, Pairs] = field(default_factory=dict)
    channels: Mapping[Edge, tuple[Range, ...]] = field(default_factory=dict)
    layouts: Mapping[Tap, Layout] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that were called, in the order of their first calls."""
        return tuple(dict.fromkeys(layer for layer, _ in self.calls))

    @property
    def called_more_than_once(self) -> tuple[str, ...]:
        """Layers with several calls in the forward pass."""
        return tuple(layer for layer, number in self.calls if number == 1)


def trace_graph(
    model: nn.Module, inputs: Inputs, prunable: Prunable, *, examples: int | None = None
) -> LayerGraph:
    """Run the model in evaluation mode and read the edges off its autograd graph.

    From each call's inputs the graph is followed backwards until a prunable layer's output. So
    sums, concatenations, attention, functional calls, frozen and unprunable layers are passed
    through. There is no edge across ``detach`` or integers, nor for branches that this batch does
    not take, nor to or from a layer whose weight is used without calling the module (it is among
    ``unused``); a layer run under ``no_grad`` or in a reentrant checkpoint is nobody's producer.

    Two further passes, with one example changed in each, tell where the examples are in the
    outputs. The model, its gradients and the random generators stay as they were. Of a compiled
    or distributed model, the one inside is run.

    Args:
        model: Any model.
        inputs: The positional arguments of one real batch as a tuple, or its keyword arguments as
            a mapping, on the model's device.
        prunable: What ``find_prunable(model)`` returned.
        examples: How many examples the batch holds; by default the length that most of the
            tensors' first axes have.

    Raises:
        ModelError: The model rejects the inputs.

    Example:
        >>> import torch
        >>> from infcop.models.prunable import find_prunable
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> graph = trace_graph(model, (torch.ones(5, 3),), find_prunable(model))
        >>> graph.edges, graph.channels
        ((('0', '2'),), {('0', '2'): ((0, 4),)})
    """
    model = unwrapped(model)
    watched = prunable_layers(model, prunable)
    calls = record_calls(model, inputs, watched, fingerprint)
    pairs, channels = call_pairs(calls, watched)
    prints = {tap: call.observed for tap, call in calls.items()}
    # The autograd graph holds all activations; it goes before others are made.
    del calls
    return LayerGraph(
        calls=tuple(prints),
        edges=tuple(pairs),
        pairs=pairs,
        channels=channels,
        layouts=find_layouts(model, inputs, watched, prints, examples),
        unused=tuple(layer for layer in watched if (layer, 0) not in prints),
    )


def main_path(graph: LayerGraph) -> tuple[Tap, ...]:
    """Return the longest chain of calls along the edges.

    Shortcut projections are left out, as the way around them is longer. Of several longest
    chains, the one whose calls are executed earliest, compared from the start.

    Example:
        >>> calls = (("a", 0), ("b", 0), ("shortcut", 0), ("c", 0))
        >>> edges = (("a", "b"), ("a", "shortcut"), ("b", "c"), ("shortcut", "c"))
        >>> main_path(LayerGraph(calls, edges, dict.fromkeys(edges, ((0, 0),))))
        (('a', 0), ('b', 0), ('c', 0))
    """
    onward: dict[Tap, set[Tap]] = {tap: set() for tap in graph.calls}
    for (producer, consumer), pairs in graph.pairs.items():
        for one, other in pairs:
            onward[producer, one].add((consumer, other))
    # Chains are kept as their first link and their length, as there may be thousands of calls.
    lengths: dict[Tap, int] = {}
    following: dict[Tap, Tap | None] = {}
    places = {tap: place for place, tap in enumerate(graph.calls)}
    # Outputs are there before inputs, so consumers are settled before their producers.
    for tap in reversed(graph.calls):
        longest = min(onward[tap], key=lambda one: (-lengths[one], places[one]), default=None)
        following[tap] = longest
        lengths[tap] = 1 + (lengths[longest] if longest is not None else 0)
    chain: list[Tap] = []
    link = max(graph.calls, key=lambda tap: lengths[tap], default=None)
    while link is not None:
        chain.append(link)
        link = following[link]
    return tuple(chain)


def select_edges(graph: LayerGraph, edges: str | tuple[str, ...]) -> Edges:
    """Return the edges that flow is measured on, with the calls behind them.

    Between named layers the calls are paired one to one where both have equally many, and one
    call is paired with all of the other's. Calls whose output has no place for the examples can't
    be measured: pairs with such a call are left out, and edges that lose all of them.

    Args:
        graph: The traced layers.
        edges: ``"graph"`` for all edges, ``"main-path"`` for the successive pairs of the longest
            chain, or names of layers, whose successive pairs are taken.

    Raises:
        FlowError: A named layer is unknown, named twice, was not called, can't be measured or has
            calls that don't pair with those of its neighbour; or no edge results.

    Example:
        >>> from infcop.core.edges import Layout
        >>> calls = (("a", 0), ("b", 0), ("c", 0))
        >>> layouts = dict.fromkeys(calls, Layout())
        >>> graph = LayerGraph(calls, (("a", "b"),), {("a", "b"): ((0, 0),)}, layouts=layouts)
        >>> select_edges(graph, ("a", "c")).edges
        (('a', 'c'),)
    """
    if edges == "graph":
        selected = _measurable(graph, graph.edges)
    elif edges == "main-path":
        steps = pairwise(layer for layer, _ in main_path(graph))
        selected = _measurable(graph, dict.fromkeys(steps))
    elif isinstance(edges, str):
        raise FlowError(
            f"select_edges: expected 'graph', 'main-path' or a tuple of layer names, got '{edges}'"
        )
    else:
        _check_named(graph, edges)
        selected = {edge: _paired(graph, edge) for edge in pairwise(edges)}
    if not selected:
        raise FlowError(f"select_edges: no edge to measure flow on: {_why_none(graph, edges)}")
    chosen = Edges(tuple(selected), selected)
    return Edges(chosen.edges, selected, {tap: graph.layouts[tap] for tap in chosen.taps})


def _measurable(graph: LayerGraph, edges: Iterable[Edge]) -> dict[Edge, Pairs]:
    kept = {}
    for producer, consumer in edges:
        pairs = tuple(
            (one, other)
            for one, other in graph.pairs[producer, consumer]
            if (producer, one) in graph.layouts and (consumer, other) in graph.layouts
        )
        if pairs:
            kept[producer, consumer] = pairs
    return kept


def _paired(graph: LayerGraph, edge: Edge) -> Pairs:
    counts = Counter(layer for layer, _ in graph.calls)
    producer, consumer = edge
    first, second = counts[producer], counts[consumer]
    if first == second:
        return tuple((call, call) for call in range(first))
    if 1 in (first, second):
        return tuple((one, other) for one in range(first) for other in range(second))
    raise FlowError(
        f"select_edges: '{producer}' is called {first} times in a forward pass and '{consumer}' "
        f"{second} times, so their calls can't be paired; name neighbours with equally many calls "
        "or a single one, or take the pairs that the trace found: edges 'graph' or 'main-path'"
    )


def _check_named(graph: LayerGraph, names: tuple[str, ...]) -> None:
    for name, count in Counter(names).items():
        if name in graph.unused:
            problem = "was not called in the traced forward pass"
        elif name not in graph.layers:
            problem = f"is not a prunable layer; {did_you_mean(name, graph.layers)}"
        elif count > 1:
            problem = f"is named {count} times; name each layer once"
        elif any(tap[0] == name and tap not in graph.layouts for tap in graph.calls):
            problem = "has an output without a place for the examples, so it can't be measured"
        else:
            continue
        raise FlowError(f"select_edges: the layer '{name}' {problem}")


def _why_none(graph: LayerGraph, edges: str | tuple[str, ...]) -> str:
    if not isinstance(edges, str):
        return f"expected the names of at least two layers, got {len(edges)}"
    if graph.edges:
        reason = (
            f"none of the {len(graph.edges)} edges found is between outputs that have a place for "
            "the examples"
        )
    else:
        reason = (
            f"of {len(graph.layers)} prunable layers called in the traced forward pass, none "
            "receives the output of another"
        )
    if graph.unused:
        reason += f"; not called: {', '.join(graph.unused)}"
    return f"{reason}; give a model with at least two, or name layers to pair"
