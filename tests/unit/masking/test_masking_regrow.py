from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.mask import Masks
from infcop.core.regrow import Regrow
from infcop.errors import PruningError
from infcop.masking.regrow import exchange, exchange_fraction
from tests.reference import pruning

NAN = float("nan")
SHAPES = {"conv": (8, 3, 3, 3), "fc": (20, 30), "head": (4, 20)}


def random_masks(density: float, seed: int = 0) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return Masks({n: torch.rand(s, generator=generator) < density for n, s in SHAPES.items()})


def random_values(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


# -- by gradient -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(data=st.data(), size=st.integers(1, 12), fraction=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]))
def test_equals_dropping_and_growing_one_after_the_other(
    data: Any, size: int, fraction: float
) -> None:
    values = st.lists(st.integers(-2, 2), min_size=size, max_size=size)
    weight = torch.tensor(data.draw(values)).float()
    gradient = torch.tensor(data.draw(values)).float()
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    after = exchange({"w": weight}, {"w": gradient}, Masks({"w": mask}), fraction, seed=0)
    alive = int(mask.sum())
    count = math.floor(round(fraction * 10) * alive / 10)
    expected = mask if alive == size else pruning.exchange(weight, gradient, mask, count)
    assert torch.equal(after["w"], expected)


def test_a_dropped_entry_may_come_back() -> None:
    weights, gradients = {"w": torch.tensor([0.1, 1.0, 0.0])}, {"w": torch.tensor([9.0, 0.0, 1.0])}
    masks = Masks({"w": torch.tensor([True, True, False])})
    assert exchange(weights, gradients, masks, 0.5, seed=0)["w"].tolist() == [True, True, False]


@pytest.mark.parametrize("by", ["gradient", "random"])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 0.8, 0.97, 1.0])
def test_every_layer_keeps_its_number(by: str, density: float) -> None:
    masks = random_masks(density)
    gradients = random_values(1) if by == "gradient" else None
    after = exchange(random_values(2), gradients, masks, 0.3, seed=3)
    assert after.kept_per_layer == masks.kept_per_layer
    changed = any(not torch.equal(after[name], masks[name]) for name in SHAPES)
    assert changed == (0.0 < density < 1.0)
    assert list(after) == list(masks)


def test_fractions_are_taken_as_written() -> None:
    # 0.29 of 100 is 29, although the binary number lies below.
    mask = torch.arange(200) < 100
    after = exchange({"w": torch.rand(200)}, None, Masks({"w": mask}), 0.29, seed=0)
    assert int((mask & ~after["w"]).sum()) == 29


# -- at random -------------------------------------------------------------------------------------


def test_at_random_nothing_dropped_comes_back() -> None:
    masks, weights = random_masks(0.5), random_values(1)
    after = exchange(weights, None, masks, 0.3, seed=0)
    for name, mask in masks.items():
        dropped, grown = mask & ~after[name], after[name] & ~mask
        count = int(mask.sum()) * 3 // 10
        assert int(dropped.sum()) == int(grown.sum()) == count
        assert weights[name][dropped].abs().max() <= weights[name][mask & after[name]].abs().min()


def test_where_hardly_anything_is_free_fewer_are_exchanged() -> None:
    mask = torch.arange(10) > 1
    after = exchange({"w": torch.arange(10.0)}, None, Masks({"w": mask}), 0.9, seed=0)["w"]
    assert after.tolist() == [True, True, False, False, *[True] * 6]


def test_draws_depend_on_the_seed_and_the_name_only() -> None:
    masks, weights = random_masks(0.3), random_values(1)
    first = exchange(weights, None, masks, 0.3, seed=7)
    torch.manual_seed(5)
    turned = Masks({name: masks[name] for name in reversed(SHAPES)})
    again = exchange(weights, None, turned, 0.3, seed=7)
    assert all(torch.equal(first[name], again[name]) for name in SHAPES)
    other = exchange(weights, None, masks, 0.3, seed=8)
    assert not torch.equal(first["fc"], other["fc"])
    twins = Masks({"one": masks["fc"], "two": masks["fc"]})
    same = exchange({"one": weights["fc"], "two": weights["fc"]}, None, twins, 0.3, seed=7)
    assert not torch.equal(same["one"], same["two"])


def test_all_places_are_equally_likely() -> None:
    masks, weights = Masks({"w": torch.arange(20) < 4}), {"w": torch.ones(20)}
    grown = sum(exchange(weights, None, masks, 0.25, seed=s)["w"].int() for s in range(800))
    assert grown[0] == 0
    assert abs(grown[4:] - 50).max() < 5 * 50**0.5


def test_a_layer_without_a_gradient_is_left_as_it_is() -> None:
    masks, weights, gradients = random_masks(0.5), random_values(1), random_values(2)
    whole = exchange(weights, gradients, masks, 0.3, seed=0)
    some = exchange(
        weights, {name: g for name, g in gradients.items() if name != "fc"}, masks, 0.3, seed=0
    )
    assert torch.equal(some["fc"], masks["fc"])
    assert not torch.equal(whole["fc"], masks["fc"])
    assert all(torch.equal(some[name], whole[name]) for name in ("conv", "head"))
    none = exchange(weights, {}, masks, 0.3, seed=0)
    assert all(torch.equal(none[name], masks[name]) for name in SHAPES)


# -- what it is given ------------------------------------------------------------------------------


def test_nothing_given_is_changed_and_devices_and_orders_do_not_matter() -> None:
    masks, weights, gradients = random_masks(0.5), random_values(1), random_values(2)
    saved = {name: weight.clone() for name, weight in weights.items()}
    after = exchange(weights, gradients, masks, 0.3, seed=0)
    assert all(torch.equal(weights[name], saved[name]) for name in SHAPES)
    turned = {name: w.transpose(0, 1).contiguous().transpose(0, 1) for name, w in weights.items()}
    again = exchange(turned, gradients, masks, 0.3, seed=0)
    assert all(torch.equal(after[name], again[name]) for name in SHAPES)


def test_wrong_input() -> None:
    masks = Masks({"fc": torch.tensor([True, True, False, False])})
    fine = {"fc": torch.ones(4)}
    broken = {"fc": torch.full((4,), NAN)}
    for weights, gradients in ((broken, fine), (fine, broken), (broken, None)):
        with pytest.raises(PruningError, match="'fc', got NaN"):
            exchange(weights, gradients, masks, 0.5, seed=0)
    # NaN where nothing is compared is not looked at.
    hidden = {"fc": torch.tensor([1.0, 2.0, NAN, NAN])}
    assert exchange(hidden, fine, masks, 0.5, seed=0).kept == 2
    for gradients in (fine, None, {}):
        with pytest.raises(PruningError, match=r"a weight for 'fc', got none; give one for every"):
            exchange({"fd": torch.ones(4)}, gradients, masks, 0.5, seed=0)
    with pytest.raises(PruningError, match=r"a weight of shape \(4,\) for 'fc', got \(2, 2\)"):
        exchange({"fc": torch.ones(2, 2)}, fine, masks, 0.5, seed=0)
    for fraction in (-0.1, 1.0, NAN):
        with pytest.raises(PruningError, match=r"a fraction in \[0, 1\)"):
            exchange(fine, fine, masks, fraction, seed=0)


# -- how much --------------------------------------------------------------------------------------


def test_the_fraction_falls_along_a_half_cosine() -> None:
    regrow = Regrow(fraction=0.4, until=0.8)
    assert exchange_fraction(regrow, 0.0) == 0.4
    assert exchange_fraction(regrow, 0.4) == pytest.approx(0.2)
    assert exchange_fraction(regrow, 0.2) == pytest.approx(0.2 * (1 + 0.5**0.5))
    assert [exchange_fraction(regrow, p) for p in (0.8, 0.9, 1.0)] == [0.0, 0.0, 0.0]
    fractions = [exchange_fraction(regrow, i / 100) for i in range(101)]
    assert fractions == sorted(fractions, reverse=True)
    assert all(0 <= fraction < 1 for fraction in fractions)


def test_without_decay_it_stays_until_it_ends() -> None:
    regrow = Regrow(fraction=0.4, until=0.8, decay="none")
    assert [exchange_fraction(regrow, p) for p in (0.0, 0.79, 0.8, 1.0)] == [0.4, 0.4, 0.0, 0.0]
