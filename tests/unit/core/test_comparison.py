from __future__ import annotations

import json
import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.comparison import ANCHORS, Anchor, comparison_name, distance, edge_distances
from infcop.core.records import Comparison, Reading

NAN, INF = math.nan, math.inf


def compared(*pairs):
    """Compare matrices edge by edge, as NumPy has it."""
    pairs = [(np.array(a, float), np.array(b, float)) for a, b in pairs]
    return Comparison(
        difference=[((a - b) ** 2).sum() for a, b in pairs],
        present=[(a**2).sum() for a, _ in pairs],
        reference=[(b**2).sum() for _, b in pairs],
    )


# The first edge moved by 3 of 5 and turned, the second stayed, the third had no correlation.
TWO = compared(([[0, 4]], [[3, 4]]), ([[1, 0]], [[1, 0]]))
THREE = compared(([[0, 4]], [[3, 4]]), ([[1, 0]], [[1, 0]]), ([[2, 0]], [[0, 0]]))


@pytest.mark.parametrize(
    ("measure", "combine", "two", "three"),
    [
        # sqrt(9 / 26), and with the third edge sqrt((9 + 4) / 26)
        ("frobenius", "together", 0.5883484054145521, 0.7071067811865476),
        ("frobenius", "mean", 0.3, 0.3),
        ("frobenius", "worst", 0.6, 0.6),
        # 1 - 17 / sqrt(17 * 26), and with the third edge 1 - 17 / sqrt(21 * 26)
        ("cosine", "together", 0.19139, 0.27247),
        ("cosine", "mean", 0.1, 0.1),
        ("cosine", "worst", 0.2, 0.2),
    ],
)
def test_distances_by_hand(measure, combine, two, three) -> None:
    assert distance(TWO, measure, combine) == pytest.approx(two, rel=1e-4)
    assert distance(THREE, measure, combine) == pytest.approx(three, rel=1e-4)


def test_distances_of_edges_by_hand() -> None:
    assert edge_distances(THREE) == (0.6, 0.0, None)
    assert edge_distances(THREE, "cosine") == pytest.approx((0.2, 0.0, None))


matrices = st.lists(st.floats(-1, 1), min_size=6, max_size=6).filter(
    lambda entries: sum(x * x for x in entries) > 1e-3
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(matrices, matrices), min_size=1, max_size=4))
def test_together_is_the_distance_of_one_long_matrix(pairs) -> None:
    comparison = compared(*pairs)
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    norm = np.linalg.norm
    assert distance(comparison) == pytest.approx(norm(a - b) / norm(b), abs=1e-7)
    assert distance(comparison, "cosine") == pytest.approx(
        1 - a @ b / (norm(a) * norm(b)), abs=1e-7
    )
    for measure in ("frobenius", "cosine"):
        of_edges = edge_distances(comparison, measure)
        assert distance(comparison, measure, "worst") == max(of_edges)
        assert distance(comparison, measure, "mean") == pytest.approx(np.mean(of_edges))


@pytest.mark.parametrize("scale", [1e-6, 3.0])
def test_the_cosine_sees_no_scale_and_the_norm_does(scale) -> None:
    moved = compared(([[0, 4 * scale]], [[3, 4]]))
    assert distance(moved, "cosine") == pytest.approx(0.2)
    assert distance(moved) == pytest.approx(math.hypot(3, 4 - 4 * scale) / 5)


def test_the_same_matrix_is_at_no_distance_despite_rounding() -> None:
    # 0.1 + 0.2 - 0.3 leaves a cosine above 1.
    same = Comparison(difference=(0.0,), present=(0.1 + 0.2,), reference=(0.3,))
    assert distance(same, "cosine") == 0.0
    assert distance(same) == 0.0


def test_opposite_and_silent_matrices() -> None:
    assert distance(compared(([[-1, 2]], [[1, -2]])), "cosine") == 2.0
    silent = compared(([[0, 0]], [[1, -2]]))
    assert (distance(silent), distance(silent, "cosine")) == (1.0, 1.0)


@pytest.mark.parametrize("measure", ["frobenius", "cosine"])
@pytest.mark.parametrize("combine", ["together", "mean", "worst"])
@pytest.mark.parametrize(
    "comparison",
    [
        Comparison(difference=(), present=(), reference=()),
        Comparison(difference=(1.0,), present=(1.0,), reference=(0.0,)),
        Comparison(difference=(1.0, NAN), present=(1.0, NAN), reference=(1.0, 1.0)),
        Comparison(difference=(1.0, INF), present=(1.0, INF), reference=(1.0, 1.0)),
        Comparison(difference=(NAN,), present=(1.0,), reference=(NAN,)),
    ],
    ids=["no edge", "no correlation", "nan", "infinite", "reference nan"],
)
def test_what_can_not_be_compared_is_nan(comparison, measure, combine) -> None:
    assert math.isnan(distance(comparison, measure, combine))


def test_anchors_have_names_of_their_own() -> None:
    assert get_args(Anchor) == ANCHORS
    names = [comparison_name(anchor, units) for anchor in ANCHORS for units in ("all", "alive")]
    assert len(set(names)) == 2 * len(ANCHORS)


def test_comparisons_survive_json() -> None:
    broken = Comparison(difference=(NAN, INF), present=(0.1 + 0.2, 1.0), reference=(-0.0, 5e-324))
    reading = Reading(
        phase="level", level=1, passes=1, comparisons={"last": broken}, mask_change=0.25
    )
    text = reading.model_dump_json()
    again = Reading.model_validate(json.loads(text))
    assert again.model_dump_json() == text
    assert again.comparisons["last"].present == broken.present
    assert math.isnan(again.comparisons["last"].difference[0])
