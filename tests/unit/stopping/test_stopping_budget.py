from __future__ import annotations

import math

import pytest

from infcop.core.records import Reading, StopReason
from infcop.errors import ConfigError
from infcop.stopping.budget import BudgetRule
from infcop.stopping.rule import StopContext, reached, replay


def stops_at(rule, places, max_passes=8.0):
    readings = [Reading(phase="level", level=1, passes=p) for p in places]
    decisions = replay(rule, StopContext(max_passes=max_passes), readings)
    return [place for place, decision in zip(places, decisions, strict=True) if decision.stop]


def test_stops_from_the_budget_on():
    assert stops_at(BudgetRule(3), [1, 2, 3, 4]) == [3, 4]
    assert stops_at(BudgetRule(2.5), [0, 1, 2, 3]) == [3]


def test_a_budget_of_nothing_stops_at_once():
    assert stops_at(BudgetRule(0), [0, 1]) == [0, 1]


def test_default_is_the_whole_budget_of_the_level():
    assert stops_at(BudgetRule(), [1, 2, 3], max_passes=2) == [2, 3]


@pytest.mark.parametrize("unit", [0.1, 1 / 3, 0.7, 1 / 7])
def test_sums_of_fractions_reach_the_budget_despite_rounding(unit):
    places, passes = [], 0.0
    for _ in range(30):
        passes += unit
        places.append(passes)
    assert stops_at(BudgetRule(20 * unit), places) == places[19:]


def test_slack_is_far_below_one_example():
    assert reached(1.0, 1.0)
    assert reached(1 - 1e-12, 1.0)
    assert not reached(1 - 1e-7, 1.0)


def test_reason_and_evidence():
    reading = Reading(phase="level", level=1, passes=1)
    go_on, stop = (
        replay(BudgetRule(budget), StopContext(max_passes=8), [reading])[0] for budget in (2, 1)
    )
    assert (go_on.reason, stop.reason) == (StopReason.NOT_YET, StopReason.BUDGET)
    assert go_on.evidence == {"passes": 1, "budget": 2}


@pytest.mark.parametrize("passes", [-1, math.nan])
def test_passes_must_not_be_negative(passes):
    with pytest.raises(ConfigError, match="passes of at least 0"):
        BudgetRule(passes)
