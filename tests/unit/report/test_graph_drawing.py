from __future__ import annotations

import math
from itertools import combinations, groupby, pairwise

import pytest

from infcop.report.graph_drawing import MOST_DRAWN, draw, with_error
from tests.reference.measurements import (
    CHAIN,
    dense_edges,
    make_edge,
    make_layer,
    make_measurement,
    points_of,
    residual_edges,
)

BRANCHES = [
    *(("in", f"branch{k}") for k in range(5)),
    *((f"branch{k}", "out") for k in range(5)),
    ("in", "out"),
    ("out", "in"),
    ("out", "out"),
]
GRAPHS = {
    "chain": CHAIN,
    "residual": residual_edges(),
    "dense": dense_edges((6, 12)),
    "branches": BRANCHES,
}

every_graph = pytest.mark.parametrize("name", GRAPHS)


@every_graph
def test_no_edge_is_hidden_behind_a_layer(name: str) -> None:
    drawing = draw(make_measurement(GRAPHS[name]))
    assert len(drawing.links) == len(GRAPHS[name])
    for link in drawing.links:
        for x, y in points_of(link.path):
            behind = [
                node.name
                for node in drawing.nodes
                if node.x + 0.2 < x < node.x + node.width - 0.2
                and node.y + 0.2 < y < node.y + node.height - 0.2
            ]
            assert behind == [], link.title


@every_graph
def test_every_edge_joins_its_ends(name: str) -> None:
    record = make_measurement(GRAPHS[name])
    drawing = draw(record)
    boxes = {node.name: node for node in drawing.nodes}
    for link in drawing.links:
        producer, _, consumer = link.title.partition("\n")[0].partition(" → ")
        first, last = points_of(link.path)[0], points_of(link.path)[-1]
        for (x, y), box, side in (
            (first, boxes[producer], boxes[producer].y + boxes[producer].height),
            (last, boxes[consumer], boxes[consumer].y),
        ):
            assert box.x <= x <= box.x + box.width
            assert y == pytest.approx(side, abs=0.1)


@every_graph
def test_everything_is_on_the_drawing_and_no_boxes_overlap(name: str) -> None:
    drawing = draw(make_measurement(GRAPHS[name]))
    for one, other in combinations(drawing.nodes, 2):
        apart = abs(one.x - other.x) >= one.width or abs(one.y - other.y) >= one.height
        assert apart
    for x, y in (point for link in drawing.links for point in points_of(link.path)):
        assert 0 <= x <= drawing.width
        assert 0 <= y <= drawing.height
    for node in drawing.nodes:
        assert 0 <= node.x <= node.x + node.width <= drawing.width
        assert 0 <= node.y <= node.y + node.height <= drawing.height


@every_graph
def test_no_edge_turns_back_on_itself(name: str) -> None:
    for link in draw(make_measurement(GRAPHS[name])).links:
        points = [point for point, _ in groupby(points_of(link.path))]
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(points)]
        assert all(a[0] * b[0] + a[1] * b[1] >= 0 for a, b in pairwise(steps)), link.title


def test_colour_is_the_sign_and_width_the_size() -> None:
    edges = [make_edge(("a", "b"), 0.2), make_edge(("b", "c"), -0.2), make_edge(("c", "d"), 0.0)]
    drawing = draw(make_measurement([edge.ends for edge in edges], edges=edges))
    found = {link.title[0]: link for link in drawing.links}
    assert drawing.scale is not None
    assert found["b"].colour == drawing.scale.colours[0]
    assert found["c"].colour == drawing.scale.colours[1]
    assert found["a"].colour == drawing.scale.colours[2]
    assert found["a"].width == found["b"].width > found["c"].width


def test_the_strongest_edges_lie_on_top() -> None:
    record = make_measurement(residual_edges())
    order = [link.title.partition("\n")[0] for link in draw(record).links]
    strength = {f"{e.producer} → {e.consumer}": abs(e.signed or 0) for e in record.edges}
    assert all(strength[one] <= strength[other] for one, other in pairwise(order))


def test_weak_edges_are_faint_where_there_are_many() -> None:
    few, many = draw(make_measurement(residual_edges())), draw(make_measurement(dense_edges()))
    assert not few.dense
    assert {link.opacity for link in few.links} == {1.0}
    assert many.dense
    assert many.links[0].opacity < 0.4 < 0.9 < many.links[-1].opacity <= 1


def test_the_weakest_of_very_many_are_left_out_and_counted() -> None:
    names = [f"layer{number}" for number in range(60)]
    edges = list(combinations(names, 2))
    record = make_measurement(edges)
    drawing = draw(record)
    assert len(drawing.links) == MOST_DRAWN
    assert drawing.left_out == len(edges) - MOST_DRAWN
    assert len(drawing.nodes) == 60
    kept = {link.title.partition("\n")[0] for link in drawing.links}
    strengths = sorted((abs(edge.signed or 0) for edge in record.edges), reverse=True)
    strongest = {
        f"{e.producer} → {e.consumer}"
        for e in record.edges
        if abs(e.signed or 0) >= strengths[MOST_DRAWN - 1]
    }
    assert kept == strongest


def test_edges_without_numbers_are_grey() -> None:
    record = make_measurement(CHAIN, edges=[make_edge(edge, None) for edge in CHAIN])
    drawing = draw(record)
    assert drawing.scale is None
    assert len({link.colour for link in drawing.links}) == 1
    assert drawing.links[0].title == "fc2 → fc3"


def test_values_that_are_not_finite_can_be_drawn() -> None:
    edges = [make_edge(("fc1", "fc2"), math.nan), make_edge(("fc2", "fc3"), 0.1)]
    links = draw(make_measurement(edges=edges)).links
    assert "not a number" in links[0].title
    assert all(math.isfinite(link.width) for link in links)


def test_dead_units_and_repeated_calls_are_written_on_the_layer() -> None:
    layers = [make_layer("fc1", dead=3), make_layer("fc2", calls=4), make_layer("fc3")]
    first, second, third = draw(make_measurement(layers=layers)).nodes
    assert first.dead
    assert first.lines == ("fc1", "Linear 16\N{MULTIPLICATION SIGN}8", "3 of 16 units dead")
    assert not second.dead
    assert second.lines[1].endswith("4 calls")
    assert third.lines == ("fc3", "Linear 16\N{MULTIPLICATION SIGN}8")
    assert "density 50.0 %" in third.title


def test_an_edge_that_leads_back_is_marked() -> None:
    drawing = draw(make_measurement([("cell", "head"), ("head", "cell"), ("cell", "cell")]))
    back = {link.title.partition("\n")[0]: link.back for link in drawing.links}
    assert back == {"cell → head": False, "head → cell": True, "cell → cell": True}


def test_long_names_keep_their_end() -> None:
    long = "features.denseblock3.denselayer24.something.conv2"
    node = draw(make_measurement([(long, "out")])).nodes[0]
    assert node.name == long
    assert node.lines[0].startswith("…")
    assert long.endswith(node.lines[0][1:])
    assert node.title.startswith(long)


def test_many_rows_are_drawn_closer() -> None:
    few, many = draw(make_measurement(residual_edges(3))), draw(make_measurement(dense_edges()))
    assert many.nodes[0].height < few.nodes[0].height
    assert {len(node.lines) for node in many.nodes} == {1}


def test_nothing_to_draw() -> None:
    drawing = draw(make_measurement((), edges=[]))
    assert (drawing.nodes, drawing.links, drawing.left_out) == ((), (), 0)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.5, 0.0, "0.500 ± 0.000"),
        (-0.0123, 0.00042, "-0.0123 ± 0.0004"),
        (math.nan, 0.1, "not a number"),
        (0.5, math.nan, "0.500"),
    ],
)
def test_errors_have_the_decimals_of_their_value(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text
