from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import Block, Channel, Heads, Pattern, Reduce
from infcop.core.scope import Budgets
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.groups import Groups, build_groups
from infcop.masking.prune import shrink
from infcop.models.prunable import find_prunable
from infcop.models.weight_axes import WeightAxes, weight_axes
from tests.reference import pruning

PLAIN = WeightAxes(output=0, input=1)
SHAPES = {"a": (6, 4), "b": (3, 5), "c": (4, 2, 2, 2)}


def groups_of(pattern: Pattern, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Groups:
    return build_groups(pattern, dict.fromkeys(shapes, PLAIN), shapes)


def owner_of(pattern: Channel | Block) -> pruning.Owner:
    """Return the unit and the group of an entry, from its place in the weight."""

    def owner(name: str, spot: tuple[int, ...]) -> tuple[int, int]:
        unit = list(SHAPES).index(name)
        if isinstance(pattern, Channel):
            return unit, spot[0]
        width = torch.Size(SHAPES[name][1:]).numel()
        column = 0
        for size, place in zip(SHAPES[name][1:], spot[1:], strict=True):
            column = column * size + place
        across = -(-width // pattern.columns)
        return unit, spot[0] // pattern.rows * across + column // pattern.columns

    return owner


def same(masks: Masks, expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(masks[name], expected[name]) for name in masks)


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, Tensor], Masks]:
    """Scores full of ties, and masks with holes."""
    scores, masks = {}, {}
    for name, shape in SHAPES.items():
        generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
        scores[name] = torch.randint(-2, 3, shape, generator=generator).double()
        masks[name] = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.5, 1.1]))
    return scores, Masks(masks)


@settings(deadline=None, max_examples=80)
@given(
    network=networks(),
    pattern=st.sampled_from([Channel(), Block(rows=2, columns=3), Block(rows=4, columns=4)]),
    reduce=st.sampled_from(["mean", "sum", "max"]),
    floor=st.integers(0, 5),
    part=st.floats(0, 1),
)
def test_equals_removing_one_group_after_the_other(
    network: tuple[dict[str, Tensor], Masks],
    pattern: Channel | Block,
    reduce: Reduce,
    floor: int,
    part: float,
) -> None:
    scores, masks = network
    pattern = pattern.model_copy(update={"reduce": reduce})
    method = MethodConfig(name="mine", pattern=pattern, keep_per_layer=floor, empty_layers="report")
    kept = round(part * masks.kept)
    expected = pruning.shrink_groups(scores, masks, owner_of(pattern), reduce, kept, floor)
    left = sum(int(mask.sum()) for mask in expected.values())
    arguments: dict[str, Any] = {"groups": groups_of(pattern), "target_kept": 1}
    if left > kept:
        with pytest.raises(PruningError, match=r"leaves .* entries at least"):
            shrink(scores, masks, method, kept, **arguments)
        return
    after = shrink(scores, masks, method, kept, **arguments)
    assert same(after, expected)
    assert after <= masks


@pytest.mark.parametrize("scope", ["layerwise", "uniform", "erk"])
def test_scopes_by_layer_hold_in_each_layer(scope: Any) -> None:
    shapes = {"a": (40, 10), "b": (20, 50), "c": (30, 3, 3, 3)}
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    groups, masks = groups_of(Channel(), shapes), Masks.full(shapes)
    fine = groups_of(Block(rows=1, columns=1), shapes)
    for kept in (1500, 700, 400):
        method = MethodConfig(name="mine", scope=scope, pattern="channel")
        single = MethodConfig(name="mine", scope=scope, pattern=Block(rows=1, columns=1))
        after = shrink(scores, masks, method, kept, groups=groups, target_kept=100)
        limits = shrink(scores, masks, single, kept, groups=fine, target_kept=100).kept_per_layer
        for name, count in after.kept_per_layer.items():
            size = torch.Size(shapes[name][1:]).numel()
            whole = limits[name] // size * size
            # A layer that has room for no whole group keeps one, and the others make up for it.
            assert count in (whole, whole - size, size)
        assert after.kept <= kept


def test_blocks_of_one_are_single_entries() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    masks = Masks.full(SHAPES)
    for scope in ("global", "layerwise", "uniform", "erk"):
        single = MethodConfig(name="mine", scope=scope, keep_per_layer=2)
        block = MethodConfig(
            name="mine", scope=scope, keep_per_layer=2, pattern=Block(rows=1, columns=1)
        )
        for kept in (60, 33, 10):
            one = shrink(scores, masks, single, kept, groups=Groups(), target_kept=10)
            groups = groups_of(block.pattern)
            other = shrink(scores, masks, block, kept, groups=groups, target_kept=10)
            assert all(torch.equal(one[name], other[name]) for name in SHAPES)


def test_budgets_are_limits_of_their_layers() -> None:
    shapes = {"a": (10, 8), "b": (20, 4)}
    scores = {name: torch.rand(shape) for name, shape in shapes.items()}
    method = MethodConfig(
        name="mine", pattern="channel", scope=Budgets(densities={"a": 0.5, "b": 0.23})
    )
    after = shrink(
        scores, Masks.full(shapes), method, 58, groups=groups_of(Channel(), shapes), target_kept=58
    )
    # 18.4 entries of the second layer are four whole channels of four.
    assert after.kept_per_layer == {"a": 40, "b": 16}


def test_exact_where_groups_divide_the_count() -> None:
    shapes = {"a": (16, 8), "b": (8, 8)}
    scores = {name: torch.rand(shape) for name, shape in shapes.items()}
    masks = Masks.full(shapes)
    method = MethodConfig(name="mine", pattern="channel", keep_per_layer=1)
    for kept in (184, 96, 16):
        masks = shrink(
            scores, masks, method, kept, groups=groups_of(Channel(), shapes), target_kept=16
        )
        assert masks.kept == kept


def test_what_is_dead_already_is_no_group() -> None:
    scores = {"a": torch.tensor([[0.0, 0.0], [5.0, 5.0], [3.0, 3.0]])}
    masks = Masks({"a": torch.tensor([[False, False], [True, True], [True, False]])})
    method = MethodConfig(name="mine", pattern="channel")
    groups = groups_of(Channel(), {"a": (3, 2)})
    after = shrink(scores, masks, method, 2, groups=groups, target_kept=1)
    assert after["a"].tolist() == [[False, False], [True, True], [False, False]]


def test_a_layer_that_would_be_emptied() -> None:
    shapes = {"weak": (4, 2), "strong": (4, 2)}
    scores = {"weak": torch.full((4, 2), 0.1), "strong": torch.ones(4, 2)}
    masks, groups = Masks.full(shapes), groups_of(Channel(), shapes)

    def after(**options: Any) -> dict[str, int]:
        method = MethodConfig(name="mine", pattern="channel", **options)
        return shrink(scores, masks, method, 8, groups=groups, target_kept=8).kept_per_layer

    with pytest.raises(LayerCollapseError, match=r"'weak' would lose all .* empty_layers='report'"):
        after()
    assert after(empty_layers="report") == {"weak": 0, "strong": 8}
    assert after(keep_per_layer=3) == {"weak": 4, "strong": 4}
    assert after(scope="layerwise") == {"weak": 4, "strong": 4}


def test_fewer_entries_than_one_group_each() -> None:
    shapes = {"a": (4, 6), "b": (4, 6)}
    scores = {name: torch.rand(shape) for name, shape in shapes.items()}
    masks, groups = Masks.full(shapes), groups_of(Channel(), shapes)
    method = MethodConfig(name="mine", pattern="channel", scope="uniform")
    arguments: dict[str, Any] = {"groups": groups, "target_kept": 11}
    with pytest.raises(
        PruningError, match=r"'channel' leaves 12 of 48 .*\(density 0\.25\), but only 11 may"
    ):
        shrink(scores, masks, method, 11, **arguments)
    with pytest.raises(LayerCollapseError, match="leaves 12 of 48"):
        shrink(scores, masks, method, 11, groups=groups, target_kept=24)
    empty = method.model_copy(update={"empty_layers": "report"})
    assert shrink(scores, masks, empty, 6, **arguments).kept <= 6


def test_scores_without_an_order_and_scopes_without_a_meaning() -> None:
    shapes = {"a": (2, 2)}
    groups, masks = groups_of(Channel(), shapes), Masks.full(shapes)
    method = MethodConfig(name="mine", pattern="channel")
    inf = float("inf")
    scores = {"a": torch.tensor([[inf, -inf], [1.0, 1.0]])}
    with pytest.raises(PruningError, match=r"groups of 'a', got NaN: the mean of infinite"):
        shrink(scores, masks, method, 2, groups=groups, target_kept=2)
    with pytest.raises(PruningError, match="'a', got NaN"):
        shrink(
            {"a": torch.full((2, 2), float("nan"))}, masks, method, 2, groups=groups, target_kept=2
        )
    lamp = MethodConfig(name="mine", pattern="channel", scope="lamp")
    with pytest.raises(PruningError, match="no meaning for pattern 'channel'; use scope 'global'"):
        shrink({"a": torch.ones(2, 2)}, masks, lamp, 2, groups=groups, target_kept=2)


# -- heads -----------------------------------------------------------------------------------------


class Fused(nn.Module):
    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(8, 3 * heads * size), nn.Linear(heads * size, 8)


def two_attentions() -> tuple[dict[str, Tensor], Masks, Callable[[], Groups]]:
    torch.manual_seed(0)
    model = nn.Sequential(Fused(4, 2), nn.Linear(8, 8), Fused(2, 4))
    found = find_prunable(model)
    scores = {n: p.detach().abs() for n, p in model.named_parameters() if n in found.names}
    axes = weight_axes(model, found.names)
    return scores, Masks.full(found.shapes), lambda: build_groups(Heads(), axes, found.shapes)


def test_heads_go_whole_and_other_weights_stay() -> None:
    scores, masks, groups = two_attentions()
    method = MethodConfig(name="mine", pattern="heads", keep_per_layer=1)
    # A head of the first has 2 * 8 * 4 entries, one of the second twice as many.
    after = shrink(scores, masks, method, 320, groups=groups(), target_kept=200)
    assert after["1.weight"].all()
    assert after.kept <= 320
    for name, count, size in (("0", 4, 2), ("2", 2, 4)):
        queries, keys, values = after[f"{name}.qkv.weight"].reshape(3, count, size, 8)
        output = after[f"{name}.proj.weight"].reshape(8, count, size)
        for head in range(count):
            parts = (queries[head], keys[head], values[head], output[:, head])
            assert len({bool(part.any()) for part in parts}) == 1
            assert all(part.all() or not part.any() for part in parts)


def test_a_density_that_heads_cannot_reach_is_refused_with_what_they_can() -> None:
    scores, masks, groups = two_attentions()
    method = MethodConfig(name="mine", pattern="heads")
    least = 64 + 64 + 128
    arguments: dict[str, Any] = {"groups": groups(), "target_kept": least - 1}
    with pytest.raises(PruningError, match=rf"leaves {least} of {masks.total} .* 64 of them in"):
        shrink(scores, masks, method, least - 1, **arguments)
    report = method.model_copy(update={"empty_layers": "report"})
    assert shrink(scores, masks, report, 64, groups=groups(), target_kept=64).kept == 64
    with pytest.raises(PruningError, match=r"leaves 64 of .* exclude the other weights"):
        shrink(scores, masks, report, 63, groups=groups(), target_kept=63)


@pytest.mark.parametrize("scope", ["layerwise", "uniform", "erk", Budgets(densities={"*": 0.5})])
def test_heads_by_layer(scope: Any) -> None:
    scores, masks, groups = two_attentions()
    method = MethodConfig(name="mine", pattern="heads", scope=scope)
    kept = 64 + 256
    after = shrink(scores, masks, method, kept, groups=groups(), target_kept=kept)
    assert after.kept == kept
    assert int(after["0.proj.weight"].sum()) == int(after["2.proj.weight"].sum()) == 32
