from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from infcop.core.comparison import distance
from infcop.errors import FlowError
from infcop.flow.compare import compare, matrices
from infcop.flow.information import correlation
from infcop.flow.moments import CoMoments

EDGES = [("a", "b"), ("b", "c")]


def measured(seed):
    """Three layers of 4, 5 and 2 units; the second unit of the first never varies."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(30, 4, generator=generator)
    a[:, 1] = 7
    b = (a @ torch.randn(4, 5, generator=generator)).relu()
    moments = CoMoments(EDGES)
    moments.update({"a": a, "b": b, "c": b[:, :2] + torch.randn(30, 2, generator=generator)})
    return moments


def test_matrices_are_the_correlations_of_every_edge() -> None:
    moments = measured(0)
    kept = matrices(moments)
    assert list(kept) == EDGES
    for edge, matrix in kept.items():
        assert matrix.dtype == torch.float32
        torch.testing.assert_close(matrix.double(), correlation(moments, edge), atol=1e-7, rtol=0)


def test_norms_are_those_of_numpy() -> None:
    here, there = matrices(measured(0)), matrices(measured(1))
    found = compare(here, there)
    for place, edge in enumerate(EDGES):
        a, b = (np.asarray(side[edge], np.float64) for side in (here, there))
        assert found.difference[place] == pytest.approx(np.linalg.norm(a - b) ** 2, rel=1e-12)
        assert found.present[place] == pytest.approx(np.linalg.norm(a) ** 2, rel=1e-12)
        assert found.reference[place] == pytest.approx(np.linalg.norm(b) ** 2, rel=1e-12)


@pytest.mark.parametrize("units", ["all", "alive"])
def test_a_state_is_at_no_distance_from_itself_also_after_a_trip_to_disk(units, tmp_path) -> None:
    kept = matrices(measured(0))
    save_file({str(i): matrix for i, matrix in enumerate(kept.values())}, tmp_path / "kept")
    stored = load_file(tmp_path / "kept")
    again = {edge: stored[str(i)] for i, edge in enumerate(EDGES)}
    assert distance(compare(again, kept, units)) == 0.0
    assert compare(again, kept, units).difference == (0.0, 0.0)


def test_units_dead_in_either_state_are_left_out_of_all_three_norms() -> None:
    edge = ("a", "b")
    here = {edge: torch.tensor([[0.5, 0.0, 0.3], [0.0, 0.0, 0.0], [0.1, 0.0, 0.2]])}
    there = {edge: torch.tensor([[0.4, 0.6, 0.0], [0.7, 0.1, 0.0], [0.3, 0.9, 0.0]])}
    # Row 1 and column 1 are dead here, column 2 there: what is left is (0.5, 0.1) and (0.4, 0.3).
    alive = compare(here, there, "alive")
    assert alive.difference[0] == pytest.approx(0.01 + 0.04)
    assert alive.present[0] == pytest.approx(0.25 + 0.01)
    assert alive.reference[0] == pytest.approx(0.16 + 0.09)
    assert compare(here, there).present[0] == pytest.approx(0.25 + 0.09 + 0.01 + 0.04)


def test_nothing_alive_is_nothing_to_compare() -> None:
    edge = ("a", "b")
    dead = compare({edge: torch.zeros(2, 2)}, {edge: torch.eye(2)}, "alive")
    assert (dead.difference, dead.present, dead.reference) == ((0.0,), (0.0,), (0.0,))
    assert math.isnan(distance(dead))


@pytest.mark.parametrize("units", ["all", "alive"])
def test_what_is_not_finite_stays_so(units) -> None:
    edge = ("a", "b")
    broken = {edge: torch.tensor([[math.nan, 0.5], [0.5, 1.0]])}
    assert math.isnan(distance(compare(broken, {edge: torch.eye(2)}, units)))
    assert math.isnan(distance(compare({edge: torch.eye(2)}, broken, units)))


def test_other_edges_or_widths_are_refused() -> None:
    edge, other = ("a", "b"), ("a", "c")
    with pytest.raises(FlowError, match="expected the same edges on both sides"):
        compare({edge: torch.eye(2)}, {other: torch.eye(2)})
    with pytest.raises(FlowError, match=r"one shape for a -> b, got \(2, 2\) and \(3, 3\)"):
        compare({edge: torch.eye(2)}, {edge: torch.eye(3)})


def test_one_example_has_no_correlation_to_compare() -> None:
    moments = CoMoments([("a", "b")])
    with pytest.raises(FlowError, match="expected at least two examples of a -> b, got 0"):
        matrices(moments)
    moments.update({"a": torch.ones(1, 2), "b": torch.ones(1, 3)})
    (one,) = matrices(moments).values()
    assert one.shape == (2, 3)
    assert bool(one.isnan().all())
    assert math.isnan(distance(compare({("a", "b"): one}, {("a", "b"): torch.ones(2, 3)})))


def test_no_edges_are_nothing() -> None:
    assert compare({}, {}).difference == ()
