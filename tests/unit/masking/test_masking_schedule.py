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
from infcop.core.method import Adaptive, Cubic, Fraction, MethodConfig, OneShot, Schedule
from infcop.errors import PruningError
from infcop.masking.prune import prune_level
from infcop.masking.schedule import (
    cubic_kept,
    level_count,
    next_kept,
    pq_index,
    sap_fraction,
)
from tests.reference import pruning

EXPONENTS = [(1.0, 2.0), (0.5, 1.0)]


def kept_of(schedule: Schedule, weights: Tensor, target_kept: int = 1, **counts: int) -> int:
    masks = Masks.full({"w": weights.shape})
    counts = {"level": 1, "target_kept": target_kept, **counts}
    return next_kept(schedule, {"w": weights}, masks, **counts)


def sample(distribution: str, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(size, generator=generator, dtype=torch.float64)
    if distribution == "gaussian":
        return torch.randn(size, generator=generator, dtype=torch.float64)
    if distribution == "laplace":
        return torch.log1p(-uniform)  # the sign does not matter
    return uniform


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
    "schedule", [Fraction(remove=0.6), Adaptive(p=1.0, q=2.0), Cubic(levels=2), OneShot()]
)
def test_a_level_ends_at_a_stop_on_the_way(schedule: Schedule) -> None:
    weights = sample("gaussian", 1000)
    assert kept_of(schedule, weights, target_kept=100, stop_kept=900) == 900
    assert kept_of(schedule, weights, target_kept=100, stop_kept=1000) == 1000
    assert kept_of(schedule, weights, target_kept=100, stop_kept=1200) == 1000


# -- cubic and one-shot ----------------------------------------------------------------------------


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


def test_one_shot_goes_straight_to_the_target() -> None:
    assert levels_of(OneShot(), 1000, 37) == [1000, 37]
    assert levels_of(OneShot(), 1000, 1000) == [1000]


@settings(deadline=None, max_examples=60)
@given(
    schedule=st.one_of(
        st.builds(Fraction, remove=st.floats(0.05, 0.9)),
        st.builds(Cubic, levels=st.integers(1, 30)),
        st.just(OneShot()),
    ),
    total=st.integers(1, 300),
    density=st.floats(0.01, 1),
)
def test_levels_are_counted_as_they_come(
    schedule: Fraction | Cubic | OneShot, total: int, density: float
) -> None:
    target = max(round(density * total), 1)
    weights = {"w": torch.rand(total, generator=torch.Generator().manual_seed(0))}
    method = MethodConfig(name="mine", schedule=schedule)
    masks, count = Masks.full({"w": (total,)}), 0
    while masks.kept > target:
        count += 1
        masks = prune_level(weights, weights, masks, method, level=count, target_kept=target)
    assert level_count(schedule, total, target, most=10**6) == count
    assert level_count(schedule, total, target, most=2) == min(count, 2)


# -- PQ index and SAP ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distribution", "p", "q", "retained"),
    [
        ("gaussian", 1.0, 2.0, 2 / math.pi),
        ("gaussian", 0.5, 1.0, 0.8472),
        ("uniform", 1.0, 2.0, 3 / 4),
        ("uniform", 0.5, 1.0, 8 / 9),
        ("laplace", 1.0, 2.0, 1 / 2),
        ("laplace", 0.5, 1.0, math.pi / 4),
    ],
)
def test_retained_fraction_of_ideal_weights(
    distribution: str, p: float, q: float, retained: float
) -> None:
    size = 400_000
    kept = kept_of(Adaptive(p=p, q=q), sample(distribution, size))
    assert kept / size == pytest.approx(retained, abs=0.003)


weight_lists = st.lists(
    st.one_of(st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.25]), st.floats(-8, 8)),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=80)
@given(
    weights=weight_lists,
    exponents=st.sampled_from([*EXPONENTS, (0.7, 1.6)]),
    eta=st.sampled_from([0.0, 0.1, 1.0]),
    gamma=st.sampled_from([0.3, 1.0, 1.7]),
    beta=st.sampled_from([0.1, 0.29, 0.9, 1.0]),
)
def test_removed_count_equals_the_formula(
    weights: list[float], exponents: tuple[float, float], eta: float, gamma: float, beta: float
) -> None:
    p, q = exponents
    values = torch.tensor(weights, dtype=torch.float64)
    removed = len(weights) - kept_of(Adaptive(p=p, q=q, eta=eta, gamma=gamma, beta=beta), values)
    # All zeros leave the formula undefined; they count as equal magnitudes.
    stand_in = weights if any(weights) else [1.0] * len(weights)
    expected = pruning.sap_removed(stand_in, p, q, eta, gamma, beta)
    assert removed == min(expected, len(weights) - 1)


@pytest.mark.parametrize(("p", "q"), EXPONENTS)
@pytest.mark.parametrize("survivors", [1, 3, 7, 50, 99, 100])
def test_equal_weights_among_zeros_are_exactly_worth_keeping(
    p: float, q: float, survivors: int
) -> None:
    weights = torch.zeros(100)
    weights[:survivors] = 0.1
    assert kept_of(Adaptive(p=p, q=q, beta=1.0), weights) == survivors


@pytest.mark.parametrize(("p", "q"), EXPONENTS)
@pytest.mark.parametrize("scale", [1e-300, 3e-39, 0.3, 1e30, 1e307])
def test_scale_changes_nothing(p: float, q: float, scale: float) -> None:
    weights = torch.rand(1000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    schedule = Adaptive(p=p, q=q)
    assert pq_index(weights * scale, p, q) == pytest.approx(pq_index(weights, p, q), rel=1e-12)
    assert kept_of(schedule, weights * scale) == kept_of(schedule, weights)


def test_tiny_float32_and_large_half_weights_neither_vanish_nor_overflow() -> None:
    tiny = torch.tensor([1e-44, 3e-44, 7e-45])
    assert 0 < pq_index(tiny, 1.0, 2.0) < 1
    large = torch.full((100_000,), 60_000.0, dtype=torch.float16)
    large[0] = 1.0
    assert 0 < pq_index(large, 1.0, 2.0) < 1e-4


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-30, 3.3e38])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_magnitudes_leave_nothing_to_remove(value: float, dtype: torch.dtype) -> None:
    weights = torch.full((37,), value, dtype=dtype) * torch.tensor([1, -1])[torch.arange(37) % 2]
    for p, q in EXPONENTS:
        assert pq_index(weights.to(dtype), p, q) == 0.0
        assert kept_of(Adaptive(p=p, q=q), weights.to(dtype)) == 37


def test_index_ignores_shape_and_the_limits_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    whole = pq_index(weights, 0.5, 1.0)
    monkeypatch.setattr("infcop.masking.schedule._CHUNK", 7)
    assert pq_index(weights, 0.5, 1.0) == pytest.approx(whole, rel=1e-14)
    assert pq_index(weights.t(), 0.5, 1.0) == pytest.approx(whole, rel=1e-14)


def test_beta_bounds_the_removal_even_of_very_sparse_weights() -> None:
    weights = torch.zeros(1000)
    weights[0] = 1.0
    assert kept_of(Adaptive(beta=0.9), weights) == 100
    assert kept_of(Adaptive(beta=0.29), weights) == 710


def test_fraction_of_sap_is_exact() -> None:
    assert sap_fraction(0.0, 7, Adaptive()) == 0
    assert sap_fraction(1.0, 7, Adaptive(beta=1.0)) == 1
    assert sap_fraction(0.5, 7, Adaptive(p=0.5, q=1.0)) == Rational(3, 7)
    assert sap_fraction(0.0, 10, Adaptive(p=1.0, q=2.0, eta=1.0)) == Rational(7, 10)


def test_sap_looks_at_alive_entries_of_all_layers_together() -> None:
    weights = {"a": torch.tensor([1.0, 0.0, 5.0]), "b": torch.tensor([[0.0, 3.0]])}
    masks = Masks({"a": torch.tensor([True, True, False]), "b": torch.tensor([[True, True]])})
    joined = torch.tensor([1.0, 0.0, 0.0, 3.0])
    schedule = Adaptive(p=1.0, q=2.0)
    kept = next_kept(schedule, weights, masks, level=1, target_kept=1)
    assert kept == kept_of(schedule, joined) == 2


def test_sap_stops_at_the_target_and_below_it_does_nothing() -> None:
    weights = sample("gaussian", 1000)
    assert kept_of(Adaptive(p=1.0, q=2.0), weights, target_kept=900) == 900
    assert kept_of(Adaptive(p=1.0, q=2.0), weights, target_kept=1000) == 1000
    assert kept_of(Adaptive(p=1.0, q=2.0), weights, target_kept=2000) == 1000


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_index_refuses_diverged_weights(bad: float) -> None:
    with pytest.raises(PruningError, match="finite weights"):
        pq_index(torch.tensor([1.0, bad]), 0.5, 1.0)


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0)])
def test_index_refuses_exponents_out_of_order(p: float, q: float) -> None:
    with pytest.raises(PruningError, match="0 < p < q"):
        pq_index(torch.ones(2), p, q)


def test_index_refuses_an_empty_vector() -> None:
    with pytest.raises(PruningError, match="at least one weight"):
        pq_index(torch.ones(0), 0.5, 1.0)
