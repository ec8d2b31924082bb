from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infcop.core.mask import Masks
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.lamp import lamp_counts, lamp_values
from infcop.masking.select import select_layerwise
from tests.reference import pruning

INF, NAN = float("inf"), float("nan")


def select_lamp(
    scores: dict[str, Tensor], masks: Masks, kept: int, keep_per_layer: int = 0
) -> Masks:
    return select_layerwise(scores, masks, lamp_counts(scores, masks, kept, keep_per_layer))


@settings(deadline=None, max_examples=80)
@given(data=st.data(), floor=st.integers(0, 3))
def test_equals_the_formula_in_exact_numbers(data: Any, floor: int) -> None:
    # Small whole numbers: in float64 their squares and sums are exact, and ratios are compared
    # as the exact ones.
    scores, alive = {}, {}
    for layer in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.integers(0, 7))
        values = data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
        # The largest is a power of two, so that dividing by it is exact.
        scores[f"l{layer}"] = torch.tensor([*values, 4.0])
        alive[f"l{layer}"] = torch.tensor(
            [*data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), True]
        )
    masks = Masks(alive)
    least = sum(min(floor, count) for count in masks.kept_per_layer.values())
    kept = data.draw(st.integers(least, masks.kept))
    selected = select_lamp(scores, masks, kept, floor)
    expected = pruning.lamp_kept(scores, masks, kept, floor)
    assert selected.kept == kept
    assert all(torch.equal(selected[name], expected[name]) for name in masks)


def test_random_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (12, 9), "b": (5, 3, 3, 3), "c": (30,)}
    scores = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).abs() * scale
        for (name, shape), scale in zip(shapes.items(), (1e-3, 1.0, 1e3), strict=True)
    }
    masks = Masks({n: torch.rand(s, generator=generator) < 0.8 for n, s in shapes.items()})
    for kept in (150, 40, 3):
        selected = select_lamp(scores, masks, kept)
        expected = pruning.lamp_kept(scores, masks, kept)
        assert all(torch.equal(selected[name], expected[name]) for name in masks)


def test_every_layer_keeps_its_largest_entry_down_to_one_each() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = {f"l{i}": torch.rand(50, generator=generator) * 10.0**i for i in range(4)}
    masks = Masks.full(dict.fromkeys(scores, (50,)))
    selected = select_lamp(scores, masks, 4)
    assert all(int(mask.sum()) == 1 for mask in selected.values())
    assert all(selected[name][scores[name].argmax()] for name in scores)


def test_scale_of_a_layer_changes_nothing() -> None:
    scores = torch.rand(100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for scale in (2.0**-1000, 2.0**900):
        assert np.array_equal(lamp_values((scores * scale).numpy()), lamp_values(scores.numpy()))


def test_values_at_the_borders() -> None:
    assert lamp_values(np.array([])).tolist() == []
    assert lamp_values(np.array([7.0])).tolist() == [1.0]
    assert lamp_values(np.zeros(3)).tolist() == [0.0, 0.0, 1.0]
    assert lamp_values(np.ones(4)).tolist() == [0.25, 1 / 3, 0.5, 1.0]
    assert lamp_values(np.array([INF, 5.0, INF])).tolist() == [0.0, 0.5, 1.0]


def test_a_sign_has_no_place_and_counts_must_be_possible() -> None:
    masks = Masks.full({"a": (3,), "b": (3,)})
    scores = {"a": torch.tensor([1.0, -2.0, 3.0]), "b": torch.ones(3)}
    with pytest.raises(PruningError, match=r"at least 0, got -2 in 'a'; .* such as 'magnitude'"):
        lamp_counts(scores, masks, 3)
    fine = {"a": torch.ones(3), "b": torch.ones(3)}
    with pytest.raises(PruningError, match="got NaN"):
        lamp_counts(fine | {"b": torch.full((3,), NAN)}, masks, 3)
    with pytest.raises(PruningError, match="at most the 6 entries"):
        lamp_counts(fine, masks, 7)
    with pytest.raises(LayerCollapseError, match="keep_per_layer=2 leaves 4 entries"):
        lamp_counts(fine, masks, 3, keep_per_layer=2)
    # What is pruned is never looked at.
    hidden = Masks({"a": torch.tensor([True, False, True]), "b": torch.ones(3) > 0})
    assert sum(lamp_counts(scores, hidden, 4).values()) == 4
