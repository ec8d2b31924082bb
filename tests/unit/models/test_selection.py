"""The main path, and the choice of the edges to measure on."""

from __future__ import annotations

import pytest

from infcop.core.edges import Edges, Layout
from infcop.errors import FlowError
from infcop.models.graph import LayerGraph, main_path, select_edges


def graph_of(*edges, layers="abcdef", pairs=None, **counts):
    """Return a graph of layers with names of one letter, called once unless counts say more."""
    calls = [(layer, number) for layer in layers for number in range(counts.get(layer, 1))]
    named = tuple((edge[0], edge[1]) for edge in edges)
    return LayerGraph(
        tuple(calls),
        named,
        {edge: (pairs or {}).get("".join(edge), ((0, 0),)) for edge in named},
        layouts=dict.fromkeys(calls, Layout()),
        unused=("idle",),
    )


@pytest.mark.parametrize(
    ("edges", "path"),
    [
        (("ab", "bc", "ad", "de", "ce"), "abce"),
        # Of two chains of equal length the one that is executed earlier.
        (("ab", "ac", "bd", "cd"), "abd"),
        (("ac", "ab", "bd", "cd"), "abd"),
        (("bc", "ad", "de", "cf"), "ade"),
        (("bc", "de"), "bc"),
        ((), "a"),
    ],
)
def test_main_path(edges, path):
    assert main_path(graph_of(*edges)) == tuple((layer, 0) for layer in path)


def test_main_path_of_nothing():
    assert main_path(LayerGraph((), ())) == ()


def test_main_path_goes_along_calls():
    # a is called before and after b; only the first call reaches it.
    pairs = {"ab": ((0, 0),), "ba": ((0, 1),), "ac": ((0, 0), (1, 0))}
    calls = (("a", 0), ("b", 0), ("a", 1), ("c", 0))
    edges = (("b", "a"), ("a", "b"), ("a", "c"))
    graph = LayerGraph(calls, edges, {edge: pairs["".join(edge)] for edge in edges})
    assert main_path(graph) == calls


def test_a_long_main_path():
    steps = 3000
    graph = graph_of(
        "aa", layers="a", a=steps, pairs={"aa": tuple((n, n + 1) for n in range(2999))}
    )
    assert len(main_path(graph)) == steps


def test_select_edges():
    graph = graph_of("ab", "ac", "bc", "cd")
    assert select_edges(graph, "graph").edges == graph.edges
    assert select_edges(graph, "main-path").edges == (("a", "b"), ("b", "c"), ("c", "d"))
    assert select_edges(graph, ("d", "a", "f")) == Edges(
        (("d", "a"), ("a", "f")),
        {("d", "a"): ((0, 0),), ("a", "f"): ((0, 0),)},
        {(layer, 0): Layout() for layer in "daf"},
    )


def test_traced_pairs_of_calls_are_taken_over():
    pairs = {"ab": ((0, 0), (1, 1)), "bc": ((0, 0), (1, 0))}
    graph = graph_of("ab", "bc", a=2, b=2, pairs=pairs)
    for choice in ("graph", "main-path"):
        assert select_edges(graph, choice).pairs == {
            ("a", "b"): pairs["ab"],
            ("b", "c"): pairs["bc"],
        }


def test_an_edge_of_the_main_path_is_named_once():
    graph = graph_of("aa", "ab", a=3, pairs={"aa": ((0, 1), (1, 2)), "ab": ((2, 0),)})
    assert select_edges(graph, "main-path").edges == (("a", "a"), ("a", "b"))


def test_named_layers_pair_their_calls_in_order_or_one_with_all():
    graph = graph_of(a=2, b=2, c=1, d=3)
    assert select_edges(graph, ("a", "b", "c", "d")).pairs == {
        ("a", "b"): ((0, 0), (1, 1)),
        ("b", "c"): ((0, 0), (1, 0)),
        ("c", "d"): ((0, 0), (0, 1), (0, 2)),
    }
    message = "'b' is called 2 times in a forward pass and 'd' 3 times, so their calls can't be"
    with pytest.raises(FlowError, match=message):
        select_edges(graph, ("b", "d"))


def test_pairs_without_a_layout_are_left_out():
    graph = graph_of("ab", "bc", b=2, pairs={"ab": ((0, 0), (0, 1)), "bc": ((1, 0),)})
    known = {tap: layout for tap, layout in graph.layouts.items() if tap != ("b", 1)}
    graph = LayerGraph(graph.calls, graph.edges, graph.pairs, layouts=known)
    for choice in ("graph", "main-path"):
        assert select_edges(graph, choice) == Edges(
            (("a", "b"),),
            {("a", "b"): ((0, 0),)},
            {("a", 0): Layout(), ("b", 0): Layout()},
        )
    with pytest.raises(FlowError, match="'b' has an output without a place for the examples"):
        select_edges(graph, ("b", "c"))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (("conv1", "con2"), "'con2' is not a prunable layer; did you mean 'conv2'"),
        (("conv1", "idle"), "'idle' was not called"),
        (("conv1", "conv2", "conv1"), "'conv1' is named 2 times"),
        (("conv1",), "at least two layers, got 1"),
        ((), "at least two layers, got 0"),
        ("main", "expected 'graph', 'main-path' or a tuple of layer names, got 'main'"),
        ("graph", "of 2 prunable layers called.*none receives.*; not called: idle"),
        ("main-path", "no edge to measure flow on"),
    ],
)
def test_select_edges_says_what_is_wrong(edges, message):
    calls = (("conv1", 0), ("conv2", 0))
    graph = LayerGraph(calls, (), layouts=dict.fromkeys(calls, Layout()), unused=("idle",))
    with pytest.raises(FlowError, match=message):
        select_edges(graph, edges)
