from __future__ import annotations

import math
from fractions import Fraction as Rational
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import Channel, NofM
from infcop.core.schedule import (
    Adaptive,
    Cubic,
    Fraction,
    Linear,
    Listed,
    OneShot,
    Schedule,
)
from infcop.errors import PruningError
from infcop.masking.groups import Groups
from infcop.masking.prune import level_kept
from infcop.masking.schedule import (
    Counting,
    cubic_kept,
    level_count,
    linear_kept,
    next_kept,
    without_remainder,
)
from tests.reference.pruning import prune_level


def kept_of(schedule: Schedule, weights: Tensor, target_kept: int = 1, **counts: int) -> int:
    masks = Masks.full({"w": weights.shape})
    counts = {"level": 1, "target_kept": target_kept, **counts}
    return next_kept(schedule, {"w": weights}, masks, **counts)


# -- fraction --------------------------------------------------------------------------------------


def test_a_fifth_at_a_time() -> None:
    kept = [1000]
    for _ in range(3):
        kept.append(kept_of(Fraction(remove=0.2), torch.ones(kept[-1])))
    assert kept == [1000, 800, 640, 512]


@pytest.mark.parametrize(("remove", "alive", "kept"), [(0.29, 100, 71), (0.57, 100, 43)])
def test_fractions_are_taken_as_written(remove: float, alive: int, kept: int) -> None:
    assert math.floor(remove * alive) == alive - kept - 1  # what binary numbers would give
    assert kept_of(Fraction(remove=remove), torch.ones(alive)) == kept


@settings(deadline=None, max_examples=100)
@given(remove=st.floats(0.01, 0.99), alive=st.integers(1, 200), target=st.integers(1, 200))
def test_fraction_reaches_the_target_exactly(remove: float, alive: int, target: int) -> None:
    levels = [alive]
    while levels[-1] > target:
        levels.append(kept_of(Fraction(remove=remove), torch.ones(levels[-1]), target))
        removed = levels[-2] - levels[-1]
        assert removed >= 1
        assert removed <= max(1, remove * levels[-2] + 1e-9)
        assert levels[-1] == target or removed >= remove * levels[-2] - 1 - 1e-9
    assert levels[-1] == min(alive, target)


def test_fraction_counts_masks_and_not_values() -> None:
    masks = Masks({"w": torch.tensor([True] * 10 + [False] * 90)})
    weights = {"w": torch.zeros(100)}
    assert next_kept(Fraction(remove=0.5), weights, masks, level=1, target_kept=1) == 5


def test_target_must_be_positive() -> None:
    with pytest.raises(PruningError, match="of at least 1, got 0 and 0"):
        kept_of(Fraction(), torch.ones(3), target_kept=0)
    with pytest.raises(PruningError, match="of at least 1, got 2 and 0"):
        kept_of(Fraction(), torch.ones(3), target_kept=2, stop_kept=0)


# -- stops on the way ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        *(Fraction(remove=0.6), Adaptive(p=1.0, q=2.0), Cubic(levels=2), OneShot()),
        *(Linear(levels=2), Listed(densities=(0.5, 0.2))),
    ],
)
def test_a_level_ends_at_a_stop_on_the_way(schedule: Schedule) -> None:
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert kept_of(schedule, weights, target_kept=100, stop_kept=900) == 900
    assert kept_of(schedule, weights, target_kept=100, stop_kept=1000) == 1000
    assert kept_of(schedule, weights, target_kept=100, stop_kept=1200) == 1000


# -- cubic, linear, listed and one-shot ------------------------------------------------------------


def levels_of(schedule: Schedule, total: int, target: int) -> list[int]:
    """Return what is alive after every level, the dense network first."""
    alive = torch.arange(total)
    levels = [total]
    while levels[-1] > target:
        masks = Masks({"w": alive < levels[-1]})
        counts = {"level": len(levels), "target_kept": target}
        levels.append(next_kept(schedule, {"w": torch.ones(total)}, masks, **counts))
    return levels


@pytest.mark.parametrize(("total", "target", "levels"), [(10**6, 50_000, 20), (9999, 333, 7)])
def test_cubic_densities_are_those_of_the_formula(total: int, target: int, levels: int) -> None:
    kept = levels_of(Cubic(levels=levels), total, target)
    assert len(kept) == levels + 1
    assert kept[-1] == target
    final = Rational(total - target, total)
    for t, count in enumerate(kept):
        sparsity = final * (1 - (1 - Rational(t, levels)) ** 3)
        assert count == total - math.floor(sparsity * total)


def test_a_cubic_level_of_four_by_hand() -> None:
    # 1 - (3/4)^3 = 37/64, 1 - (2/4)^3 = 56/64, 1 - (1/4)^3 = 63/64 of the 640 to be removed
    assert levels_of(Cubic(levels=4), 1000, 360) == [1000, 630, 440, 370, 360]


@settings(deadline=None, max_examples=100)
@given(total=st.integers(1, 400), density=st.floats(0.001, 1), levels=st.integers(1, 30))
def test_cubic_removes_something_at_every_level_and_never_more_than_before(
    total: int, density: float, levels: int
) -> None:
    target = max(round(density * total), 1)
    kept = levels_of(Cubic(levels=levels), total, target)
    removed = [before - after for before, after in pairwise(kept)]
    assert all(count >= 1 for count in removed)
    assert all(later <= earlier + 1 for earlier, later in pairwise(removed))
    assert kept[-1] == target
    assert len(removed) <= levels


def test_past_its_last_level_a_cubic_schedule_keeps_the_target() -> None:
    assert [cubic_kept(1000, 200, level, 4) for level in (4, 5, 50)] == [200] * 3


@settings(deadline=None, max_examples=100)
@given(total=st.integers(1, 400), density=st.floats(0.001, 1), levels=st.integers(1, 30))
def test_linear_levels_remove_equally_many(total: int, density: float, levels: int) -> None:
    target = max(round(density * total), 1)
    kept = levels_of(Linear(levels=levels), total, target)
    removed = [before - after for before, after in pairwise(kept)]
    assert kept[-1] == target
    assert len(removed) <= levels
    assert all(abs(count - (total - target) / levels) <= 1 for count in removed) or total < levels
    for level in range(1, levels + 1):
        planned = total - Rational(level * (total - target), levels)
        assert 0 <= linear_kept(total, target, level, levels) - planned < 1


def test_past_its_last_level_a_linear_schedule_keeps_the_target() -> None:
    assert [linear_kept(1000, 200, level, 4) for level in (3, 4, 5, 50)] == [400, 200, 200, 200]


def test_listed_densities_come_one_by_one_and_then_the_target() -> None:
    assert levels_of(Listed(densities=(0.5, 0.29, 0.1)), 100, 20) == [100, 50, 29, 20]
    # At the target and below it they are passed over.
    assert levels_of(Listed(densities=(0.5, 0.2, 0.1)), 100, 20) == [100, 50, 20]
    assert levels_of(Listed(densities=(0.1,)), 100, 20) == [100, 20]
    # Densities that come to the same number of entries are one level.
    assert levels_of(Listed(densities=(0.52, 0.51, 0.001)), 10, 1) == [10, 5, 1]
    assert levels_of(Listed(densities=(0.001,)), 10, 1) == [10, 1]


def test_a_stop_on_the_way_takes_no_listed_density_away() -> None:
    masks = Masks({"w": torch.arange(100) < 80})
    schedule = Listed(densities=(0.5, 0.3))
    assert next_kept(schedule, {"w": torch.ones(100)}, masks, level=2, target_kept=20) == 50


def test_listed_densities_next_to_the_target_are_not_passed_over() -> None:
    assert without_remainder(Listed(densities=(0.5,)), 100, 21, 20) == 21
    assert without_remainder(Fraction(), 100, 21, 20) == 20


def test_one_shot_goes_straight_to_the_target() -> None:
    assert levels_of(OneShot(), 1000, 37) == [1000, 37]
    assert levels_of(OneShot(), 1000, 1000) == [1000]


@settings(deadline=None, max_examples=60)
@given(
    schedule=st.one_of(
        st.builds(Fraction, remove=st.floats(0.05, 0.9)),
        st.builds(Cubic, levels=st.integers(1, 30)),
        st.builds(Linear, levels=st.integers(1, 30)),
        st.just(Listed(densities=(0.9, 0.5, 0.21, 0.2, 0.1, 0.05))),
        st.just(OneShot()),
    ),
    total=st.integers(1, 300),
    density=st.floats(0.01, 1),
)
def test_levels_are_counted_as_they_come(schedule: Counting, total: int, density: float) -> None:
    target = max(round(density * total), 1)
    weights = {"w": torch.rand(total, generator=torch.Generator().manual_seed(0))}
    method = MethodConfig(name="mine", schedule=schedule)
    masks, count = Masks.full({"w": (total,)}), 0
    while masks.kept > target:
        count += 1
        masks = prune_level(weights, weights, masks, method, level=count, target_kept=target)
    assert level_count(schedule, total, target, most=10**6) == count
    assert level_count(schedule, total, target, most=2) == min(count, 2)


def test_levels_of_a_pattern_are_counted_by_what_it_can_keep() -> None:
    assert level_count(Fraction(remove=0.1), 80, 20, 100, NofM(n=2, m=8)) == 6
    assert level_count(Fraction(remove=0.4), 80, 20, 100, NofM(n=2, m=8)) == 2
    assert level_count(Cubic(levels=20), 80, 20, 100, NofM(n=1, m=4)) == 3
    assert level_count(OneShot(), 80, 20, 100, NofM(n=1, m=4)) == 1
    # Whole groups are counted as single entries.
    assert level_count(Fraction(remove=0.1), 80, 20, 100, Channel()) == level_count(
        Fraction(remove=0.1), 80, 20, 100
    )


@pytest.mark.parametrize("schedule", [Fraction(remove=0.1), Linear(levels=7), Cubic(levels=9)])
def test_levels_of_n_of_m_are_counted_as_they_come(schedule: Counting) -> None:
    pattern = NofM(n=3, m=16)
    method = MethodConfig(name="mine", schedule=schedule, pattern=pattern)
    kept, count = 1600, 0
    while kept > 300:
        count += 1
        masks = Masks({"w": torch.arange(1600) < kept})
        kept = level_kept({}, masks, method, level=count, target_kept=300, groups=Groups(pattern))
    assert kept == 300
    assert level_count(schedule, 1600, 300, 100, pattern) == count
