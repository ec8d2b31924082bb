from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.scope import Budgets
from infcop.errors import PruningError
from infcop.masking.densities import budget_counts, check_floor
from infcop.masking.groups import Groups
from infcop.masking.limits import layer_limits
from infcop.masking.prune import shrink

SHAPES = {"conv1": (16, 3, 3, 3), "conv2": (32, 16, 3, 3), "fc1": (64, 128), "fc2": (10, 64)}
SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}
TOTAL = sum(SIZES.values())


def limits(scope: Any, kept: int, target_kept: int | None = None, **changed: Any) -> dict[str, int]:
    given = {
        "alive": SIZES,
        "least": dict.fromkeys(SIZES, 1),
        "kept": kept,
        "target_kept": target_kept or kept,
    }
    return layer_limits(scope, SHAPES, {name: (name,) for name in SHAPES}, **(given | changed))


# -- uniform ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [TOTAL, 9000, 700, 40])
def test_uniform_brings_all_layers_to_one_density(kept: int) -> None:
    counts = limits("uniform", kept)
    assert sum(counts.values()) == kept
    assert all(abs(counts[name] - SIZES[name] * kept / TOTAL) < 1 for name in SIZES)


def test_uniform_makes_up_for_layers_that_are_sparser_already() -> None:
    alive = SIZES | {"fc1": 100}
    counts = limits("uniform", 3000, alive=alive)
    assert counts["fc1"] == 100
    rest = TOTAL - SIZES["fc1"]
    assert all(abs(counts[n] - SIZES[n] * 2900 / rest) < 1 for n in ("conv1", "conv2", "fc2"))


# -- Erdos-Renyi kernel ----------------------------------------------------------------------------


def erk_density(shape: tuple[int, ...]) -> float:
    """Return what the density is proportional to, as the paper writes it."""
    n_out, n_in, *kernel = shape
    return (n_in + n_out + sum(kernel)) / (n_in * n_out * math.prod(kernel))


@pytest.mark.parametrize("kept", [200, 120])
def test_densities_follow_the_kernel_rule(kept: int) -> None:
    counts = limits("erk", kept)
    raw = {name: erk_density(shape) for name, shape in SHAPES.items()}
    scale = kept / sum(raw[name] * SIZES[name] for name in SHAPES)
    assert all(abs(counts[n] / SIZES[n] - scale * raw[n]) < 1 / SIZES[n] for n in SHAPES)


def test_layers_that_would_be_more_than_dense_are_dense_and_the_rest_is_rescaled() -> None:
    kept = round(0.5 * TOTAL)
    counts = limits("erk", kept)
    dense = {name for name in SHAPES if counts[name] == SIZES[name]}
    assert dense == {"conv1", "fc2"}
    raw = {name: erk_density(shape) for name, shape in SHAPES.items() if name not in dense}
    rest = kept - sum(SIZES[name] for name in dense)
    scale = rest / sum(raw[name] * SIZES[name] for name in raw)
    assert all(scale * raw[name] < 1 for name in raw)
    assert all(abs(counts[n] / SIZES[n] - scale * raw[n]) < 1 / SIZES[n] for n in raw)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), scope=st.sampled_from(["uniform", "erk", "layerwise"]))
def test_levels_fall_in_every_layer_and_totals_are_exact(data: Any, scope: str) -> None:
    kept = TOTAL
    alive = SIZES
    for _ in range(4):
        kept = data.draw(st.integers(4, kept))
        counts = limits(scope, kept, alive=alive)
        assert sum(counts.values()) == kept
        assert all(1 <= counts[name] <= alive[name] for name in alive)
        alive = counts


# -- densities of layers ---------------------------------------------------------------------------

BUDGETS = Budgets(densities={"conv1": 1.0, "conv*": 0.3, "fc?": 0.1})
TARGET = round(432 + 0.3 * 4608 + 0.1 * (8192 + 640))


def test_given_densities_are_met_at_the_end() -> None:
    counts = limits(BUDGETS, TARGET)
    assert sum(counts.values()) == TARGET
    wanted = {"conv1": 432, "conv2": 0.3 * 4608, "fc1": 819.2, "fc2": 64}
    assert all(abs(counts[name] - wanted[name]) < 1 for name in wanted)


def test_on_the_way_every_layer_has_lost_the_same_part_of_what_it_loses() -> None:
    final = limits(BUDGETS, TARGET)
    for part in (0.25, 0.5, 0.9):
        kept = TOTAL - round(part * (TOTAL - TARGET))
        counts = limits(BUDGETS, kept, TARGET)
        assert sum(counts.values()) == kept
        for name in SIZES:
            assert abs(SIZES[name] - counts[name] - part * (SIZES[name] - final[name])) < 2


def test_the_first_pattern_that_matches_counts_and_decimals_are_exact() -> None:
    counts = budget_counts(Budgets(densities={"b": 0.29, "*": 0.5}), {"a": (10,), "b": (100,)}, 34)
    assert counts == {"a": 5, "b": 29}


def test_densities_must_come_to_that_of_the_search() -> None:
    shapes = {"a": (100,), "b": (100,)}
    budgets = Budgets(densities={"a": 0.5, "b": 0.1})
    for target in (58, 60, 62):
        budget_counts(budgets, shapes, target)
    for target in (57, 63):
        with pytest.raises(PruningError, match=r"come to 0\.3 together, .* set density: 0\.3"):
            budget_counts(budgets, shapes, target)


@pytest.mark.parametrize(
    ("densities", "message"),
    [
        ({"a": 0.5}, r"got none for 'b'; add it to scope.densities, or '\*'"),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, r"for 'c' counts for no layer; .*known: a, b"),
        ({"*": 0.5, "b": 0.5}, r"'b' counts for no layer; an earlier one matches 'b' already"),
    ],
)
def test_every_layer_has_a_density_and_every_density_a_layer(
    densities: dict[str, float], message: str
) -> None:
    with pytest.raises(PruningError, match=message):
        budget_counts(Budgets(densities=densities), {"a": (10,), "b": (10,)}, 10)


def test_a_density_below_the_floor_names_its_layer() -> None:
    with pytest.raises(PruningError, match=r"of 'fc2' leaves 64 of its 640 .* keep_per_layer=65"):
        check_floor(BUDGETS, SHAPES, TARGET, 65)
    check_floor(BUDGETS, SHAPES, TARGET, 64)
    # A floor above a layer's size asks for all that it has.
    check_floor(Budgets(densities={"*": 1.0}), {"a": (5,)}, 5, 100)


# -- through the whole step ------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["layerwise", "uniform", "erk", "lamp", BUDGETS])
def test_scopes_keep_exactly_what_they_say_and_the_best_of_each_layer(scope: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    method = MethodConfig(name="mine", scope=scope)
    masks = Masks.full(SHAPES)
    for kept in (9000, 5000, TARGET):
        after = shrink(scores, masks, method, kept, groups=Groups(), target_kept=TARGET)
        assert after <= masks
        assert after.kept == kept
        for name, mask in after.items():
            gone = masks[name] & ~mask
            assert not gone.any() or scores[name][gone].max() <= scores[name][mask].min()
        masks = after
