"""The size that is tried next."""

from __future__ import annotations

import bisect
import random

import pytest

from infcop.pipeline.next_size import Tried, between, next_kept


def tries(*pairs: tuple[float, float]) -> list[Tried]:
    return [Tried(kept, kept, part) for kept, part in pairs]


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5])
def test_a_power_is_found_from_two_networks(power: float) -> None:
    found = next_kept(tries((900, 0.9**power), (500, 0.5**power)), 0.3)
    assert found == pytest.approx(1000 * 0.3 ** (1 / power))


@pytest.mark.parametrize(
    ("before", "power"),
    [((500.1, 0.9), 1.0), ((400, 0.499), 0.3), ((400, 0.1), 2.0), ((400, 0.6), 0.3)],
    ids=["too near", "hardly grows", "grows too much", "falls"],
)
def test_a_bad_pair_does_not_lead_far_astray(before: tuple[float, float], power: float) -> None:
    found = next_kept(tries(before, (500, 0.5)), 0.4)
    assert found == pytest.approx(500 * 0.8 ** (1 / power))


def test_what_lies_between_is_left_as_it_is() -> None:
    tried = tries((40, 0.4), (90, 0.8))
    assert between(tried, 0.5, 41) == 41
    assert between(tried, 0.5, 89) == 89
    assert between(tried, 0.5, 40.5) == between(tried, 0.5, 200) == 60


def test_there_may_be_nothing_between() -> None:
    assert between(tries((40, 0.4), (41, 0.8)), 0.5, 40) is None
    assert between([Tried(40, 30, 0.4), Tried(60, 38, 0.8)], 0.5, 50) is None
    assert between(tries((40, 0.4), (42, 0.8)), 0.5, 50) == pytest.approx(41, abs=0.02)


def test_without_a_bound_the_other_side_is_open() -> None:
    assert between(tries((40, 0.4)), 0.5, 1e9) == 1e9
    assert between(tries((40, 0.8)), 0.5, 1) == 1
    assert between(tries((1, 0.8)), 0.5, 1) is None


@pytest.mark.parametrize("seed", range(20))
def test_sizes_are_closed_in_on_from_both_sides(seed: int) -> None:
    """As for multiply-adds: a size gives the largest network that is not above it."""
    generator = random.Random(seed)
    there = sorted({generator.randrange(1, 10_000) for _ in range(generator.choice([5, 50, 500]))})
    there = [1, *there, 10_000]
    power, wanted = generator.uniform(0.7, 1.6), generator.uniform(0.05, 0.9)
    tried: list[Tried] = []
    kept: float | None = 10_000 * wanted
    while kept is not None and len(tried) < 40:
        size = there[bisect.bisect_right(there, round(kept)) - 1]
        tried.append(Tried(kept, size, (size / 10_000) ** power))
        kept = between(tried, wanted, min(next_kept(tried, wanted), 10_000))
    every = [(size / 10_000) ** power for size in there]
    nearest = min(abs(part - wanted) for part in every)
    assert min(abs(one.part - wanted) for one in tried) == pytest.approx(nearest)
    assert len(tried) <= 20
