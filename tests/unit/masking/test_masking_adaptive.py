from __future__ import annotations

import math
from fractions import Fraction as Rational

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.schedule import Adaptive, Schedule
from infcop.errors import PruningError
from infcop.masking.adaptive import pq_index, sap_fraction
from infcop.masking.schedule import next_kept
from tests.reference import pruning

EXPONENTS = [(1.0, 2.0), (0.5, 1.0)]


def kept_of(schedule: Schedule, weights: Tensor, target_kept: int = 1) -> int:
    masks = Masks.full({"w": weights.shape})
    return next_kept(schedule, {"w": weights}, masks, level=1, target_kept=target_kept)


def sample(distribution: str, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(size, generator=generator, dtype=torch.float64)
    if distribution == "gaussian":
        return torch.randn(size, generator=generator, dtype=torch.float64)
    if distribution == "laplace":
        return torch.log1p(-uniform)  # the sign does not matter
    return uniform


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
    assert pq_index([weights * scale], p, q) == pytest.approx(pq_index([weights], p, q), rel=1e-12)
    assert kept_of(schedule, weights * scale) == kept_of(schedule, weights)


def test_tiny_float32_and_large_half_weights_neither_vanish_nor_overflow() -> None:
    tiny = torch.tensor([1e-44, 3e-44, 7e-45])
    assert 0 < pq_index([tiny], 1.0, 2.0) < 1
    large = torch.full((100_000,), 60_000.0, dtype=torch.float16)
    large[0] = 1.0
    assert 0 < pq_index([large], 1.0, 2.0) < 1e-4


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-30, 3.3e38])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_magnitudes_leave_nothing_to_remove(value: float, dtype: torch.dtype) -> None:
    weights = torch.full((37,), value, dtype=dtype) * torch.tensor([1, -1])[torch.arange(37) % 2]
    for p, q in EXPONENTS:
        assert pq_index([weights.to(dtype)], p, q) == 0.0
        assert kept_of(Adaptive(p=p, q=q), weights.to(dtype)) == 37


def test_index_ignores_shapes_layers_and_the_limits_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    whole = pq_index([weights], 0.5, 1.0)
    monkeypatch.setattr("infcop.masking.adaptive._CHUNK", 7)
    for same in ([weights], [weights.t()], [weights[:3], weights[:0], weights[3:].flatten()]):
        assert pq_index(same, 0.5, 1.0) == pytest.approx(whole, rel=1e-14)


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
        pq_index([torch.tensor([1.0, bad])], 0.5, 1.0)
    # Wherever the layer is: the largest of several numbers may pass a NaN over.
    for weights in ([torch.ones(2), torch.tensor([bad])], [torch.tensor([bad]), torch.ones(2)]):
        with pytest.raises(PruningError, match="finite weights"):
            pq_index(weights, 0.5, 1.0)


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0)])
def test_index_refuses_exponents_out_of_order(p: float, q: float) -> None:
    with pytest.raises(PruningError, match="0 < p < q"):
        pq_index([torch.ones(2)], p, q)


@pytest.mark.parametrize("weights", [[], [torch.ones(0)]], ids=["no layer", "an empty layer"])
def test_index_refuses_no_weights(weights: list[Tensor]) -> None:
    with pytest.raises(PruningError, match="at least one weight"):
        pq_index(weights, 0.5, 1.0)
