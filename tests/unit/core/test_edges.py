from __future__ import annotations

import re

import pytest

from infcop.core.edges import Edges
from infcop.errors import FlowError


@pytest.mark.parametrize(
    "pairs",
    [[("a", "b"), ("b", "c")], (("a", "b"), ("b", "c")), [["a", "b"], ["b", "c"]]],
)
def test_pairs_of_names_become_edges_in_their_order(pairs) -> None:
    assert Edges.of(pairs).edges == (("a", "b"), ("b", "c"))


def test_pairs_may_come_from_anything_that_is_iterated_over_once() -> None:
    assert Edges.of(zip("ab", "bc", strict=True)).edges == (("a", "b"), ("b", "c"))


def test_edges_are_taken_as_they_are() -> None:
    edges = Edges((("a", "b"),), {("a", "b"): ((0, 0), (1, 1))})
    assert Edges.of(edges) is edges


def test_both_directions_and_a_layer_with_itself_are_edges_of_their_own() -> None:
    assert len(Edges.of([("a", "b"), ("b", "a"), ("a", "a")]).edges) == 3


@pytest.mark.parametrize(
    ("pairs", "edge", "times"),
    [
        ([("a", "b"), ("a", "b")], "('a', 'b')", 2),
        ([("a", "b"), ("b", "c"), ["b", "c"], ("b", "c")], "('b', 'c')", 3),
    ],
)
def test_an_edge_given_twice_is_refused(pairs, edge, times) -> None:
    """It would count twice in the number of examples and halve the standard errors."""
    with pytest.raises(FlowError, match=re.escape(f"edges: {edge} is given {times} times")):
        Edges.of(pairs)


@pytest.mark.parametrize(
    ("pairs", "got"),
    [
        (["0", "3"], "'0'"),
        # Two letters are no pair either, though they unpack like one.
        (["ab"], "'ab'"),
        ([("a", "b"), ("a",)], "('a',)"),
        ([("a", "b", "c")], "('a', 'b', 'c')"),
        ([(0, 1)], "(0, 1)"),
        ([("a", None)], "('a', None)"),
        ([None], "None"),
        ([{"a", "b"}], "{"),
    ],
)
def test_what_is_no_pair_of_names_is_refused(pairs, got) -> None:
    with pytest.raises(FlowError, match=re.escape(f"such as ('conv1', 'conv2'), got {got}")):
        Edges.of(pairs)
