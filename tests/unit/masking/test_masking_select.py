from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infcop.core.mask import Masks
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.select import select_global, select_layerwise
from tests.reference import pruning

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SIZES = {"a": (40, 30), "b": (7, 3, 3, 3), "c": (500,)}
INF, NAN = float("inf"), float("nan")


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, Tensor], Masks]:
    """Scores full of ties, infinities too, in any dtype; masks from empty to full."""
    values = st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0, -3.0, INF, -INF, 2.0**-14])
    scores, masks = {}, {}
    for layer in range(draw(st.integers(1, 4))):
        shape = draw(st.sampled_from([(0,), (1,), (5,), (2, 3), (2, 1, 2, 2), (3, 7)]))
        size = torch.Size(shape).numel()
        dtype = draw(st.sampled_from(DTYPES))
        scores[f"layer{layer}"] = torch.tensor(
            draw(st.lists(values, min_size=size, max_size=size)), dtype=dtype
        ).reshape(shape)
        masks[f"layer{layer}"] = torch.tensor(
            draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=torch.bool
        ).reshape(shape)
    return scores, Masks(masks)


def same(masks: Masks, expected: dict[str, Tensor]) -> bool:
    return list(masks) == list(expected) and all(
        torch.equal(masks[name], expected[name]) for name in masks
    )


@settings(deadline=None, max_examples=80)
@given(network=networks(), data=st.data())
def test_global_equals_removing_one_after_the_other(
    network: tuple[dict[str, Tensor], Masks], data: Any
) -> None:
    scores, masks = network
    floor = data.draw(st.integers(0, 4))
    least = sum(min(floor, alive) for alive in masks.kept_per_layer.values())
    kept = data.draw(st.integers(least, masks.kept))
    expected = pruning.select_global(scores, masks, kept, floor)
    selected = select_global(scores, masks, kept, floor)
    assert same(selected, expected)
    assert selected.kept == kept
    assert selected <= masks


@settings(deadline=None, max_examples=100)
@given(network=networks(), data=st.data())
def test_layerwise_equals_sorting_each_layer(
    network: tuple[dict[str, Tensor], Masks], data: Any
) -> None:
    scores, masks = network
    kept = {name: data.draw(st.integers(0, alive)) for name, alive in masks.kept_per_layer.items()}
    selected = select_layerwise(scores, masks, kept)
    assert same(selected, pruning.select_layerwise(scores, masks, kept))
    assert selected.kept_per_layer == kept
    assert selected <= masks


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_random_entries(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = {n: torch.randn(s, generator=generator).to(dtype) for n, s in SIZES.items()}
    masks = Masks({n: torch.rand(s, generator=generator) < 0.7 for n, s in SIZES.items()})
    selected = select_global(scores, masks, kept=300)
    assert same(selected, pruning.select_global(scores, masks, 300))


def test_equal_scores_go_in_flat_order_and_then_layer_order() -> None:
    scores = {"z": torch.ones(2, 2), "a": torch.ones(3)}
    masks = Masks.full({"z": (2, 2), "a": (3,)})
    assert select_global(scores, masks, 4)["z"].tolist() == [[False, False], [False, True]]
    assert select_global(scores, masks, 4)["a"].all()
    layerwise = select_layerwise(scores, masks, {"z": 1, "a": 2})
    assert layerwise["a"].tolist() == [False, True, True]


def test_neighbouring_float64_scores_are_told_apart_from_float32_ones() -> None:
    scores = {
        "wide": torch.tensor([1.0 + 2.0**-50, 5.0], dtype=torch.float64),
        "narrow": torch.tensor([1.0, 5.0]),
    }
    selected = select_global(scores, Masks.full({"wide": (2,), "narrow": (2,)}), 3)
    assert selected["wide"].all()
    assert selected["narrow"].tolist() == [False, True]


def test_alive_means_mask_not_score() -> None:
    scores = {"a": torch.tensor([9.0, 0.0, 1.0, 2.0])}
    masks = Masks({"a": torch.tensor([False, True, True, True])})
    assert select_global(scores, masks, 3)["a"].tolist() == [False, True, True, True]
    assert select_global(scores, masks, 2)["a"].tolist() == [False, False, True, True]


def test_pruned_entries_may_be_nan_but_alive_ones_not() -> None:
    scores = {"fine": torch.ones(2), "broken": torch.tensor([NAN, 1.0, 2.0])}
    shapes = {"fine": (2,), "broken": (3,)}
    hidden = Masks({"fine": torch.ones(2) > 0, "broken": torch.tensor([False, True, True])})
    assert select_global(scores, hidden, 3).kept == 3
    with pytest.raises(PruningError, match="'broken', got NaN"):
        select_global(scores, Masks.full(shapes), 4)
    with pytest.raises(PruningError, match="'broken', got NaN"):
        select_layerwise(scores, Masks.full(shapes), {"fine": 1, "broken": 1})


def test_transposed_scores_are_read_in_the_order_of_the_mask() -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()
    selected = select_layerwise({"a": scores}, Masks.full({"a": (2, 2)}), {"a": 2})
    assert selected["a"].tolist() == [[False, True], [False, True]]


def test_a_layer_may_lose_everything_unless_it_has_a_floor() -> None:
    scores = {"big": torch.full((6,), 9.0), "small": torch.ones(2)}
    masks = Masks.full({"big": (6,), "small": (2,)})
    assert select_global(scores, masks, 6).kept_per_layer == {"big": 6, "small": 0}
    floored = select_global(scores, masks, 6, keep_per_layer=1)
    assert floored.kept_per_layer == {"big": 5, "small": 1}
    assert select_layerwise(scores, masks, {"big": 6, "small": 0})["small"].sum() == 0


def test_floors_of_several_layers_push_each_other() -> None:
    scores = {"a": torch.arange(0.0, 6), "b": torch.arange(4.0, 10), "c": torch.arange(20.0, 26)}
    masks = Masks.full(dict.fromkeys(scores, (6,)))
    for kept in range(9, 19):
        selected = select_global(scores, masks, kept, 3)
        assert same(selected, pruning.select_global(scores, masks, kept, 3))


def test_a_layer_that_is_empty_already_is_no_news() -> None:
    masks = Masks({"a": torch.zeros(3, dtype=torch.bool), "b": torch.ones(3, dtype=torch.bool)})
    scores = {"a": torch.ones(3), "b": torch.ones(3)}
    assert select_global(scores, masks, 2).kept_per_layer == {"a": 0, "b": 2}
    assert select_layerwise(scores, masks, {"a": 0, "b": 2}).kept_per_layer == {"a": 0, "b": 2}


def test_what_is_asked_for_must_be_possible() -> None:
    scores, masks = {"a": torch.ones(4)}, Masks({"a": torch.tensor([True, True, True, False])})
    with pytest.raises(PruningError, match="at most the 3 entries that are alive, got kept=4"):
        select_global(scores, masks, 4)
    with pytest.raises(
        LayerCollapseError, match=r"keep_per_layer=2 leaves 2 .* only 1 may survive"
    ):
        select_global(scores, masks, 1, keep_per_layer=2)
    with pytest.raises(PruningError, match=r"keep 0 to 3 entries of 'a' .* got 4"):
        select_layerwise(scores, masks, {"a": 4})
    with pytest.raises(PruningError, match=r"'a' .* got None"):
        select_layerwise(scores, masks, {"b": 1})
    with pytest.raises(PruningError, match="expected at least one mask"):
        select_global({}, Masks({}), 0)


def test_scores_must_fit_the_masks() -> None:
    masks = Masks.full({"fc.weight": (2, 2)})
    with pytest.raises(PruningError, match=r"'fc.weight', got none; did you mean 'fc.weigth'"):
        select_global({"fc.weigth": torch.ones(2, 2)}, masks, 2)
    with pytest.raises(PruningError, match=r"shape \(2, 2\) for 'fc.weight', got \(4,\)"):
        select_layerwise({"fc.weight": torch.ones(4)}, masks, {"fc.weight": 2})


def test_many_entries_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infcop.masking.rank._PIECE", 64)
    monkeypatch.setattr("infcop.masking.rank._SAMPLE", 100)
    generator = torch.Generator().manual_seed(2)
    # Rounded, so that there are ties across the borders of pieces and layers.
    scores = {n: torch.randn(s, generator=generator).round(decimals=1) for n, s in SIZES.items()}
    masks = Masks({n: torch.rand(s, generator=generator) < 0.8 for n, s in SIZES.items()})
    for kept in (1500, 900, 333, 40):
        selected = select_global(scores, masks, kept, keep_per_layer=10)
        assert same(selected, pruning.select_global(scores, masks, kept, 10))


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_masks_in_any_memory_order(order: str) -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0], [2.0, 2.0, 0.0]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    mask = mask if order == "rows" else mask.t().contiguous().t()
    selected = select_global({"a": scores}, Masks({"a": mask}), 2)
    assert selected["a"].tolist() == [[False, False, False], [True, True, False]]


def test_selection_changes_nothing_it_was_given() -> None:
    scores, masks = {"a": torch.tensor([2.0, 1.0, 3.0])}, Masks.full({"a": (3,)})
    select_global(scores, masks, 1)
    assert scores["a"].tolist() == [2.0, 1.0, 3.0]
    assert masks.kept == 3
