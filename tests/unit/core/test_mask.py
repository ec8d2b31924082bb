from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.mask import Masks
from infcop.errors import PruningError

shapes = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=4)


@st.composite
def two_masks(draw):
    """Return two dictionaries of masks of the same names and shapes."""
    names = {f"layer{i}.weight": shape for i, shape in enumerate(draw(shapes))}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return tuple(
        {name: torch.rand(shape, generator=generator) < 0.6 for name, shape in names.items()}
        for _ in range(2)
    )


@settings(deadline=None, max_examples=60)
@given(two_masks())
def test_counts_equal_those_by_hand(pair) -> None:
    masks = Masks(pair[0])
    by_hand = {name: sum(mask.flatten().tolist()) for name, mask in pair[0].items()}
    assert masks.kept_per_layer == by_hand
    assert masks.kept == sum(by_hand.values())
    assert masks.total == sum(len(mask.flatten()) for mask in pair[0].values())
    if masks.total:
        assert masks.density == masks.kept / masks.total


@settings(deadline=None, max_examples=60)
@given(two_masks())
def test_order_means_survival(pair) -> None:
    a, b = map(Masks, pair)
    both = Masks({name: a[name] & b[name] for name in a})
    either = Masks({name: a[name] | b[name] for name in a})
    assert both <= a <= either
    assert both <= b <= either
    assert a <= a
    survivors = [
        set(torch.cat([m[n].flatten() for n in m]).nonzero().flatten().tolist())
        if len(m)
        else set()
        for m in (a, b)
    ]
    assert (a <= b) == (survivors[0] <= survivors[1])


def test_masks_of_other_layers_are_never_below() -> None:
    one = Masks({"a": torch.tensor([False])})
    assert not one <= Masks({"b": torch.tensor([True])})
    assert not one <= Masks({"a": torch.tensor([True]), "b": torch.tensor([True])})


def test_changing_the_given_tensors_changes_nothing() -> None:
    given_tensor = torch.ones(3, dtype=torch.bool)
    given_masks = {"a": given_tensor}
    masks = Masks(given_masks)
    given_tensor[0] = False
    given_masks["b"] = given_tensor
    assert masks.kept == 3
    assert list(masks) == ["a"]


def test_it_is_a_mapping_that_can_not_be_written_to() -> None:
    masks = Masks({"b": torch.ones(2, dtype=torch.bool), "a": torch.zeros(1, dtype=torch.bool)})
    assert list(masks) == ["b", "a"], "the order of the names given"
    assert len(masks) == 2
    assert "a" in masks
    assert "c" not in masks
    with pytest.raises(TypeError):
        masks["a"] = torch.ones(1, dtype=torch.bool)
    with pytest.raises(KeyError):
        _ = masks["c"]
    with pytest.raises(AttributeError):
        masks.kept = 3


def test_full_masks_keep_everything() -> None:
    masks = Masks.full({"a": (2, 3), "b": (), "c": (0,)})
    assert masks.kept_per_layer == {"a": 6, "b": 1, "c": 0}
    assert masks.density == 1.0
    assert all(mask.dtype == torch.bool for mask in masks.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_a_mask_must_be_boolean(dtype) -> None:
    with pytest.raises(PruningError, match=r"Masks: expected a boolean mask for 'a', got torch\."):
        Masks({"ok": torch.ones(1, dtype=torch.bool), "a": torch.ones(2, dtype=dtype)})


def test_masks_carry_no_graph_and_live_on_the_cpu() -> None:
    masks = Masks({"a": torch.ones(2, dtype=torch.bool, device="cpu")})
    assert masks["a"].device.type == "cpu"
    assert not masks["a"].requires_grad
    assert masks["a"].is_contiguous()
