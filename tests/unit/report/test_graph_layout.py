from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infcop.report.graph_layout import arranged, lanes_of, rows_of
from tests.reference.measurements import dense_edges, residual_edges

NAMES = [f"layer{number}" for number in range(9)]

graphs = st.integers(1, len(NAMES)).flatmap(
    lambda count: st.tuples(
        st.just(NAMES[:count]),
        st.lists(
            st.tuples(st.sampled_from(NAMES[:count]), st.sampled_from(NAMES[:count])), unique=True
        ),
    )
)


@given(graphs)
def test_any_graph_has_every_layer_once_and_edges_that_go_down(graph) -> None:
    layers, edges = graph
    found = arranged(layers, edges)
    assert sorted(name for row in found.rows for name in row) == sorted(layers)
    assert all(found.rows)
    assert sorted([*found.direct, *found.around]) == sorted(edges)
    for producer, consumer in edges:
        if layers.index(producer) < layers.index(consumer):
            assert found.row[producer] < found.row[consumer]
    for producer, consumer in found.direct:
        assert found.row[consumer] == found.row[producer] + 1


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12))))
def test_two_spans_in_one_lane_have_no_row_in_common(spans) -> None:
    lanes = lanes_of(spans)
    assert len(lanes) == len(spans)
    assert sorted(set(lanes)) == list(range(len(set(lanes))))
    for one, other in combinations(range(len(spans)), 2):
        if lanes[one] == lanes[other]:
            (a, b), (c, d) = sorted(spans[one]), sorted(spans[other])
            assert b < c or d < a


def test_a_chain_is_a_column() -> None:
    found = arranged(("a", "b", "c"), (("a", "b"), ("b", "c")))
    assert found.rows == (("a",), ("b",), ("c",))
    assert found.lanes == 0


def test_the_longest_path_decides_the_row() -> None:
    edges = (("stem", "a"), ("a", "b"), ("stem", "b"), ("b", "c"), ("a", "c"))
    assert rows_of(("stem", "a", "b", "c"), edges) == (("stem",), ("a",), ("b",), ("c",))


def test_a_second_input_stands_right_above_its_consumer() -> None:
    edges = (("a", "b"), ("b", "c"), ("other", "c"))
    assert rows_of(("a", "b", "other", "c"), edges) == (("a",), ("b", "other"), ("c",))


def test_layers_without_an_edge_come_last_in_short_rows() -> None:
    rows = rows_of(("x", "a", "b", "y", "z", "w"), (("a", "b"),))
    assert rows == (("a",), ("b",), ("x", "y", "z"), ("w",))


def test_a_layer_called_again_goes_around() -> None:
    found = arranged(("cell", "head"), (("cell", "cell"), ("cell", "head"), ("head", "cell")))
    assert found.rows == (("cell",), ("head",))
    assert set(found.around) == {("cell", "cell"), ("head", "cell")}


def test_branches_are_untangled() -> None:
    layers = ("in", "a1", "b1", "b2", "a2", "out")
    edges = (("in", "a1"), ("in", "b1"), ("a1", "a2"), ("b1", "b2"), ("a2", "out"), ("b2", "out"))
    rows = arranged(layers, edges).rows
    assert [name[0] for name in rows[1]] == [name[0] for name in rows[2]]


def test_short_spans_lie_inside() -> None:
    found = arranged([*dict.fromkeys(n for e in residual_edges(3) for n in e)], residual_edges(3))
    long, short = found.around["stem", "head"], found.around["stem", "block1.conv1"]
    assert short < long


@pytest.mark.parametrize("edges", [residual_edges(54), dense_edges()], ids=["residual", "dense"])
def test_deep_networks_get_a_row_for_each_layer(edges) -> None:
    layers = list(dict.fromkeys(name for edge in edges for name in edge))
    assert [len(row) for row in arranged(layers, edges).rows] == [1] * len(layers)


def test_nothing_to_arrange() -> None:
    assert arranged((), ()).rows == ()
    assert arranged((), ()).lanes == 0
