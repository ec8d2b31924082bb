from __future__ import annotations

import math

import pytest

from infcop.study.recovery import deficits, end_of, noise_of, recovered_at

NAN = math.nan


def test_the_end_is_the_mean_of_the_last_quarter() -> None:
    assert end_of([0.0] * 6 + [0.5, 0.7]) == 0.6
    assert end_of([0.1, 0.9]) == 0.9, "at least one reading"
    assert end_of([0.0] * 6 + [NAN, 0.7]) == 0.7, "what is not finite is left out"
    assert end_of([0.5, 0.5, 0.5, math.inf]) is None


def test_the_noise_is_pooled_over_the_last_quarters() -> None:
    quiet, loud = [0.0] * 6 + [0.5, 0.5], [0.0] * 6 + [0.3, 0.7]
    assert noise_of([quiet]) == 0
    # Squares 0.04 + 0.04 around the means, with one degree of freedom for each level.
    assert noise_of([quiet, loud]) == pytest.approx(math.sqrt(0.08 / 2))
    assert noise_of([[0.1, 0.9]]) == noise_of([]) == 0, "one reading says nothing of noise"
    # What differs between levels is no noise.
    assert noise_of([quiet, [0.9] * 8]) == 0


def test_a_deficit_knows_the_direction() -> None:
    assert deficits([0.5, 1.0, NAN], 0.75, 1)[:2] == [0.25, -0.25]
    assert deficits([0.5, 1.0], 0.75, -1) == [-0.25, 0.25]
    assert all(map(math.isnan, deficits([0.5, NAN], None, 1)))
    assert math.isnan(deficits([NAN], 0.5, 1)[0])


@pytest.mark.parametrize(
    ("deficit", "place"),
    [
        ([0.0, 0.0, 0.0, 0.0], 1),
        ([0.3, 0.2, 0.1, 0.0], 3),
        ([0.3, 0.1, 0.1, 0.1], 2),
        ([0.3, 0.0, 0.3, 0.0], 2),
        ([0.0, 0.3, 0.3, 0.0], 4),
        ([0.3, -0.5, -0.5, -0.5], 2),
        ([0.3, 0.0, 0.0, 0.3], 2),
        ([0.3, 0.3, 0.3, 0.3], 4),
        ([NAN, 0.0, NAN, 0.0], 2),
        ([0.0, NAN, NAN, 0.0], 4),
    ],
    ids=[
        *("at once", "at last", "equality is within", "a single dip is noise", "two are not"),
        *("better is fine", "the last may dip", "never", "a gap", "two gaps"),
    ],
)
def test_recovery_is_the_place_from_which_on_it_stays(deficit: list[float], place: int) -> None:
    assert recovered_at([1, 2, 3, 4], deficit, tolerance=0.1) == place


def test_nothing_known_is_nothing_recovered() -> None:
    assert recovered_at([1, 2], [NAN, NAN], tolerance=1.0) is None
