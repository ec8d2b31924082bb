from __future__ import annotations

import numpy as np
import pytest

from infcop.study.rank import ranks, spearman


def test_equal_values_share_their_mean_rank() -> None:
    assert ranks([3.0, 1.0, 3.0, 3.0, 2.0]).tolist() == [4, 1, 4, 4, 2]
    assert ranks([7.0]).tolist() == [1]


def test_order_alone_counts() -> None:
    values = [0.1, 0.2, 0.7, 5.0]
    assert spearman(values, [10, 20, 21, 1000]) == 1
    assert spearman(values, [0, -1, -2, -300]) == -1
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)


@pytest.mark.parametrize(("first", "second"), [([1, 1, 1], [1, 2, 3]), ([1, 2], [4, 4])])
def test_what_is_constant_has_no_rank_correlation(first: list[float], second: list[float]) -> None:
    assert spearman(first, second) is None
    assert spearman(second, first) is None


def test_it_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for size in (2, 3, 5, 20, 101):
        for values in (3, 1000):  # many ties, hardly any
            first, second = generator.integers(0, values, size=(2, size)).astype(float).tolist()
            found = spearman(first, second)
            if found is not None:
                assert found == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
