from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import Adaptive, Cubic, Fraction, MethodConfig, OneShot
from infcop.core.pattern import NofM
from infcop.core.scope import Budgets
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.groups import Groups, build_groups
from infcop.masking.prune import emptied, level_rounds, pruned_norm, shrink
from infcop.masking.rounds import round_counts
from infcop.models.weight_axes import WeightAxes
from tests.reference.pruning import prune_level

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
) -> Masks:
    scores = {name: weight.abs() for name, weight in weights.items()}
    return prune_level(weights, scores, masks, method, level=level, target_kept=target_kept)


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


# -- one pruning of scored entries -----------------------------------------------------------------


def shrunk(
    method: MethodConfig, kept: int, scores: dict[str, Tensor], masks: Masks, target_kept: int = 1
) -> Masks:
    return shrink(scores, masks, method, kept, groups=Groups(), target_kept=target_kept)


def test_an_emptied_layer_names_itself_and_the_remedies() -> None:
    scores = {"big": torch.full((6,), 9.0), "small": torch.ones(2)}
    masks = Masks.full({"big": (6,), "small": (2,)})
    method = MethodConfig(name="mine")
    message = r"'small' would lose all of its 2 .* keep_per_layer=1 .* empty_layers='report'"
    with pytest.raises(LayerCollapseError, match=message):
        shrunk(method, 6, scores, masks)
    report = method.model_copy(update={"empty_layers": "report"})
    after = shrunk(report, 6, scores, masks)
    assert after.kept_per_layer == {"big": 6, "small": 0}
    assert emptied(masks, after) == ("small",)
    # What is empty already is no news.
    assert shrunk(method, 5, scores, after).kept == 5
    assert emptied(after, after) == ()


@pytest.mark.parametrize("scope", ["global", "layerwise", "uniform", "erk", "lamp"])
def test_reported_layers_may_be_emptied_with_every_scope(scope: Any) -> None:
    method = MethodConfig(name="mine", scope=scope, empty_layers="report")
    scores = {name: weight.abs() for name, weight in random_weights(0).items()}
    after = shrunk(method, 2, scores, Masks.full(SHAPES), target_kept=2)
    assert after.kept == 2


@pytest.mark.parametrize("scope", ["layerwise", "uniform", "erk", "lamp"])
def test_scopes_by_layer_keep_one_entry_each_as_long_as_there_are_enough(scope: Any) -> None:
    for empty_layers in ("error", "report"):
        method = MethodConfig(name="mine", scope=scope, empty_layers=empty_layers)
        scores = {name: weight.abs() for name, weight in random_weights(0).items()}
        after = shrunk(method, 3, scores, Masks.full(SHAPES))
        assert after.kept_per_layer == dict.fromkeys(SHAPES, 1)


@pytest.mark.parametrize(
    "scope", ["global", "layerwise", "uniform", "erk", "lamp", Budgets(densities={"*": 0.1})]
)
def test_a_floor_holds_with_every_scope(scope: Any) -> None:
    total = Masks.full(SHAPES).total
    target = total // 10
    method = MethodConfig(name="mine", scope=scope, keep_per_layer=20)
    scores = {name: weight.abs() for name, weight in random_weights(0).items()}
    scores["conv"] = scores["conv"] * 1e-3
    after = shrunk(method, target, scores, Masks.full(SHAPES), target)
    assert after.kept == target
    assert all(count >= 20 for count in after.kept_per_layer.values())


def test_a_target_that_no_scores_could_honour_is_refused() -> None:
    scores, masks = random_weights(0), Masks.full(SHAPES)
    floored = MethodConfig(name="mine", keep_per_layer=40)
    message = r"3 layers keep 120 .* \(keep_per_layer=40; 'conv' keeps 40\), but .* ends at 119"
    with pytest.raises(PruningError, match=message) as raised:
        shrunk(floored, 119, scores, masks, target_kept=119)
    # More levels or other scores would not help.
    assert not isinstance(raised.value, LayerCollapseError)
    with pytest.raises(PruningError, match="3 layers keep 3 entries at least"):
        shrunk(MethodConfig(name="mine"), 2, scores, masks, target_kept=2)
    # A look beyond a target that can be honoured is another matter.
    with pytest.raises(LayerCollapseError, match="leaves 120 entries at least, but only 119"):
        shrunk(floored, 119, scores, masks, target_kept=120)


def test_masks_only_shrink_and_groups_are_those_of_the_pattern() -> None:
    scores, masks = random_weights(0), Masks.full(SHAPES)
    method = MethodConfig(name="mine", pattern="channel")
    with pytest.raises(PruningError, match="'channel', got those of 'unstructured'; build them"):
        shrunk(method, 10, scores, masks)
    with pytest.raises(PruningError, match=f"at most the {masks.total} entries that are alive"):
        shrunk(MethodConfig(name="mine"), masks.total + 1, scores, masks)


def test_rounds_of_one_scoring_come_to_the_same_as_one() -> None:
    scores, masks = random_weights(0), Masks.full(SHAPES)
    method = MethodConfig(name="mine")
    once = shrunk(method, 300, scores, masks)
    for count in round_counts(masks.total, 300, 7, "exponential"):
        masks = shrunk(method, count, scores, masks)
        assert masks.kept == count
    assert all(torch.equal(masks[name], once[name]) for name in SHAPES)


@pytest.mark.parametrize("pattern", ["channel", "block"])
@pytest.mark.parametrize("scope", ["global", "layerwise", "uniform", "erk"])
def test_levels_of_groups_shrink_to_the_target_and_no_entry_more(pattern: Any, scope: Any) -> None:
    method = MethodConfig(name="mine", pattern=pattern, scope=scope, keep_per_layer=1)
    axes = {name: WeightAxes(output=0, input=1) for name in SHAPES}
    groups = build_groups(method.pattern, axes, SHAPES)
    masks = Masks.full(SHAPES)
    target, level = masks.total // 4, 0
    while masks.kept > target:
        level += 1
        weights = random_weights(level)
        scores = {name: weight.abs() for name, weight in weights.items()}
        after = prune_level(
            weights, scores, masks, method, level=level, target_kept=target, groups=groups
        )
        assert after <= masks
        assert after.kept < masks.kept
        masks = after
    assert masks.kept <= target
    assert masks.kept >= target - 3 * 50


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


# -- rounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["exponential", "linear"])
@pytest.mark.parametrize("rounds", [1, 2, 7, 100])
def test_rounds_of_n_of_m_are_its_densities(rounds: int, spacing: Any) -> None:
    masks = Masks.full({"fc": (10, 80)})
    method = MethodConfig(name="mine", rounds=rounds, spacing=spacing)
    plain = level_rounds(masks, 200, method, Groups())
    assert plain == round_counts(800, 200, rounds, spacing)
    found = level_rounds(masks, 200, method, Groups(NofM(n=2, m=8)))
    assert len(found) == rounds
    for count, asked in zip(found, plain, strict=True):
        assert count == max(j * 100 for j in range(1, 9) if j * 100 <= asked)
    assert found[-1] == 200
    assert len(set(found)) <= 6
