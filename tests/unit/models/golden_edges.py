"""What the tests of other libraries' networks share: lists of edges, and the same by intervention.

A list has one line per consumer, in the order of execution, with its producers in theirs. Where a
producer fills only some of the consumer's input channels, they follow it in brackets.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import torch
from torch import nn

from infcop.models.calling import call
from infcop.models.graph import trace_graph
from infcop.models.kinds import input_channels
from infcop.models.prunable import find_prunable
from tests.reference.layer_edges import channels_by_intervention

GOLDEN = Path(__file__).parent / "golden"


def traced(model, inputs):
    return trace_graph(model, inputs, find_prunable(model))


def lively(model):
    """Make a fresh model in which every branch carries something, in evaluation mode.

    Fresh models may have zeros for the last normalisation of a branch, next to nothing for its
    scale, or a head of zeros: there an edge is, but nothing flows.
    """
    for parameter in model.parameters():
        if parameter.ndim == 1 or not parameter.any():
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.double().eval()


def golden(name):
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def written(model, graph):
    lines = []
    for consumer, edges in groupby(graph.edges, key=lambda edge: edge[1]):
        whole = ((0, input_channels(model.get_submodule(consumer))),)
        producers = []
        for edge in edges:
            ranges = graph.channels[edge]
            places = "" if ranges == whole else "".join(f"[{a}:{b}]" for a, b in ranges)
            producers.append(edge[0] + places)
        lines.append(f"{consumer} <- {' '.join(producers)}")
    return lines


def moved_by_intervention(model, inputs, graph):
    """Return the consumer's channels that each producer moves with all other layers held."""
    found = {}
    moved = channels_by_intervention(model, inputs, graph.layers)
    for ((producer, _), (consumer, _)), channels in moved.items():
        found.setdefault((producer, consumer), set()).update(channels)
    return found


def covered(graph):
    """Return the same as the traced graph has it."""
    return {
        edge: {channel for start, stop in ranges for channel in range(start, stop)}
        for edge, ranges in graph.channels.items()
    }


def rows_that_move(model, inputs, other, graph):
    """Return per call, along the axis of its layout, the entries that differ for other inputs."""
    one, two = (_outputs(model, given, graph.layers) for given in (inputs, other))
    return {
        tap: {
            row
            for row, (before, after) in enumerate(
                zip(one[tap].unbind(layout.axis), two[tap].unbind(layout.axis), strict=True)
            )
            if not torch.equal(before, after)
        }
        for tap, layout in graph.layouts.items()
    }


def rows_of(example, examples, layout):
    if layout.example_first:
        return {example * layout.fold + part for part in range(layout.fold)}
    return {part * examples + example for part in range(layout.fold)}


def _outputs(model, inputs, layers):
    outputs = {}
    with ExitStack() as stack, torch.no_grad():
        for name in layers:

            def keep(_, args, output, name=name):
                number = sum(layer == name for layer, _ in outputs)
                outputs[name, number] = output.clone()

            stack.callback(model.get_submodule(name).register_forward_hook(keep).remove)
        call(model, inputs)
    return outputs
