from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import Adaptive, Cubic, Fraction, MethodConfig, OneShot
from infcop.errors import LayerCollapseError
from infcop.masking.prune import prune_level, pruned_norm
from infcop.scoring import SCORES

SHAPES = {"conv": (8, 3, 3, 3), "fc1": (50, 40), "fc2": (10, 50)}
METHODS = {
    "global": MethodConfig(name="global"),
    "layerwise": MethodConfig(name="layerwise", scope="layerwise", schedule=Fraction(remove=0.35)),
    "sap": MethodConfig(name="sap", schedule=Adaptive(p=1.0, q=2.0), keep_per_layer=2),
    "cubic": MethodConfig(name="cubic", schedule=Cubic(levels=5), keep_per_layer=2),
    "one-shot": MethodConfig(name="one-shot", scope="layerwise", schedule=OneShot()),
}


def random_weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) / shape[0] for name, shape in SHAPES.items()
    }


def prune(
    weights: dict[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    target_kept: int,
    *,
    level: int = 1,
    stop_kept: int | None = None,
) -> Masks:
    scores = {n: SCORES[method.score](w, None, masks[n]) for n, w in weights.items()}
    return prune_level(
        weights, scores, masks, method, level=level, target_kept=target_kept, stop_kept=stop_kept
    )


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_levels_shrink_to_exactly_the_target(method: MethodConfig) -> None:
    levels = [Masks.full(SHAPES)]
    target_kept = round(0.07 * levels[0].total)
    while levels[-1].kept > target_kept:
        weights = random_weights(len(levels))
        levels.append(prune(weights, levels[-1], method, target_kept, level=len(levels)))
        assert levels[-1] <= levels[-2]
        assert levels[-1].kept < levels[-2].kept
    assert levels[-1].kept == target_kept
    again = prune(random_weights(99), levels[-1], method, target_kept)
    assert all(torch.equal(again[name], levels[-1][name]) for name in SHAPES)


def test_layerwise_levels_follow_the_power_of_the_fraction() -> None:
    method = MethodConfig(name="lth", scope="layerwise")
    masks = Masks.full(SHAPES)
    for level in range(1, 11):
        masks = prune(random_weights(level), masks, method, 1)
        for mask in masks.values():
            assert abs(int(mask.sum()) - mask.numel() * 0.8**level) <= level


def test_both_scopes_remove_equally_many() -> None:
    weights, masks = random_weights(0), Masks.full(SHAPES)
    layerwise = METHODS["layerwise"]
    pooled = layerwise.model_copy(update={"scope": "global"})
    assert prune(weights, masks, layerwise, 100).kept == prune(weights, masks, pooled, 100).kept


def test_layerwise_keeps_the_largest_of_each_layer() -> None:
    weights, masks = random_weights(0), Masks.full(SHAPES)
    pruned = prune(weights, masks, METHODS["layerwise"], 1)
    for name, mask in pruned.items():
        assert weights[name].abs()[mask].min() >= weights[name].abs()[~mask].max()


def test_keep_per_layer_saves_a_weak_layer_in_both_scopes() -> None:
    weights = random_weights(0) | {"fc2": torch.full((10, 50), 1e-6)}
    masks = Masks.full(SHAPES)
    drastic = MethodConfig(name="drastic", schedule=Fraction(remove=0.6))
    with pytest.raises(LayerCollapseError, match="'fc2'"):
        prune(weights, masks, drastic, 1)
    floored = drastic.model_copy(update={"keep_per_layer": 30})
    assert prune(weights, masks, floored, 1)["fc2"].sum() == 30
    layerwise = floored.model_copy(update={"scope": "layerwise", "keep_per_layer": 210})
    pruned = prune(weights, masks, layerwise, 1)
    assert pruned["fc2"].sum() == 210
    assert pruned.kept == prune(weights, masks, floored, 1).kept


def test_equal_magnitudes_leave_an_adaptive_level_unchanged() -> None:
    weights = {name: torch.full(shape, -0.3) for name, shape in SHAPES.items()}
    pruned = prune(weights, Masks.full(SHAPES), METHODS["sap"], 1)
    assert pruned.density == 1.0


# -- how much of the weights a level takes ---------------------------------------------------------


def masks_of(**kept: list[bool]) -> Masks:
    return Masks({name: torch.tensor(entries) for name, entries in kept.items()})


def test_the_norm_of_a_level_by_hand() -> None:
    weights = {"a": torch.tensor([2.0, -3.0, 0.0]), "b": torch.tensor([6.0, 9.0])}
    before = masks_of(a=[True, True, True], b=[True, False])
    after = masks_of(a=[False, True, False], b=[False, False])
    # The 9 was pruned before: of 2, 3, 6 the level takes 2 and 6.
    assert pruned_norm(weights, before, after) == pytest.approx((40 / 49) ** 0.5, rel=1e-15)
    assert pruned_norm(weights, before, before) == 0.0


def test_the_norm_neither_overflows_nor_loses_small_weights() -> None:
    weights = {"w": torch.tensor([1e30, 1e30, 1e-30, 1e-30])}
    before = Masks.full({"w": (4,)})
    after = masks_of(w=[True, False, True, False])
    assert pruned_norm(weights, before, after) == pytest.approx(0.5**0.5, rel=1e-15)
    tiny = masks_of(w=[True, True, False, False])
    assert pruned_norm(weights, before, tiny) == pytest.approx(1e-60, rel=1e-6)
    assert pruned_norm({"w": torch.zeros(4)}, before, after) == 0.0


def test_magnitude_pruning_takes_at_most_the_root_of_the_fraction() -> None:
    before = Masks.full(SHAPES)
    for seed in range(5):
        weights = random_weights(seed)
        after = prune(weights, before, METHODS["global"], 1)
        fraction = 1 - after.kept / before.kept
        assert 0 < pruned_norm(weights, before, after) <= fraction**0.5
