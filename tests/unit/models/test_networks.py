"""Edges, calls and channels of many kinds of networks: by hand, and by intervention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from infcop.core.edges import Layout
from infcop.models.graph import main_path, select_edges, trace_graph
from infcop.models.prunable import find_prunable
from infcop.models.zoo import ZOO
from tests.reference.layer_edges import channels_by_intervention
from tests.unit.models.networks import NETWORKS


def traced(model, inputs):
    return trace_graph(model, inputs, find_prunable(model))


def zoo(name, size):
    torch.manual_seed(0)
    options = {} if name == "lenet-300-100" else {"width": 0.1}
    model = ZOO[name].factory(in_channels=1, image_size=size, num_classes=3, **options)
    return model.double().eval(), (torch.randn(2, 1, size, size, dtype=torch.float64),)


SIZES = {"lenet-300-100": 8, "lenet-5": 16, "vgg-16": 32, "resnet-20": 8, "resnet-18": 8}
EXAMPLES = {
    **NETWORKS,
    **{name: lambda name=name, size=size: zoo(name, size) for name, size in SIZES.items()},
}

EDGES = {
    "unet": "down1-down2 down2-bottom bottom-up2 down2-join2 up2-join2 down1-join1 join2-join1 "
    "join1-head",
    "dense": "stem-convs.0 stem-convs.1 convs.0-convs.1 stem-convs.2 convs.0-convs.2 "
    "convs.1-convs.2 stem-fc convs.0-fc convs.1-fc convs.2-fc",
    "flattened": "one-fc other-fc",
    "siamese": "trunk1-trunk2 trunk2-head",
    "recurrent": "inp-step step-step block2-step step-block1 block2-block1 block1-block2 step-out",
    "lstm": "inp-out",
    "time-major": "inp-out",
    "windows": "embed-qkv qkv-proj embed-fc1 proj-fc1 fc1-fc2 embed-head proj-head fc2-head",
    "gated": "conv-squeeze squeeze-excite conv-point excite-point",
    "shuffled": "stem-one stem-two one-two stem-head one-head two-head",
    "transformer": "0-1.linear1 1.linear1-1.linear2 0-2 1.linear2-2",
    "mixed": "image-head table-head",
    "grouped": "q-proj k-proj v-proj q-head k-head v-head proj-head",
}

PAIRS = {
    ("siamese", "trunk1-trunk2"): ((0, 0), (1, 1)),
    ("siamese", "trunk2-head"): ((0, 0), (1, 0)),
    ("recurrent", "step-step"): ((0, 1), (1, 2)),
    ("recurrent", "step-block1"): ((0, 0), (0, 1), (0, 2)),
    ("recurrent", "block1-block2"): ((0, 0), (1, 1), (2, 2)),
    ("recurrent", "block2-block1"): ((0, 1), (0, 2), (1, 2)),
    ("recurrent", "block2-step"): ((0, 1), (1, 1), (2, 1)),
    ("recurrent", "step-out"): ((2, 0),),
}

CHANNELS = {
    ("unet", "up2-join2"): ((0, 4),),
    ("unet", "down2-join2"): ((4, 8),),
    ("unet", "down1-join1"): ((0, 3),),
    ("unet", "join2-join1"): ((3, 7),),
    ("dense", "convs.0-convs.2"): ((4, 7),),
    ("dense", "convs.1-convs.2"): ((7, 10),),
    ("dense", "convs.2-fc"): ((10, 13),),
    # Each channel has left 4 positions.
    ("flattened", "one-fc"): ((0, 8),),
    ("flattened", "other-fc"): ((8, 20),),
    ("siamese", "trunk2-head"): ((0, 10),),
    ("mixed", "image-head"): ((0, 3),),
    ("mixed", "table-head"): ((3, 5),),
    ("gated", "excite-point"): ((0, 4),),
}


def pair(text):
    producer, consumer = text.split("-")
    return producer, consumer


@pytest.mark.parametrize("name", EDGES)
def test_golden_edges(name):
    graph = traced(*NETWORKS[name]())
    assert set(graph.edges) == {pair(text) for text in EDGES[name].split()}
    places = {layer: place for place, layer in enumerate(graph.layers)}
    order = [(places[consumer], places[producer]) for producer, consumer in graph.edges]
    assert order == sorted(order)
    assert len(set(graph.edges)) == len(graph.edges)


@pytest.mark.parametrize(("name", "edge"), PAIRS)
def test_golden_pairs_of_calls(name, edge):
    assert traced(*NETWORKS[name]()).pairs[pair(edge)] == PAIRS[name, edge]


@pytest.mark.parametrize(("name", "edge"), CHANNELS)
def test_golden_channels(name, edge):
    assert traced(*NETWORKS[name]()).channels[pair(edge)] == CHANNELS[name, edge]


@pytest.mark.parametrize("name", EXAMPLES)
def test_calls_agree_with_intervention(name):
    model, inputs = EXAMPLES[name]()
    graph = traced(model, inputs)
    found = {
        ((producer, one), (consumer, other))
        for (producer, consumer), pairs in graph.pairs.items()
        for one, other in pairs
    }
    assert found == set(channels_by_intervention(model, inputs, graph.layers))
    assert set(graph.pairs) == set(graph.channels) == set(graph.edges)


def moved_and_covered(name):
    """Return the consumer's channels that an edge moves, and those that it is said to enter at."""
    model, inputs = EXAMPLES[name]()
    graph = traced(model, inputs)
    moved = {edge: set() for edge in graph.edges}
    found = channels_by_intervention(model, inputs, graph.layers)
    for ((producer, _), (consumer, _)), channels in found.items():
        moved[producer, consumer] |= channels
    covered = {
        edge: {channel for start, stop in ranges for channel in range(start, stop)}
        for edge, ranges in graph.channels.items()
    }
    return moved, covered


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"shuffled"}))
def test_channels_are_those_of_the_intervention(name):
    moved, covered = moved_and_covered(name)
    assert moved == covered


# A dead unit moves nothing, and what is shuffled is attributed to every channel.
@pytest.mark.parametrize("name", [*SIZES, "shuffled"])
def test_no_channel_of_the_intervention_is_missing(name):
    moved, covered = moved_and_covered(name)
    assert all(moved[edge] <= covered[edge] for edge in moved)


def test_what_attention_uses_without_calling_is_unused():
    # nn.MultiheadAttention takes the weight of its output projection.
    assert traced(*NETWORKS["transformer"]()).unused == ("1.self_attn.out_proj",)


def test_calls_in_the_order_of_execution():
    graph = traced(*NETWORKS["siamese"]())
    trunks = (("trunk1", 0), ("trunk2", 0), ("trunk1", 1), ("trunk2", 1))
    assert graph.calls == (*trunks, ("head", 0))
    assert graph.layers == ("trunk1", "trunk2", "head")
    assert graph.called_more_than_once == ("trunk1", "trunk2")


def test_main_path_through_repeated_calls():
    graph = traced(*NETWORKS["recurrent"]())
    blocks = [(f"block{half}", number) for number in range(3) for half in (1, 2)]
    assert main_path(graph) == (
        ("inp", 0),
        ("step", 0),
        *blocks,
        ("step", 1),
        ("step", 2),
        ("out", 0),
    )
    selected = select_edges(graph, "main-path")
    successive = "inp-step step-block1 block1-block2 block2-block1 block2-step step-step step-out"
    assert selected.edges == tuple(map(pair, successive.split()))
    assert selected.pairs == {edge: graph.pairs[edge] for edge in selected.edges}


LAYOUTS = {
    "unet": {"down1": Layout(), "head": Layout()},
    "siamese": {"trunk1": Layout(), "head": Layout()},
    "lstm": {"inp": Layout(), "out": Layout()},
    "time-major": {"inp": Layout(axis=1), "out": Layout(axis=1)},
    "windows": {
        "embed": Layout(),
        "qkv": Layout(fold=4),
        "proj": Layout(fold=4),
        "fc1": Layout(),
        "head": Layout(),
    },
    "transformer": {"0": Layout(), "1.linear2": Layout(), "2": Layout()},
    "mixed": {"image": Layout(), "table": Layout(), "head": Layout()},
    "grouped": {"q": Layout(), "proj": Layout()},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_golden_layouts(name):
    graph = traced(*NETWORKS[name]())
    assert set(graph.layouts) == set(graph.calls)
    assert {layer: graph.layouts[layer, 0] for layer in LAYOUTS[name]} == LAYOUTS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_selected_edges_know_all_that_a_measurement_needs(name):
    graph = traced(*NETWORKS[name]())
    edges = select_edges(graph, "graph")
    assert edges.edges == graph.edges
    assert edges.pairs == graph.pairs
    assert set(edges.layouts) == set(edges.taps)
    assert {edges.layouts[tap] == graph.layouts[tap] for tap in edges.taps} == {True}


def test_a_convolution_without_a_batch_has_its_channels_first():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU(), nn.Conv1d(3, 1, 1))
    graph = traced(model, (torch.randn(2, 5),))
    assert graph.channels == {("0", "2"): ((0, 3),)}
