from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.pattern import Block, Channel, Heads, Reduce, Unstructured
from infcop.errors import PruningError
from infcop.masking.groups import build_groups
from infcop.masking.prune_groups import group_scores
from infcop.masking.tiles import head_tiles, tiles_of
from infcop.models.attention import HeadSlices
from infcop.models.prunable import find_prunable
from infcop.models.weight_axes import WeightAxes, weight_axes
from tests.reference import pruning

PLAIN, TURNED = WeightAxes(output=0, input=1), WeightAxes(output=1, input=0)
INF = float("inf")


class Attention(nn.Module):
    """Attention of grouped queries: 4 heads of queries, 2 of keys and values, 3 channels each."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.q_proj, self.k_proj = nn.Linear(8, 12), nn.Linear(8, 6)
        self.v_proj, self.o_proj = nn.Linear(8, 6), nn.Linear(12, 8)


def head_of(name: str, spot: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the head of an entry of this attention, by its channel."""
    place = {"q_proj": spot[0] // 6, "o_proj": spot[1] // 6}
    for projection in ("k_proj", "v_proj"):
        place[projection] = spot[0] // 3
    return 0, place[name.split(".")[-2]]


def numbered(tiles: Any, shape: tuple[int, ...]) -> Tensor:
    """Return the number of the group that each entry belongs to."""
    found = torch.full(shape, -1)
    for group in range(tiles.count):
        chosen = np.arange(tiles.count) == group
        found[tiles.spread(chosen, shape)] = group
    return found


# -- where groups lie ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    axes=st.sampled_from([PLAIN, TURNED]),
)
def test_every_entry_is_in_the_block_of_its_row_and_column(
    shape: list[int], rows: int, columns: int, axes: WeightAxes
) -> None:
    tiles = tiles_of(Block(rows=rows, columns=columns), axes, tuple(shape))
    found = axes.outputs_first(numbered(tiles, tuple(shape))).flatten(1)
    across = -(-found.shape[1] // columns)
    expected = [
        [i // rows * across + j // columns for j in range(found.shape[1])]
        for i in range(found.shape[0])
    ]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(4, 6, 3),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        nn.ConvTranspose1d(6, 6, 2, groups=6),
        nn.Linear(4, 6),
    ],
)
def test_a_channel_is_what_one_output_is_computed_with(layer: nn.Module) -> None:
    torch.manual_seed(0)
    axes = weight_axes(layer, ["weight"])["weight"]
    weight = layer.get_parameter("weight")
    tiles = tiles_of(Channel(), axes, tuple(weight.shape))
    assert tiles.count == 6
    shapes = {nn.Conv2d: (1, 4, 5, 5), nn.ConvTranspose2d: (1, 4, 5, 5), nn.Linear: (1, 4)}
    inputs = torch.randn(shapes.get(type(layer), (1, 6, 5)))
    with torch.no_grad():
        layer.get_parameter("bias").zero_()
        for channel in range(6):
            saved = weight.clone()
            weight[tiles.spread(np.arange(6) == channel, tuple(weight.shape))] = 0
            outputs = layer(inputs)
            silent = [c for c in range(6) if not outputs[0, c].any()]
            assert silent == [channel]
            weight.copy_(saved)


def test_heads_are_the_same_in_all_projections() -> None:
    model = nn.Sequential(Attention(), nn.Linear(8, 3))
    found = find_prunable(model)
    groups = build_groups(Heads(), weight_axes(model, found.names), found.shapes)
    (unit,) = groups.units
    assert unit.count == 2
    assert set(unit.tiles) == {f"0.{p}_proj.weight" for p in "qkvo"}
    for name, tiles in unit.tiles.items():
        for spot, group in np.ndenumerate(numbered(tiles, found.shapes[name]).numpy()):
            assert head_of(name, spot) == (0, group)


def test_a_pattern_of_single_entries_has_no_groups() -> None:
    assert build_groups(Unstructured(), {"a": PLAIN}, {"a": (3, 3)}).units == ()


def test_heads_need_attention_that_is_whole() -> None:
    model = nn.Sequential(Attention(), nn.Linear(8, 3))
    shapes = find_prunable(model).shapes
    with pytest.raises(PruningError, match=r"of usual names .* got a model without"):
        build_groups(Heads(), {"1.weight": PLAIN}, {"1.weight": (3, 8)})
    partly = {name: shape for name, shape in shapes.items() if "v_proj" not in name}
    message = r"attention '0', but '0\.v_proj\.weight' can.*exclude = \['0\.q_proj\.weight', "
    with pytest.raises(PruningError, match=message):
        build_groups(Heads(), weight_axes(model, partly), partly)


@pytest.mark.parametrize(("side", "shape"), [("output", (8, 12)), ("input", (12, 8))])
@pytest.mark.parametrize("turned", [False, True])
def test_heads_that_do_not_make_up_the_projection_are_refused(
    side: Any, shape: tuple[int, int], turned: bool
) -> None:
    axes = WeightAxes(output=int(turned), input=int(not turned))
    shape = shape[::-1] if turned else shape
    heads = HeadSlices("attention", (), 2, side, (4, 4, 4))
    with pytest.raises(PruningError, match=rf"expected 12 {side}s in .* 'attention', got 8; use"):
        head_tiles(heads, axes, shape)
    assert head_tiles(heads, axes, shape[::-1]).count == 2


def test_packed_attention_is_refused_with_the_remedy() -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    found = find_prunable(model)
    message = r"'0\.in_proj_weight' can.*exclude = \['0\.out_proj\.weight'\]"
    with pytest.raises(PruningError, match=message):
        build_groups(Heads(), weight_axes(model, found.names), found.shapes)


# -- scores of groups ------------------------------------------------------------------------------

SHAPES = {"q_proj.weight": (12, 8), "k_proj.weight": (6, 8), "v_proj.weight": (6, 8)}
SHAPES |= {"o_proj.weight": (8, 12)}


@pytest.mark.parametrize("reduce", ["mean", "sum", "norm", "max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_scores_of_heads_equal_going_through_the_entries(
    reduce: Reduce, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    model = Attention()
    groups = build_groups(Heads(), weight_axes(model, SHAPES), SHAPES)
    scores = {n: torch.randn(s, generator=generator).to(dtype) for n, s in SHAPES.items()}
    masks = Masks({n: torch.rand(s, generator=generator) < 0.6 for n, s in SHAPES.items()})
    named = {f"attention.{name}": score for name, score in scores.items()}
    expected = pruning.groups(
        named, {f"attention.{name}": mask for name, mask in masks.items()}, head_of, reduce
    )
    found = group_scores(groups.units[0], reduce, scores, masks)
    assert found.tolist() == pytest.approx([expected[0, g][0] for g in range(2)], rel=1e-14)


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**1000])
def test_norms_neither_vanish_nor_overflow(scale: float) -> None:
    groups = build_groups(Channel(), {"w": PLAIN}, {"w": (2, 2)})
    scores = {"w": torch.tensor([[3.0, 4.0], [5.0, 12.0]], dtype=torch.float64) * scale}
    found = group_scores(groups.units[0], "norm", scores, Masks.full({"w": (2, 2)}))
    assert found.tolist() == [5 * scale, 13 * scale]
    zero = group_scores(
        groups.units[0], "norm", {"w": torch.zeros(2, 2)}, Masks.full({"w": (2, 2)})
    )
    assert zero.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [("sum", [INF, -INF]), ("mean", [INF, -INF]), ("max", [INF, 1.0]), ("norm", [INF, INF])],
)
def test_infinite_scores_take_part(reduce: Reduce, expected: list[float]) -> None:
    groups = build_groups(Channel(), {"w": PLAIN}, {"w": (2, 2)})
    scores = {"w": torch.tensor([[INF, 1.0], [-INF, 1.0]])}
    found = group_scores(groups.units[0], reduce, scores, Masks.full({"w": (2, 2)}))
    assert found.tolist() == expected


def test_only_survivors_count() -> None:
    groups = build_groups(Channel(), {"w": PLAIN}, {"w": (2, 3)})
    scores = {"w": torch.tensor([[-5.0, -7.0, 9.0], [math.nan, 1.0, 3.0]])}
    masks = Masks({"w": torch.tensor([[True, True, False], [False, True, True]])})
    for reduce, expected in (("max", [-5.0, 3.0]), ("mean", [-6.0, 2.0]), ("sum", [-12.0, 4.0])):
        assert group_scores(groups.units[0], reduce, scores, masks).tolist() == expected
