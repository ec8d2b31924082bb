"""What every scope keeps to, with every score: exact counts, ties, floors, a slow twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import infcop
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.scope import Scope
from infcop.core.score import Score
from infcop.errors import PruningError
from infcop.masking.groups import Groups
from infcop.masking.prune import emptied, shrink
from tests.end_to_end.conftest import toy_batches
from tests.reference import axes
from tests.reference.axis_networks import batches, convolutional, mask_weights, scored, shapes_of
from tests.reference.axis_twins import SCOPE_TWINS, scope_survivors

TARGET = 0.2
NETWORK: axes.Shapes = shapes_of(convolutional())
SCOPES = axes.settings(Scope, NETWORK, TARGET)
SCORES = axes.settings(Score)
TOTAL = Masks.full(NETWORK).total
SIGNED = {"random", "grasp", "movement"}
"""Scores that may be below zero, and so have no place on the scale of LAMP."""
LEVELS = [round(density * TOTAL) for density in (0.7, 0.45, TARGET)]

every_scope = pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)


def test_every_scope_of_the_settings_is_swept() -> None:
    assert axes.unprepared(Scope) == ""
    assert axes.without_twin(Scope, SCOPE_TWINS) == ""


def shrunk(
    scope: Any, scores: dict[str, Tensor], masks: Masks, kept: int, target: int, **options: Any
) -> Masks:
    method = MethodConfig(name="mine", scope=scope, **{"empty_layers": "report", **options})
    return shrink(scores, masks, method, kept, groups=Groups(), target_kept=target)


def numbers(shapes: axes.Shapes, seed: int, kind: str = "different") -> dict[str, Tensor]:
    """Return scores that are all different; with many ties; or all zero in the first layer."""
    generator = torch.Generator().manual_seed(seed)
    ties = kind == "many ties"
    found = {
        name: torch.randint(0, 3, shape, generator=generator).double()
        if ties
        else torch.rand(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    if kind == "a layer of zeros":
        found[next(iter(shapes))].zero_()
    return found


def check_same(masks: Masks, expected: dict[str, Tensor]) -> None:
    assert list(masks) == list(expected)
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), name


# -- with every score ------------------------------------------------------------------------------


@every_scope
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_levels_of_every_score_keep_exactly_what_a_sort_of_everything_keeps(
    scope: Any, score: Any
) -> None:
    model, data = convolutional(), batches(1, 8, 8)
    masks = Masks.full(NETWORK)
    for kept in LEVELS:
        scores = scored(score, model, data, masks)
        if scope == "lamp" and score.kind in SIGNED:
            with pytest.raises(PruningError, match=r"'lamp' needs scores of at least 0, got -"):
                shrunk(scope, scores, masks, kept, LEVELS[-1])
            return
        after = shrunk(scope, scores, masks, kept, LEVELS[-1])
        assert after <= masks
        assert after.kept == kept == sum(after.kept_per_layer.values())
        check_same(after, scope_survivors(scope, scores, masks, kept, LEVELS[-1]))
        masks = after
        mask_weights(model, masks)


# -- with numbers that make it hard ----------------------------------------------------------------


@every_scope
@pytest.mark.parametrize("kind", ["different", "many ties", "a layer of zeros"])
@pytest.mark.parametrize("floor", [0, 2, 8])
@pytest.mark.parametrize("seed", range(2))
def test_levels_from_masks_with_holes_equal_the_slow_twin(
    scope: Any, kind: str, floor: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = Masks({n: torch.rand(s, generator=generator) < 0.85 for n, s in NETWORK.items()})
    for kept in (masks.kept, masks.kept - 1, *LEVELS):
        scores = numbers(NETWORK, seed + kept, kind)
        if floor == 8 and scope == SCOPES["budgets"]:
            with pytest.raises(PruningError, match="fewer than keep_per_layer=8; raise its"):
                shrunk(scope, scores, masks, kept, LEVELS[-1], keep_per_layer=floor)
            return
        after = shrunk(scope, scores, masks, kept, LEVELS[-1], keep_per_layer=floor)
        assert after <= masks
        assert after.kept == kept
        alive = masks.kept_per_layer
        for name, count in after.kept_per_layer.items():
            assert count >= min(alive[name], floor), name
        check_same(after, scope_survivors(scope, scores, masks, kept, LEVELS[-1], floor))
        masks = after


@every_scope
def test_of_equal_scores_the_earlier_go_first(scope: Any) -> None:
    masks = Masks.full(NETWORK)
    equal = {name: torch.full(shape, 0.5) for name, shape in NETWORK.items()}
    for kept in LEVELS:
        masks = shrunk(scope, equal, masks, kept, LEVELS[-1])
        assert masks.kept == kept
        for name, mask in masks.items():
            flat = mask.flatten().tolist()
            assert flat == sorted(flat), name
    if scope == "global":
        together = torch.cat([mask.flatten() for mask in masks.values()]).tolist()
        assert together == sorted(together)


@every_scope
def test_a_layer_that_has_no_entries_left_stays_so(scope: Any) -> None:
    full = Masks.full(NETWORK)
    first, *others = NETWORK
    masks = Masks({**full, first: torch.zeros_like(full[first])})
    for kept in (round(0.7 * masks.kept), LEVELS[-1]):
        scores = numbers(NETWORK, kept)
        scores[first] += 100
        after = shrunk(
            scope, scores, masks, kept, LEVELS[-1], empty_layers="error", keep_per_layer=1
        )
        assert after.kept == kept
        assert after.kept_per_layer[first] == 0
        assert all(after.kept_per_layer[name] > 0 for name in others)
        check_same(after, scope_survivors(scope, scores, masks, kept, LEVELS[-1], 1))
        masks = after


@every_scope
def test_scores_of_other_types_and_layouts_say_the_same(scope: Any) -> None:
    masks = Masks.full(NETWORK)
    scores = numbers(NETWORK, 0, "many ties")
    expected = shrunk(scope, scores, masks, LEVELS[1], LEVELS[-1])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        other = {name: values.to(dtype) for name, values in scores.items()}
        check_same(shrunk(scope, other, masks, LEVELS[1], LEVELS[-1]), dict(expected))
    turned = {name: values.mT.contiguous().mT for name, values in scores.items()}
    check_same(shrunk(scope, turned, masks, LEVELS[1], LEVELS[-1]), dict(expected))


@every_scope
def test_a_score_that_is_no_number_names_its_layer_where_it_is_alive(scope: Any) -> None:
    masks = Masks.full(NETWORK)
    scores = numbers(NETWORK, 0)
    last = list(NETWORK)[-1]
    scores[last][0, 0] = float("nan")
    with pytest.raises(PruningError, match=rf"scores of '{last}', got NaN"):
        shrunk(scope, scores, masks, LEVELS[0], LEVELS[-1])
    dead = torch.ones_like(masks[last])
    dead[0, 0] = False
    assert (
        shrunk(scope, scores, Masks({**masks, last: dead}), LEVELS[0], LEVELS[-1]).kept
        == (LEVELS[0])
    )


@every_scope
def test_fewer_entries_than_the_floors_are_refused(scope: Any) -> None:
    scores, masks = numbers(NETWORK, 0), Masks.full(NETWORK)
    least = sum(min(mask.numel(), 11) for mask in masks.values())
    with pytest.raises(PruningError, match="keep_per_layer"):
        shrunk(scope, scores, masks, least - 1, least - 1, keep_per_layer=11)


@every_scope
@pytest.mark.parametrize("shape", [(1,), (1, 1)], ids=str)
def test_networks_of_one_entry_a_layer(scope: Any, shape: tuple[int, ...]) -> None:
    shapes = {"a": shape, "b": shape, "c": shape}
    if scope not in axes.members(Scope):
        # Given densities leave each of them a part of an entry, rounded up or down.
        scope = axes.settings(Scope, shapes, 1 / 3)[axes.kind_of(scope)]
    masks = Masks.full(shapes)
    scores = {name: torch.full(shape, float(place)) for place, name in enumerate(shapes)}
    for kept in (3, 2, 1):
        after = shrunk(scope, scores, masks, kept, 1)
        assert after.kept == kept
        assert after <= masks
        assert len(emptied(masks, after)) == masks.kept - kept
        masks = after


# -- in a search -----------------------------------------------------------------------------------


@every_scope
def test_a_search_with_every_scope_ends_at_its_density(tmp_path: Path, scope: Any) -> None:
    model, data = convolutional(), toy_batches(2)
    result = infcop.search(
        model,
        infcop.Classification(data, data),
        run_dir=tmp_path,
        method=MethodConfig(
            name="mine",
            start="initialisation",
            scope=scope,
            schedule={"kind": "linear", "levels": 3},
            rewind={"to": "none"},
            stop={"rule": "fixed-budget", "passes": 0},
            keep_per_layer=2,
        ),
        density=TARGET,
        final={"passes": 0},
        execution={"device": "cpu", "threads": 1},
    )
    assert [level.kept for level in result.record.levels][-1] == LEVELS[-1]
    # Nothing was trained: the sizes of the given weights say it all.
    scores = {name: model.get_parameter(name).detach().abs() for name in NETWORK}
    masks = Masks.full(NETWORK)
    for level in result.record.levels:
        masks = Masks(scope_survivors(scope, scores, masks, level.kept, LEVELS[-1], 2))
        assert level.kept_per_layer == masks.kept_per_layer
    check_same(result.masks, dict(masks))
