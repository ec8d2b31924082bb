from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infcop.masking import rank
from infcop.masking.rank import Cut, Part, kth_smallest

INF, NAN = float("inf"), float("nan")


def sorted_cut(parts: Sequence[Part], count: int) -> Cut:
    values = sorted(v for part in parts for v in part.values[part.alive].double().tolist())
    largest = values[count - 1]
    return Cut(largest, values[:count].count(largest))


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let samples and pieces be so small that all ways through are taken."""
    monkeypatch.setattr(rank, "_PIECE", 7)
    monkeypatch.setattr(rank, "_SAMPLE", 12)


@settings(deadline=None, max_examples=100)
@given(
    layers=st.lists(
        st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=40), min_size=1, max_size=4
    ),
    place=st.floats(0, 1),
    piece=st.integers(1, 9),
    sample=st.integers(1, 20),
    sure=st.sampled_from([0.0, 0.3, 3.0]),
)
def test_equals_sorting_whatever_the_sample_says(
    layers: list[list[tuple[int, bool]]], place: float, piece: int, sample: int, sure: float
) -> None:
    parts = [
        Part(
            torch.tensor([float(value) for value, _ in layer]),
            torch.tensor([alive for _, alive in layer], dtype=torch.bool),
        )
        for layer in layers
    ]
    alive = sum(int(part.alive.sum()) for part in parts)
    if alive == 0:
        return
    count = 1 + int(place * (alive - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank, "_PIECE", piece)
        patch.setattr(rank, "_SAMPLE", sample)
        patch.setattr(rank, "_SURE", sure)
        assert kth_smallest(parts, count) == sorted_cut(parts, count)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", [0.0, 0.001, 0.2, 0.5, 0.999, 1.0])
def test_many_numbers(dtype: torch.dtype, place: float) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [
        Part(
            (torch.randn(size, generator=generator) * scale).to(dtype),
            torch.rand(size, generator=generator) < 0.7,
        )
        for size, scale in ((150_000, 1.0), (80_000, 0.01), (3, 100.0))
    ]
    alive = sum(int(part.alive.sum()) for part in parts)
    count = 1 + int(place * (alive - 1))
    assert kth_smallest(parts, count) == sorted_cut(parts, count)


def test_values_ordered_against_the_sample(small_steps: None) -> None:
    values = torch.cat([torch.zeros(500), torch.ones(500), torch.arange(500.0)])
    parts = [Part(values, torch.ones(1500, dtype=torch.bool))]
    for count in (1, 499, 500, 501, 502, 1001, 1002, 1003, 1499, 1500):
        assert kth_smallest(parts, count) == sorted_cut(parts, count)


def test_infinities_and_hidden_nan(small_steps: None) -> None:
    values = torch.tensor([INF, -INF, NAN, 1.0, -INF, INF, NAN, 0.0] * 9)
    parts = [Part(values, ~values.isnan())]
    for count in range(1, 55):
        assert kth_smallest(parts, count) == sorted_cut(parts, count)


def test_numbers_of_two_widths_are_compared_as_the_wider(small_steps: None) -> None:
    def part(values: Tensor) -> Part:
        return Part(values, torch.ones(len(values), dtype=torch.bool))

    between = torch.full((40,), 1.0 + 2.0**-50, dtype=torch.float64)
    parts = [part(between), part(torch.ones(40))]
    assert kth_smallest(parts, 40) == Cut(1.0, 40)
    assert kth_smallest(parts, 41) == Cut(1.0 + 2.0**-50, 1)
    assert kth_smallest([part(torch.arange(5)), part(torch.ones(2))], 4) == Cut(1.0, 3)


def test_zeros_of_both_signs_are_equal(small_steps: None) -> None:
    values = torch.tensor([0.0, -0.0] * 20)
    found = kth_smallest([Part(values, torch.ones(40, dtype=torch.bool))], 7)
    assert found == Cut(0.0, 7)
    assert isinstance(found.value, float)
    assert not isinstance(found.value, np.floating)
