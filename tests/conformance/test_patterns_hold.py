"""What every pattern keeps to: whole groups, densities within a group, and a slow twin."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import infcop
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import Pattern, Reduce
from infcop.core.schedule import Linear
from infcop.core.scope import Scope
from infcop.core.score import Taylor
from infcop.errors import PruningError
from infcop.masking.groups import Groups, build_groups
from infcop.masking.prune import shrink
from infcop.masking.prune_groups import group_scores
from infcop.models.weight_axes import weight_axes
from tests.reference import axes, pruning
from tests.reference.axes import kind_of
from tests.reference.axis_networks import AllLayers, batches, mask_weights, scored, shapes_of
from tests.reference.axis_twins import (
    PATTERN_TWINS,
    SHARED,
    Spot,
    owner_of,
    round_kept,
    schedule_kept,
    scope_survivors,
)

TARGET = 0.5
NETWORK = shapes_of(AllLayers())
TOTAL = Masks.full(NETWORK).total
LEVELS = [round(density * TOTAL) for density in (0.8, 0.65, TARGET)]
OVERLAPPING = "coupled-channels"
"""Its groups share entries: tests/conformance/test_coupled_channels_hold.py is about it."""
EVERY = {
    name: pattern for name, pattern in axes.settings(Pattern).items() if pattern.kind != OVERLAPPING
}
REDUCED = {name: pattern for name, pattern in EVERY.items() if hasattr(pattern, "reduce")}
SCOPES = axes.settings(Scope, NETWORK, TARGET)

REFUSED = {
    "unstructured": (),
    "n-of-m": ("erk", "lamp", "budgets"),
    "block": ("lamp",),
    "channel": ("lamp",),
    "heads": ("lamp",),
}
"""By pattern, the scopes that contradict it."""

every_pattern = pytest.mark.parametrize("pattern", EVERY.values(), ids=EVERY)

Entries = dict[tuple[int, int], list[tuple[str, Spot]]]


def test_every_pattern_of_the_settings_is_swept() -> None:
    assert axes.unprepared(Pattern) == ""
    assert axes.without_twin(Pattern, {*PATTERN_TWINS, OVERLAPPING}) == ""
    lacking = set(get_args(Reduce)) - {"mean", "sum", "norm", "max"}
    assert not lacking, f"add {lacking} to the rules of tests/reference/pruning.py"


@cache
def groups_of(pattern: Any) -> Groups:
    model = AllLayers()
    return build_groups(pattern, weight_axes(model, NETWORK), NETWORK)


@cache
def entries_of(pattern: Any) -> Entries:
    """Return the entries of every group, found one by one."""
    owner = owner_of(pattern, AllLayers())
    found: Entries = {}
    for name, shape in NETWORK.items():
        for spot in product(*map(range, shape)):
            if (group := owner(name, spot)) is not None:
                found.setdefault(group, []).append((name, spot))
    return found


def shrunk(
    pattern: Any,
    scores: dict[str, Tensor],
    masks: Masks,
    kept: int,
    scope: Any = "global",
    **options: Any,
) -> Masks:
    method = MethodConfig(
        name="mine", pattern=pattern, scope=scope, **{"empty_layers": "report", **options}
    )
    return shrink(scores, masks, method, kept, groups=groups_of(pattern), target_kept=LEVELS[-1])


def slowly_shrunk(
    pattern: Any, scores: dict[str, Tensor], masks: Masks, kept: int, floor: int = 0
) -> dict[str, Tensor]:
    """Go through the groups one by one."""
    if pattern.kind != "n-of-m":
        owner = owner_of(pattern, AllLayers())
        reduce = getattr(pattern, "reduce", "sum")
        return pruning.shrink_groups(scores, masks, owner, reduce, kept, floor)
    after = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for own in entries_of(pattern).values():
        alive = [(float(scores[n][spot]), spot) for n, spot in own if masks[n][spot]]
        for _, spot in sorted(alive)[max(len(alive) - most_of_m(pattern, kept), 0) :]:
            after[own[0][0]][spot] = True
    return after


def slowly_by_scope(
    pattern: Any, scope: Any, scores: dict[str, Tensor], masks: Masks, kept: int
) -> dict[str, Tensor]:
    """Share out what survives among the units, then go through the groups of each."""
    if pattern.kind == "unstructured":
        return scope_survivors(scope, scores, masks, kept, LEVELS[-1])
    if pattern.kind == "n-of-m" or scope == "global":
        return slowly_shrunk(pattern, scores, masks, kept)
    inside = {name: masks[name] for name in in_groups(pattern)}
    outside = masks.kept - Masks(inside).kept
    if pattern.kind == "heads":
        # One attention: whatever the scope, it has to come to all that is left.
        limits = {tuple(inside): kept - outside}
    else:
        own = SHARED[kind_of(scope)](scope, Masks(inside), kept, LEVELS[-1], 0)
        limits = {(name,): count for name, count in own.items()}
    after = dict(masks)
    for names, limit in limits.items():
        unit = {name: inside[name] for name in names}
        owner = owner_of(pattern, AllLayers())
        # A scope that looks at each layer leaves it a group.
        after |= pruning.shrink_groups(scores, unit, owner, pattern.reduce, limit, 1)
    return after


def in_groups(pattern: Any) -> list[str]:
    """Return the weights that have groups of a pattern."""
    found = {name for own in entries_of(pattern).values() for name, _ in own}
    return [name for name in NETWORK if name in found]


def scope_over(pattern: Any, kind: str) -> Any:
    """Return a scope of a kind; densities are of the weights that the pattern has groups in."""
    shapes = {name: NETWORK[name] for name in in_groups(pattern)}
    inside = Masks.full(shapes).total
    density = (LEVELS[-1] - (TOTAL - inside)) / inside
    scopes = axes.settings(Scope, shapes, density).values()
    return next(scope for scope in scopes if kind_of(scope) == kind)


def most_of_m(pattern: Any, kept: int) -> int:
    return next(j for j in range(pattern.m, 0, -1) if j * TOTAL <= kept * pattern.m)


def numbers(kind: str, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    makers = {
        "different": lambda shape: torch.rand(shape, generator=generator, dtype=torch.float64),
        "tied": lambda shape: torch.randint(-1, 3, shape, generator=generator).double(),
        "equal": lambda shape: torch.full(shape, 0.5, dtype=torch.float64),
    }
    return {name: makers[kind](shape) for name, shape in NETWORK.items()}


def holes(seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return Masks({n: torch.rand(shape, generator=generator) < 0.9 for n, shape in NETWORK.items()})


def check_same(masks: Masks, expected: dict[str, Tensor]) -> None:
    assert list(masks) == list(expected)
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), name


def check_whole(pattern: Any, before: Masks, after: Masks, kept: int) -> None:
    """Check that the groups have gone or stayed as the pattern says, and no other entries."""
    in_groups = {name: torch.zeros_like(mask) for name, mask in before.items()}
    for own in entries_of(pattern).values():
        had, has = (sum(int(masks[n][spot]) for n, spot in own) for masks in (before, after))
        if pattern.kind == "n-of-m":
            assert has == min(had, most_of_m(pattern, kept))
        else:
            assert has in (0, had)
        for name, spot in own:
            in_groups[name][spot] = True
    for name, mask in before.items():
        outside = ~in_groups[name]
        assert torch.equal(mask[outside], after[name][outside]), name


def largest_groups(pattern: Any, masks: Masks) -> dict[int, int]:
    """Return the entries of the largest group of each unit."""
    found: dict[int, int] = {}
    for (unit, _), own in entries_of(pattern).items():
        found[unit] = max(found.get(unit, 0), sum(int(masks[n][spot]) for n, spot in own))
    return found


# -- masks -----------------------------------------------------------------------------------------

# Equal norms differ in their last digit, by the order in which squares are added.
CASES = [
    pytest.param(pattern, kind, id=f"{name}-{kind}")
    for name, pattern in EVERY.items()
    for kind in ("different", "tied", "equal")
    if kind == "different" or getattr(pattern, "reduce", "") != "norm"
]


@pytest.mark.parametrize(("pattern", "kind"), CASES)
def test_levels_equal_going_through_the_groups_one_by_one(pattern: Any, kind: str) -> None:
    for masks in (Masks.full(NETWORK), holes(0)):
        for level, asked in enumerate(LEVELS):
            scores, kept = numbers(kind, level), min(asked, masks.kept)
            after = shrunk(pattern, scores, masks, kept)
            assert after <= masks
            check_whole(pattern, masks, after, kept)
            check_same(after, slowly_shrunk(pattern, scores, masks, kept))
            masks = after


@every_pattern
def test_no_more_is_kept_than_asked_and_less_by_no_more_than_a_group(pattern: Any) -> None:
    for seed, kept in enumerate(LEVELS):
        masks = Masks.full(NETWORK)
        after = shrunk(pattern, numbers("different", seed), masks, kept)
        largest = max(largest_groups(pattern, masks).values())
        if pattern.kind == "n-of-m":
            # One more of every m.
            largest = TOTAL // pattern.m
        assert kept - largest < after.kept <= kept
        if pattern.kind == "unstructured":
            assert after.kept == kept


@every_pattern
@pytest.mark.parametrize("scope", [kind_of(scope) for scope in SCOPES.values()])
def test_scopes_hold_in_every_unit_or_are_refused(pattern: Any, scope: str) -> None:
    masks, setting = Masks.full(NETWORK), scope_over(pattern, scope)
    if scope in REFUSED[pattern.kind]:
        with pytest.raises(PruningError, match=f"pattern .*scope '{scope}'|scope '{scope}'.*patt"):
            shrunk(pattern, numbers("different", 0), masks, LEVELS[0], setting)
        return
    for level, asked in enumerate(LEVELS):
        scores, kept = numbers("different", level), min(asked, masks.kept)
        after = shrunk(pattern, scores, masks, kept, setting)
        assert after <= masks
        assert after.kept <= kept
        check_whole(pattern, masks, after, kept)
        check_same(after, slowly_by_scope(pattern, setting, scores, masks, kept))
        masks = after


@every_pattern
def test_the_type_and_the_layout_of_scores_change_nothing(pattern: Any) -> None:
    scores, masks = numbers("tied", 1), holes(1)
    expected = dict(shrunk(pattern, scores, masks, LEVELS[1]))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        other = {name: values.to(dtype) for name, values in scores.items()}
        check_same(shrunk(pattern, other, masks, LEVELS[1]), expected)
    turned = {name: values.mT.contiguous().mT for name, values in scores.items()}
    check_same(shrunk(pattern, turned, masks, LEVELS[1]), expected)


@every_pattern
def test_what_is_said_of_dead_entries_changes_nothing(pattern: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    dead = {name: torch.rand(s, generator=generator) < 0.1 for name, s in NETWORK.items()}
    # Some groups are dead altogether.
    for own in list(entries_of(pattern).values())[::5]:
        for name, spot in own:
            dead[name][spot] = True
    masks = Masks({name: ~mask for name, mask in dead.items()})
    kept = round(0.75 * masks.kept)
    scores = numbers("different", 2)
    after = shrunk(pattern, scores, masks, kept)
    assert after <= masks
    for value in (float("nan"), float("inf"), -float("inf")):
        loud = {name: values.masked_fill(dead[name], value) for name, values in scores.items()}
        check_same(shrunk(pattern, loud, masks, kept), dict(after))


@every_pattern
def test_a_score_that_is_no_number_names_its_layer(pattern: Any) -> None:
    scores = numbers("different", 0)
    scores["attention.k_proj.weight"][0, 0] = float("nan")
    with pytest.raises(PruningError, match=r"scores of 'attention\.k_proj\.weight', got NaN"):
        shrunk(pattern, scores, Masks.full(NETWORK), LEVELS[0])


# -- scores of groups ------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", REDUCED.values(), ids=REDUCED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_scores_of_groups_equal_a_loop_over_their_survivors(
    pattern: Any, dtype: torch.dtype
) -> None:
    masks = holes(3)
    scores = {name: (v - 0.5).to(dtype) for name, v in numbers("different", 3).items()}
    slow = pruning.groups(scores, masks, owner_of(pattern, AllLayers()), pattern.reduce)
    seen = 0
    for number, unit in enumerate(groups_of(pattern).units):
        found = group_scores(unit, pattern.reduce, scores, masks)
        assert len(found) == unit.count
        for group, value in enumerate(found):
            if (number, group) in slow:
                assert value == pytest.approx(slow[number, group][0], rel=1e-13, abs=1e-15)
                seen += 1
    assert seen == len(slow)


# -- in a search -----------------------------------------------------------------------------------


@every_pattern
def test_a_search_prunes_level_by_level_what_the_twin_says(tmp_path: Path, pattern: Any) -> None:
    torch.manual_seed(0)
    model, data = AllLayers(), batches(4, 4)
    result = infcop.search(
        model,
        infcop.Classification(data, data),
        run_dir=tmp_path,
        method=MethodConfig(
            name="mine",
            start="initialisation",
            pattern=pattern,
            schedule=Linear(levels=3),
            rewind={"to": "none"},
            stop={"rule": "fixed-budget", "passes": 0},
            keep_per_layer=1,
        ),
        density=TARGET,
        final={"passes": 0},
        execution={"device": "cpu", "threads": 1},
    )
    scores = {name: model.get_parameter(name).detach().abs() for name in NETWORK}
    masks, target = Masks.full(NETWORK), LEVELS[-1]
    for number, level in enumerate(result.record.levels, start=1):
        kept = schedule_kept(Linear(levels=3), [0.0] * masks.kept, TOTAL, number, target, target)
        masks = Masks(slowly_shrunk(pattern, scores, masks, kept, floor=1))
        assert level.kept == masks.kept
        assert level.kept_per_layer == masks.kept_per_layer
    check_same(result.masks, dict(masks))
    assert result.outcome.kept <= target
    assert math.isclose(result.density, masks.kept / TOTAL)
    check_whole(pattern, Masks.full(NETWORK), result.masks, target)
    for name, mask in result.masks.items():
        assert bool((result.model.state_dict()[name][~mask] == 0).all())


@every_pattern
@pytest.mark.parametrize("rounds", [3, 40])
def test_rounds_go_through_what_the_pattern_can_keep_and_no_round_scores_in_vain(
    tmp_path: Path, pattern: Any, rounds: int
) -> None:
    torch.manual_seed(0)
    model, data = AllLayers(), batches(4, 4)
    result = infcop.search(
        model,
        infcop.Classification(data, data),
        run_dir=tmp_path,
        method=MethodConfig(
            name="mine",
            start="initialisation",
            score="taylor",
            pattern=pattern,
            schedule="one-shot",
            rounds=rounds,
            rewind={"to": "none"},
            stop={"rule": "fixed-budget", "passes": 0},
            keep_per_layer=1,
            empty_layers="report",
        ),
        density=TARGET,
        final={"passes": 0},
        execution={"device": "cpu", "threads": 1},
    )
    masks, scorings = Masks.full(NETWORK), 0
    for count in round_kept(TOTAL, LEVELS[-1], rounds, "exponential"):
        possible = count
        if pattern.kind == "n-of-m":
            possible = most_of_m(pattern, count) * TOTAL // pattern.m
        if possible >= masks.kept:
            continue
        scored_model = deepcopy(model)
        mask_weights(scored_model, masks)
        scores = scored(Taylor(), scored_model, data, masks)
        masks = Masks(slowly_shrunk(pattern, scores, masks, count, floor=1))
        scorings += 1
    check_same(result.masks, dict(masks))
    (level,) = result.record.levels
    assert level.cost.measuring_gradient == scorings * sum(len(labels) for _, labels in data)
    if pattern.kind == "n-of-m":
        assert scorings <= pattern.m - pattern.n
    check_whole(pattern, Masks.full(NETWORK), result.masks, LEVELS[-1])
