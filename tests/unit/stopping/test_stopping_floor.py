from __future__ import annotations

import math

import pytest

from infcop.core.comparison import HALVES
from infcop.core.records import Comparison, Reading
from infcop.errors import FlowError
from infcop.stopping.floor import noise_floor


def moved(distance, cosine=0.5):
    """Compare two states that lie so far apart, and that cosine off one."""
    # With |B| = 1 and |A| = a: |A - B|^2 = d^2 and <A, B> = a (1 - c) = (a^2 + 1 - d^2) / 2.
    a = (1 - cosine) + math.sqrt((1 - cosine) ** 2 - 1 + distance**2)
    return Comparison(difference=(distance**2,), present=(a**2,), reference=(1.0,))


def dense(*changes, halves=None, unit="last"):
    readings = [
        Reading(
            phase="dense",
            level=0,
            passes=passes,
            comparisons={} if change is None else {unit: moved(change)},
        )
        for passes, change in enumerate(changes, 1)
    ]
    if halves is not None:
        also = {**readings[-1].comparisons, HALVES: moved(halves, cosine=0.2)}
        readings[-1] = readings[-1].model_copy(update={"comparisons": also})
    return readings


READINGS = dense(None, 1.4, 1.1, 0.9, 1.0, halves=1.2)


@pytest.mark.parametrize(
    ("readings", "mean"), [(None, 1.1), (4, 1.1), (99, 1.1), (3, 1.0), (2, 0.95)]
)
def test_drift_is_the_mean_of_the_last_changes(readings, mean) -> None:
    assert noise_floor(READINGS, "drift", readings=readings) == pytest.approx(mean)


def test_the_first_reading_has_changed_from_nothing_and_counts_for_none() -> None:
    assert noise_floor(dense(None, 1.4, None, 1.0), "drift", readings=None) == pytest.approx(1.2)


def test_halves_of_a_probe_have_twice_the_variance_of_the_whole() -> None:
    assert noise_floor(READINGS, "halves", readings=None) == pytest.approx(1.2 / math.sqrt(2))
    # The cosine is quadratic in what sampling does: half of it.
    found = noise_floor(READINGS, "halves", readings=None, measure="cosine")
    assert found == pytest.approx(0.2 / 2)


def test_the_larger_one_counts() -> None:
    assert noise_floor(READINGS, "larger", readings=None) == pytest.approx(1.1)
    loud = dense(None, 1.4, 1.1, halves=2.0)
    assert noise_floor(loud, "larger", readings=None) == pytest.approx(2.0 / math.sqrt(2))


def test_units_are_looked_up_under_their_own_name() -> None:
    alive = dense(None, 1.3, 1.1, unit="last, alive units")
    assert noise_floor(alive, "drift", readings=None, units="alive") == pytest.approx(1.2)
    with pytest.raises(FlowError, match="got 0 changes"):
        noise_floor(alive, "drift", readings=None)


@pytest.mark.parametrize(
    ("changes", "got"), [([], "0 changes"), ([None], "0 changes"), ([None, 1.0], "1 change;")]
)
def test_too_few_readings_are_refused_and_told_how_many_are_needed(changes, got) -> None:
    with pytest.raises(FlowError, match=f"at least 3 readings of flow .* 2 changes .*, got {got}"):
        noise_floor(dense(*changes), "drift", readings=None)


def test_without_halves_there_is_no_floor_of_sampling() -> None:
    for floor in ("halves", "larger"):
        with pytest.raises(FlowError, match="both halves of its probe compared, got none"):
            noise_floor(dense(None, 1.0, 1.0), floor, readings=None)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("floor", ["drift", "halves", "larger"])
def test_a_floor_that_is_not_finite_is_refused(bad, floor) -> None:
    broken = Comparison(difference=(bad,), present=(bad,), reference=(1.0,))
    reading = Reading(
        phase="dense", level=0, passes=1, comparisons={"last": broken, HALVES: broken}
    )
    with pytest.raises(FlowError, match=r"expected a finite number above 0, got .*nan"):
        noise_floor([reading] * 3, floor, readings=None)


def test_one_half_that_is_not_finite_is_seen_beside_a_sound_drift() -> None:
    broken = Comparison(difference=(math.nan,), present=(1.0,), reference=(1.0,))
    *before, last = READINGS
    last = last.model_copy(update={"comparisons": {**last.comparisons, HALVES: broken}})
    assert noise_floor([*before, last], "drift", readings=None) == pytest.approx(1.1)
    with pytest.raises(FlowError, match=r"got \[1.1\d*, nan\]"):
        noise_floor([*before, last], "larger", readings=None)


def test_a_network_that_does_not_move_gives_no_unit() -> None:
    still = Comparison(difference=(0.0,), present=(1.0,), reference=(1.0,))
    reading = Reading(phase="dense", level=0, passes=1, comparisons={"last": still})
    with pytest.raises(FlowError, match=r"does not vary .* fixed epsilon instead of kappa"):
        noise_floor([reading] * 3, "drift", readings=None)
