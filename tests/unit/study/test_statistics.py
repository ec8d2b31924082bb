from __future__ import annotations

import numpy as np
import pytest

from infcop.study.statistics import bootstrap_interval, estimate, t_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (29, 2.0452)]
)
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, abs=5e-5)


def test_quantiles_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4, 5, 8, 15, 40, 101):
        for probability in (0.5, 0.6, 0.9, 0.975, 0.9995):
            expected = stats.t.ppf(probability, freedom)
            assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_an_interval_with_known_numbers() -> None:
    # Mean 4, standard deviation 2, so the half width is 4.3027 * 2 / sqrt(3).
    found = estimate([2.0, 4.0, 6.0])
    assert found.mean == 4.0
    assert found.half_width == pytest.approx(4.9683, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((-0.9683, 8.9683), abs=1e-4)


def test_the_interval_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = list(np.random.default_rng(3).normal(0.85, 0.01, size=7))
    found = estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_has_no_interval() -> None:
    assert estimate([0.5]).half_width is None
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([]) is None


def test_intervals_hold_the_truth_as_often_as_they_promise() -> None:
    draws = np.random.default_rng(0).normal(1.0, 0.3, size=(2000, 5))
    held = [found.low < 1.0 < found.high for found in map(estimate, draws.tolist())]
    assert 0.935 < np.mean(held) < 0.965


def test_the_bootstrap_knows_small_cases() -> None:
    # Of two seeds, both are drawn alike half of the time: the quantiles are the values themselves.
    assert bootstrap_interval([1.0, 3.0]) == (1.0, 3.0)
    low, high = bootstrap_interval(list(range(101))) or (0, 0)
    assert (low, high) == pytest.approx((50 - 5.7, 50 + 5.7), abs=0.3)


def test_the_bootstrap_is_seeded() -> None:
    values = [0.1, 0.4, -0.2, 0.3]
    assert bootstrap_interval(values) == bootstrap_interval(values)
