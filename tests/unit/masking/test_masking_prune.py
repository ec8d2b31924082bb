from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import Adaptive, Fraction, MethodConfig
from infcop.errors import LayerCollapseError
from infcop.masking.prune import prune_level
from infcop.scoring import SCORES

SHAPES = {"conv": (8, 3, 3, 3), "fc1": (50, 40), "fc2": (10, 50)}
METHODS = {
    "global": MethodConfig(name="global"),
    "layerwise": MethodConfig(name="layerwise", scope="layerwise", schedule=Fraction(remove=0.35)),
    "sap": MethodConfig(name="sap", schedule=Adaptive(p=1.0, q=2.0), keep_per_layer=2),
}


def random_weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) / shape[0] for name, shape in SHAPES.items()
    }


def prune(
    weights: dict[str, Tensor], masks: Masks, method: MethodConfig, target_kept: int
) -> Masks:
    scores = {n: SCORES[method.score](w, None, masks[n]) for n, w in weights.items()}
    return prune_level(weights, scores, masks, method, target_kept)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_levels_shrink_to_exactly_the_target(method: MethodConfig) -> None:
    levels = [Masks.full(SHAPES)]
    target_kept = round(0.07 * levels[0].total)
    while levels[-1].kept > target_kept:
        levels.append(prune(random_weights(len(levels)), levels[-1], method, target_kept))
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
