from __future__ import annotations

import math

import pytest

from infcop.core.records import Comparison, Reading, StopReason
from infcop.errors import ConfigError
from infcop.stopping.rule import StopContext, replay
from infcop.stopping.settling import SettlingRule


def history(*places, name="last"):
    """Return readings at passes, each so far from the one before; None where there is none."""
    readings = []
    for passes, change in places:
        compared = {}
        if change is not None:
            moved = Comparison(difference=(change**2,), present=(1.0,), reference=(1.0,))
            compared = {name: moved}
        readings.append(Reading(phase="level", level=1, passes=passes, comparisons=compared))
    return readings


def decide(rule, *places, **options):
    return replay(rule, StopContext(max_passes=8), history(*places, **options))


def stops(rule, *places, **options):
    return [decision.stop for decision in decide(rule, *places, **options)]


def test_the_mean_of_the_last_changes_is_held_against_the_first() -> None:
    # A change of 1 at first; the means of two are (0.5, 0.35), 0.3 and 0.2.
    places = [(1, None), (2, 1.0), (3, 0.5), (4, 0.2), (5, 0.4), (6, 0.0)]
    assert stops(SettlingRule(0.3, 2), *places) == [False] * 5 + [True]
    assert stops(SettlingRule(0.36, 2), *places) == [False] * 3 + [True] * 3
    last = decide(SettlingRule(0.3, 2), *places)[-1]
    assert last.reason is StopReason.SETTLED
    assert last.evidence == pytest.approx({"change_per_pass": 0.2, "threshold": 0.3})


def test_a_change_equal_to_the_threshold_goes_on() -> None:
    rule = SettlingRule(0.5, 1)
    assert stops(rule, (1, None), (2, 1.0), (3, 0.5)) == [False] * 3
    assert stops(rule, (1, None), (2, 1.0), (3, math.nextafter(0.5, 0)))[-1]


def test_changes_are_counted_per_pass() -> None:
    # 0.5 in half a pass is 1 per pass, 0.6 in two passes 0.3.
    rule = SettlingRule(0.31, 1)
    assert stops(rule, (0.5, None), (1.0, 0.5), (3.0, 0.6)) == [False, False, True]
    assert stops(rule, (0.5, None), (1.0, 0.5), (2.0, 0.6)) == [False, False, False]


def test_fewer_changes_than_are_averaged_settle_nothing() -> None:
    places = [(1, None), (2, 1.0), (3, 0.0), (4, 0.0), (5, 0.0)]
    assert stops(SettlingRule(0.3, 3), *places) == [False] * 4 + [True]
    assert stops(SettlingRule(0.3, 1), *places) == [False] * 2 + [True] * 3


def test_the_reading_right_after_pruning_is_passed_over() -> None:
    places = [(0, 9.0), (1, None), (2, 1.0), (3, 0.1)]
    assert stops(SettlingRule(0.3, 1), *places) == [False, False, False, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_changes_that_are_not_finite_are_passed_over_with_the_reason(bad) -> None:
    decisions = decide(SettlingRule(0.3, 1), (1, None), (2, bad), (3, 1.0), (4, bad), (5, 0.2))
    assert [decision.stop for decision in decisions] == [False, False, False, False, True]
    assert [decision.reason for decision in decisions].count(StopReason.NON_FINITE) == 2


def test_a_flow_that_never_moves_is_never_said_to_have_settled() -> None:
    assert stops(SettlingRule(), *[(p, 0.0) for p in range(1, 6)]) == [False] * 5


def test_units_are_looked_up_under_their_own_name() -> None:
    places = [(1, None), (2, 1.0), (3, 0.1)]
    alive = {"name": "last, alive units"}
    assert stops(SettlingRule(0.3, 1, units="alive"), *places, **alive)[-1]
    assert not stops(SettlingRule(0.3, 1), *places, **alive)[-1]


@pytest.mark.parametrize(
    "settings", [{"fraction": 0}, {"fraction": 1}, {"fraction": math.nan}, {"readings": 0}]
)
def test_settings_out_of_range_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=r"SettlingRule: expected a fraction in \(0, 1\)"):
        SettlingRule(**settings)
