from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import NofM
from infcop.core.schedule import Cubic, Fraction, OneShot, Schedule
from infcop.core.scope import Budgets
from infcop.errors import PruningError
from infcop.masking.groups import Groups, build_groups
from infcop.masking.n_of_m import n_of_m_kept, select_n_of_m
from infcop.masking.prune import level_kept, shrink
from infcop.models.prunable import find_prunable
from infcop.models.weight_axes import WeightAxes, weight_axes
from tests.reference import pruning
from tests.reference.pruning import prune_level

PLAIN, TURNED = WeightAxes(output=0, input=1), WeightAxes(output=1, input=0)
INF, NAN = float("inf"), float("nan")


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 4, 3), nn.ConvTranspose2d(4, 6, 3), nn.Linear(12, 5))


def setting(pattern: NofM) -> tuple[dict[str, Tensor], Masks, Groups]:
    torch.manual_seed(0)
    model = network()
    found = find_prunable(model)
    weights = {name: p.detach() for name, p in model.named_parameters() if name in found.names}
    groups = build_groups(pattern, weight_axes(model, found.names), found.shapes)
    return weights, Masks.full(found.shapes), groups


@settings(deadline=None, max_examples=80)
@given(data=st.data(), m=st.integers(2, 5), axes=st.sampled_from([PLAIN, TURNED]))
def test_equals_walking_along_the_inputs(data: Any, m: int, axes: WeightAxes) -> None:
    count = data.draw(st.integers(1, m))
    shape = [data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)) * m]
    shape = [*(shape if axes is PLAIN else shape[::-1]), *data.draw(st.sampled_from([(), (2,)]))]
    size = torch.Size(shape).numel()
    values = st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0, INF, -INF])
    scores = torch.tensor(data.draw(st.lists(values, min_size=size, max_size=size))).reshape(shape)
    alive = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    masks = Masks({"w": torch.tensor(alive).reshape(shape)})
    selected = select_n_of_m({"w": scores}, masks, count * size // m, {"w": axes}, m)
    expected = pruning.n_of_m(scores, masks["w"], count, m, axes.input)
    assert torch.equal(selected["w"], expected)


def test_two_of_four_everywhere() -> None:
    weights, masks, groups = setting(NofM())
    method = MethodConfig(name="mine", pattern="n-of-m", schedule=OneShot())
    total = masks.total
    pruned = prune_level(
        weights, weights, masks, method, level=1, target_kept=total // 2, groups=groups
    )
    assert pruned.kept == total // 2
    # Of the convolutions along the input channels, for each output and place of the kernel.
    conv = pruned["0.weight"].reshape(4, 2, 4, 3, 3).sum(dim=2)
    turned = pruned["1.weight"].reshape(1, 4, 6, 3, 3).sum(dim=1)
    linear = pruned["2.weight"].reshape(5, 3, 4).sum(dim=2)
    assert all(bool((part == 2).all()) for part in (conv, turned, linear))


@pytest.mark.parametrize(
    ("schedule", "densities"),
    [
        (Fraction(remove=0.2), [0.75, 0.5, 0.25]),
        (Fraction(remove=0.5), [0.5, 0.25]),
        (Fraction(remove=0.01), [0.75, 0.5, 0.25]),
        (Cubic(levels=2), [0.25]),
        (OneShot(), [0.25]),
    ],
)
def test_levels_go_through_the_densities_that_the_pattern_has(
    schedule: Schedule, densities: list[float]
) -> None:
    weights, masks, groups = setting(NofM(n=1, m=4))
    method = MethodConfig(name="mine", pattern=NofM(n=1, m=4), schedule=schedule)
    found = []
    while masks.density > 0.25:
        after = prune_level(
            {name: weight.abs() for name, weight in weights.items()},
            {name: weight.abs() for name, weight in weights.items()},
            masks,
            method,
            level=len(found) + 1,
            target_kept=masks.total // 4,
            groups=groups,
        )
        assert after <= masks
        masks = after
        found.append(masks.density)
    assert found == densities
    assert all(mask.float().mean() == 0.25 for mask in masks.values())


def test_a_look_beyond_the_target_may_go_below_it() -> None:
    weights, masks, groups = setting(NofM())
    method = MethodConfig(name="mine", pattern="n-of-m")
    half = masks.total // 2
    masks = shrink(weights, masks, method, half, groups=groups, target_kept=half)
    kept = level_kept(weights, masks, method, level=9, target_kept=half, stop_kept=1, groups=groups)
    assert kept == masks.total // 4
    at_the_end = level_kept(weights, masks, method, level=9, target_kept=half, groups=groups)
    assert at_the_end == half


def test_milestones_must_be_among_the_densities() -> None:
    assert n_of_m_kept(NofM(), 400, alive=400, kept=310, stop_kept=300) == 300
    with pytest.raises(PruningError, match=r"2:4 .* 0\.75, 0\.5, so it can't stop at 0\.8; use"):
        n_of_m_kept(NofM(), 400, alive=400, kept=320, stop_kept=320)
    assert n_of_m_kept(NofM(), 400, alive=200, kept=200, stop_kept=200) == 200


def test_scopes_that_share_out_densities_contradict_the_pattern() -> None:
    weights, masks, groups = setting(NofM())
    half = masks.total // 2
    for scope in ("global", "layerwise", "uniform"):
        method = MethodConfig(name="mine", pattern="n-of-m", scope=scope)
        assert shrink(weights, masks, method, half, groups=groups, target_kept=half).kept == half
    for other in ("erk", "lamp", Budgets(densities={"*": 0.5})):
        method = MethodConfig(name="mine", pattern="n-of-m", scope=other)
        with pytest.raises(PruningError, match=r"2:4 .* contradicts; use scope 'uniform'"):
            shrink(weights, masks, method, half, groups=groups, target_kept=half)


def test_the_density_is_that_of_the_pattern() -> None:
    weights, masks, groups = setting(NofM())
    method = MethodConfig(name="mine", pattern="n-of-m")
    target = masks.total * 3 // 10
    with pytest.raises(PruningError, match=r"2:4 keeps the density 0\.5 .* set density: 0\.5"):
        shrink(weights, masks, method, target, groups=groups, target_kept=target)


def test_a_floor_above_what_is_kept_names_its_layer() -> None:
    weights, masks, groups = setting(NofM())
    method = MethodConfig(name="mine", pattern="n-of-m", keep_per_layer=31)
    half = masks.total // 2
    with pytest.raises(PruningError, match=r"30 of the 60 entries of '2\.weight', fewer than"):
        shrink(weights, masks, method, half, groups=groups, target_kept=half)


def test_uneven_lengths_are_named_with_the_remedy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 3))
    found = find_prunable(model)
    message = (
        r"2:4 needs inputs in groups of 4, got '0\.weight' with 3, '1\.weight' with 1; leave them "
        r"dense: method\.exclude = \['0\.weight', '1\.weight'\]"
    )
    with pytest.raises(PruningError, match=message):
        build_groups(NofM(), weight_axes(model, found.names), found.shapes)


def test_nan_is_refused_where_alive_only() -> None:
    scores = torch.tensor([[NAN, 1.0, 2.0, 3.0]])
    hidden = Masks({"w": torch.tensor([[False, True, True, True]])})
    assert select_n_of_m({"w": scores}, hidden, 2, {"w": PLAIN}, 4).kept == 2
    with pytest.raises(PruningError, match="got NaN"):
        select_n_of_m({"w": scores}, Masks.full({"w": (1, 4)}), 2, {"w": PLAIN}, 4)
