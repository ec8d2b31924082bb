from __future__ import annotations

import math
from fractions import Fraction as Rational
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.errors import PruningError
from infcop.masking.rounds import round_counts

spacings = st.sampled_from(["exponential", "linear"])


@settings(deadline=None, max_examples=100)
@given(
    alive=st.one_of(st.integers(1, 60), st.integers(1, 10**10)),
    part=st.floats(0, 1),
    rounds=st.integers(1, 40),
    spacing=spacings,
)
def test_counts_fall_to_what_is_kept(alive: int, part: float, rounds: int, spacing: str) -> None:
    kept = max(1, int(part * alive))
    counts = round_counts(alive, kept, rounds, spacing)  # type: ignore[arg-type]
    assert len(counts) == rounds
    assert counts[-1] == kept
    assert all(before >= after for before, after in pairwise((alive, *counts)))
    for k, count in enumerate(counts, start=1):
        if spacing == "linear":
            # The removed entries, rounded down.
            assert alive - count == math.floor(Rational((alive - kept) * k, rounds))
        else:
            # The smallest count that is at least alive * (kept / alive) ** (k / rounds).
            exact = alive ** (rounds - k) * kept**k
            assert count**rounds >= exact > (count - 1) ** rounds


def test_a_hundred_rounds_of_a_large_network_end_where_they_should() -> None:
    counts = round_counts(14_761_664, 14_762, 100, "exponential")
    assert counts[-1] == 14_762
    assert counts[49] == math.ceil(math.sqrt(14_761_664 * 14_762))
    assert max(a / b for a, b in pairwise(counts)) == pytest.approx(1000**0.01, rel=1e-3)


def test_whole_roots_are_not_rounded_up() -> None:
    assert round_counts(1000, 1, 3, "exponential") == (100, 10, 1)
    assert round_counts(3**20, 1, 20, "exponential") == tuple(3**k for k in range(19, -1, -1))


def test_one_round_goes_straight_there_and_nothing_may_be_left_to_do() -> None:
    assert round_counts(10, 3, 1, "exponential") == (3,)
    assert round_counts(10, 10, 3, "linear") == round_counts(10, 10, 3, "exponential") == (10,) * 3
    assert round_counts(2, 1, 5, "exponential") == (2, 2, 2, 2, 1)
    assert round_counts(2, 1, 5, "linear") == (2, 2, 2, 2, 1)


@pytest.mark.parametrize(("alive", "kept", "rounds"), [(10, 0, 1), (10, 11, 1), (10, 5, 0)])
def test_counts_out_of_range(alive: int, kept: int, rounds: int) -> None:
    with pytest.raises(PruningError, match="expected 1 <= kept <= alive and at least one round"):
        round_counts(alive, kept, rounds, "linear")
