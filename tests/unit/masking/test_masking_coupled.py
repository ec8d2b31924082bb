"""Channels with all that is coupled to them, against a count of everything anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.coupled import Prices, channel_scores, priced_kept, shrink_channels
from infcop.masking.groups import build_groups
from tests.reference.channels import size_of, slow_normalised, slow_scores, slow_shrink

REDUCES = ["mean", "sum", "norm", "max"]


def chain(*widths: int) -> tuple[ChannelGroups, Masks]:
    """Return the groups of linear layers in a row; the ends of the row are in none."""
    groups = []
    count = 0
    for place, width in enumerate(widths):
        inner = 0 < place < len(widths) - 1
        groups.append(torch.arange(count, count + width) if inner else torch.full((width,), -1))
        count += width if inner else 0
    places = {f"l{n}.weight": (groups[n + 1], groups[n]) for n in range(len(widths) - 1)}
    classes = torch.repeat_interleave(
        torch.arange(len(widths) - 2), torch.tensor(widths[1:-1], dtype=torch.int64)
    )
    shapes = {name: (len(rows), len(columns)) for name, (rows, columns) in places.items()}
    return ChannelGroups(places, classes), Masks.full(shapes)


def method(**changes: Any) -> MethodConfig:
    pattern = {
        "kind": "coupled-channels",
        "normalise": changes.pop("normalise", False),
        "multiple": changes.pop("multiple", 1),
    }
    settings = {"name": "mine", "pattern": pattern, "scope": "global", **changes}
    return MethodConfig.model_validate(settings)


def entries(masks: Masks) -> Prices:
    return Prices(dict.fromkeys(masks, 1.0))


widths = st.lists(st.integers(2, 6), min_size=3, max_size=5)


@settings(deadline=None, max_examples=60)
@given(widths, st.integers(0, 10**6), st.sampled_from(REDUCES), st.floats(0.0, 1.0))
def test_scores_are_those_of_all_entries_that_go(
    sizes: list[int], seed: int, reduce: Any, removed: float
) -> None:
    groups, masks = chain(*sizes)
    draw = torch.Generator().manual_seed(seed)
    gone = torch.rand(groups.count, generator=draw) < removed
    masks = groups.without(gone, masks)
    scores = {name: torch.randn(mask.shape, generator=draw) for name, mask in masks.items()}
    found = channel_scores(groups, reduce, scores, masks)
    expected = slow_scores(groups, reduce, scores, masks)
    torch.testing.assert_close(
        torch.from_numpy(found), torch.tensor(expected, dtype=torch.float64), equal_nan=True
    )


@settings(deadline=None, max_examples=100)
@given(
    widths,
    st.integers(0, 10**6),
    st.floats(0.05, 1.0),
    st.lists(st.floats(0.0, 5.0), min_size=4, max_size=4),
    st.floats(0.0, 20.0),
    st.booleans(),
)
def test_the_size_is_met_in_the_order_of_the_scores(
    sizes: list[int],
    seed: int,
    density: float,
    costs: list[float],
    elsewhere: float,
    normalise: bool,
) -> None:
    groups, masks = chain(*sizes)
    draw = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(mask.shape, generator=draw) for name, mask in masks.items()}
    how = method(normalise=normalise)
    prices = Prices(dict(zip(masks, (1 + c for c in costs), strict=False)), elsewhere)
    kept = max(round(density * masks.total), 1)
    own = slow_scores(groups, "mean", scores, masks)
    own = slow_normalised(own, groups) if normalise else own
    order = sorted(range(groups.count), key=lambda group: own[group])
    best = [
        max((g for g in order if int(groups.classes[g]) == label), key=lambda g: own[g])
        for label in range(int(groups.classes.max()) + 1)
    ]
    order = [group for group in order if group not in best]
    expected = slow_shrink(order, masks, groups, prices, kept / masks.total)
    if size_of(expected, prices) > kept / masks.total + 1e-9:
        with pytest.raises(PruningError, match="higher density"):
            shrink_channels(scores, masks, how, kept, kept, groups, prices)
        return
    found = shrink_channels(scores, masks, how, kept, kept, groups, prices)
    assert found <= expected
    assert expected <= found
    assert priced_kept(found, prices) <= kept


@pytest.mark.parametrize("scope", ["uniform", "layerwise"])
def test_every_class_loses_the_same_part(scope: str) -> None:
    groups, masks = chain(4, 20, 20, 4)
    scores = {
        name: torch.rand(mask.shape) + 10 * number
        for number, (name, mask) in enumerate(masks.items())
    }
    found = shrink_channels(scores, masks, method(scope=scope), 150, 150, groups, entries(masks))
    alive = [int(found["l0.weight"].any(dim=1).sum()), int(found["l1.weight"].any(dim=1).sum())]
    assert abs(alive[0] - alive[1]) <= 1
    assert 130 < found.kept <= 150


def test_later_levels_go_on_from_earlier_ones() -> None:
    groups, masks = chain(4, 20, 20, 4)
    draw = torch.Generator().manual_seed(1)
    for kept in (400, 200, 100):
        scores = {name: torch.rand(m.shape, generator=draw) for name, m in masks.items()}
        smaller = shrink_channels(scores, masks, method(), kept, 100, groups, entries(masks))
        assert smaller <= masks
        # Within one channel of what was asked for.
        assert kept - 24 < smaller.kept <= kept
        masks = smaller


def test_layers_keep_what_they_must() -> None:
    groups, masks = chain(4, 20, 4)
    scores = {name: torch.ones(mask.shape) for name, mask in masks.items()}
    floor = method(keep_per_layer=10)
    found = shrink_channels(scores, masks, floor, 24, 24, groups, entries(masks))
    assert min(found.kept_per_layer.values()) == 12
    with pytest.raises(PruningError, match=r"0\.15 of the network at least"):
        shrink_channels(scores, masks, floor, 20, 20, groups, entries(masks))
    with pytest.raises(LayerCollapseError):
        shrink_channels(scores, masks, floor, 20, 30, groups, entries(masks))


def test_weights_outside_count_and_stay() -> None:
    groups, masks = chain(4, 20, 4)
    masks = Masks({**masks, "other": torch.ones(40, dtype=torch.bool)})
    scores = {name: torch.rand(mask.shape) for name, mask in masks.items()}
    found = shrink_channels(scores, masks, method(), 100, 100, groups, entries(masks))
    assert bool(found["other"].all())
    assert found.kept == 96


@pytest.mark.parametrize("scope", ["erk", "lamp", {"kind": "budgets", "densities": {"*": 0.5}}])
def test_scopes_of_entries_are_refused(scope: Any) -> None:
    groups, masks = chain(4, 20, 4)
    scores = {name: torch.ones(mask.shape) for name, mask in masks.items()}
    with pytest.raises(PruningError, match="belong to several layers"):
        shrink_channels(scores, masks, method(scope=scope), 90, 90, groups, entries(masks))


def test_nothing_to_remove_is_said() -> None:
    masks = Masks.full({"fc": (2, 3)})
    groups = ChannelGroups(
        {"fc": (torch.full((2,), -1), torch.full((3,), -1))}, torch.zeros(0, dtype=torch.int64)
    )
    with pytest.raises(PruningError, match="finds no channels"):
        shrink_channels({"fc": torch.ones(2, 3)}, masks, method(), 3, 3, groups, entries(masks))


def test_scores_that_are_no_numbers_are_refused() -> None:
    groups, masks = chain(4, 20, 4)
    scores = {name: torch.full(mask.shape, math.nan) for name, mask in masks.items()}
    with pytest.raises(PruningError, match="NaN"):
        shrink_channels(scores, masks, method(), 90, 90, groups, entries(masks))


def test_the_pattern_needs_the_channels_of_the_model() -> None:
    with pytest.raises(PruningError, match="channel_groups"):
        build_groups(method().pattern, {}, {})


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("kept", [400, 250, 150])
def test_widths_are_multiples_where_anything_goes(scope: str, kept: int) -> None:
    groups, masks = chain(4, 20, 16, 3, 4)
    draw = torch.Generator().manual_seed(2)
    scores = {name: torch.rand(mask.shape, generator=draw) for name, mask in masks.items()}
    how = method(scope=scope, multiple=4)
    found = shrink_channels(scores, masks, how, kept, kept, groups, entries(masks))
    assert found.kept <= kept
    widths = [int(mask.any(dim=1).sum()) for mask in found.values()]
    # Three channels are fewer than a block: they stay.
    assert [width % 4 for width in widths[:2]] == [0, 0]
    assert widths[2] == 3
    assert min(widths[:2]) >= 4
    own = slow_scores(groups, "mean", scores, masks)
    for name, start in (("l0.weight", 0), ("l1.weight", 20)):
        alive = found[name].any(dim=1)
        inside = [own[start + at] for at in alive.nonzero()[:, 0].tolist()]
        outside = [own[start + at] for at in (~alive).nonzero()[:, 0].tolist()]
        assert not outside or min(inside) >= max(outside)


def test_odd_widths_go_down_to_the_next_multiple_first() -> None:
    groups, masks = chain(4, 22, 4)
    scores = {name: torch.rand(mask.shape) for name, mask in masks.items()}
    how = method(multiple=8)
    widths = []
    for kept in (170, 150, 100, 64):
        masks = shrink_channels(scores, masks, how, kept, 64, groups, entries(masks))
        widths.append(masks.kept // 8)
    assert widths == [16, 16, 8, 8]
