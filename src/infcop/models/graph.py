"""Edges between the prunable layers of any model, found from one real batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn
from torch.autograd.graph import Node

from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.models.prunable import Prunable, prunable_layers
from infcop.models.trace import Call, record_calls

__all__ = ["LayerGraph", "main_path", "select_edges", "trace_graph"]


@dataclass(frozen=True)
class LayerGraph:
    """Which prunable layers feed which.

    Attributes:
        layers: Names of the modules that were called, in the order of their first calls.
        edges: Pairs (producer, consumer): the consumer receives the producer's output with no
            other prunable layer between. In the order of the consumers, then of the producers.
        called_more_than_once: Layers with several calls in one forward pass; they have no output
            of their own to tap, so they end the search for producers but appear in no edge.
        unused: Prunable layers that were not called in this forward pass.
    """

    layers: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    called_more_than_once: tuple[str, ...]
    unused: tuple[str, ...]


def trace_graph(model: nn.Module, inputs: tuple[Any, ...], prunable: Prunable) -> LayerGraph:
    """Run the model once in evaluation mode and read the edges off its autograd graph.

    From each consumer's inputs the graph is followed backwards until a prunable layer's output.
    So sums, concatenations, attention, functional calls, frozen and unprunable layers are passed
    through. There is no edge across ``detach`` or integers, nor for branches that this batch does
    not take, nor to or from a layer whose weight is used without calling the module (it is among
    ``unused``); a layer run under ``no_grad`` or in a reentrant checkpoint is nobody's producer.
    The model, its gradients and the random generators stay as they were.

    Args:
        model: Any model.
        inputs: The positional arguments of one real batch, on the model's device.
        prunable: What ``find_prunable(model)`` returned.

    Raises:
        ModelError: The model rejects the inputs.

    Example:
        >>> import torch
        >>> from infcop.models.prunable import find_prunable
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> trace_graph(model, (torch.zeros(1, 3),), find_prunable(model)).edges
        (('0', '2'),)
    """
    watched = prunable_layers(model, prunable)
    calls = record_calls(model, inputs, watched)
    counts = Counter(call.layer for call in calls)
    once = [call for call in calls if counts[call.layer] == 1]
    owners = {node: call.layer for call in calls for node in call.outputs}
    edges = []
    for consumer in once:
        producers = _producers(consumer, owners)
        edges += [
            (producer.layer, consumer.layer) for producer in once if producer.layer in producers
        ]
    return LayerGraph(
        layers=tuple(counts),
        edges=tuple(edges),
        called_more_than_once=tuple(layer for layer in counts if counts[layer] > 1),
        unused=tuple(layer for layer in watched if layer not in counts),
    )


def main_path(graph: LayerGraph) -> tuple[str, ...]:
    """Return the longest chain of layers along the edges.

    Shortcut projections are left out, as the way around them is longer. Of several longest
    chains, the one whose layers are executed earliest, compared from the start.

    Example:
        >>> edges = (("a", "b"), ("a", "shortcut"), ("b", "c"), ("shortcut", "c"))
        >>> main_path(LayerGraph(("a", "b", "shortcut", "c"), edges, (), ()))
        ('a', 'b', 'c')
    """
    chains: dict[str, tuple[str, ...]] = {}
    # Edges point forward in execution order, so consumers are settled before their producers.
    for layer in reversed(graph.layers):
        onward = [chains[consumer] for producer, consumer in graph.edges if producer == layer]
        chains[layer] = (layer, *max(onward, key=len, default=()))
    return max((chains[layer] for layer in graph.layers), key=len, default=())


def select_edges(graph: LayerGraph, edges: str | tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the edges that flow is measured on.

    Args:
        graph: The traced layers.
        edges: ``"graph"`` for all edges, ``"main-path"`` for the successive pairs of the longest
            chain, or names of layers, whose successive pairs are taken.

    Raises:
        FlowError: A named layer is unknown, named twice, or was not called exactly once; or no
            edge results.

    Example:
        >>> graph = LayerGraph(("a", "b", "c"), (("a", "b"), ("b", "c")), (), ())
        >>> select_edges(graph, ("a", "c"))
        (('a', 'c'),)
    """
    if edges == "graph":
        selected = graph.edges
    elif edges == "main-path":
        selected = tuple(pairwise(main_path(graph)))
    elif isinstance(edges, str):
        raise FlowError(
            f"select_edges: expected 'graph', 'main-path' or a tuple of layer names, got '{edges}'"
        )
    else:
        _check_named(graph, edges)
        selected = tuple(pairwise(edges))
    if not selected:
        raise FlowError(f"select_edges: no edge to measure flow on: {_why_none(graph, edges)}")
    return selected


def _producers(consumer: Call, owners: Mapping[Node, str]) -> set[str]:
    found: set[str] = set()
    stack = list(consumer.inputs)
    # Holding the nodes themselves: the identity of a released one may be used again.
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in owners:
            found.add(owners[node])
        else:
            stack.extend(before for before, _ in node.next_functions if before is not None)
    return found


def _check_named(graph: LayerGraph, names: tuple[str, ...]) -> None:
    for name, count in Counter(names).items():
        if name in graph.called_more_than_once:
            problem = "is called more than once in a forward pass, so it has no single output"
        elif name in graph.unused:
            problem = "was not called in the traced forward pass"
        elif name not in graph.layers:
            usable = set(graph.layers) - set(graph.called_more_than_once)
            problem = f"is not a prunable layer; {did_you_mean(name, usable)}"
        elif count > 1:
            problem = f"is named {count} times; name each layer once"
        else:
            continue
        raise FlowError(f"select_edges: the layer '{name}' {problem}")


def _why_none(graph: LayerGraph, edges: str | tuple[str, ...]) -> str:
    if not isinstance(edges, str):
        return f"expected the names of at least two layers, got {len(edges)}"
    reason = (
        f"of {len(graph.layers)} prunable layers called in the traced forward pass, none receives "
        "the output of another"
    )
    if graph.called_more_than_once:
        reason += f"; called more than once: {', '.join(graph.called_more_than_once)}"
    if graph.unused:
        reason += f"; not called: {', '.join(graph.unused)}"
    return f"{reason}; give a model with at least two, or name layers to pair"
