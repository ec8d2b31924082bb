from __future__ import annotations

import math

import pytest

from infcop.core.records import Comparison, Reading, StopReason
from infcop.errors import ConfigError, FlowError
from infcop.stopping.rule import StopContext, replay
from infcop.stopping.shock import ShockRule


def pruned(shock):
    moved = Comparison(difference=(shock**2,), present=(1.0,), reference=(1.0,))
    return Reading(phase="level", level=1, passes=0, comparisons={"trained": moved})


def trained(passes):
    return Reading(phase="level", level=1, passes=passes)


def decide(rule, *readings, dense=20.0):
    return replay(rule, StopContext(dense_passes=dense, max_passes=8), readings)


@pytest.mark.parametrize(
    ("power", "shock", "budget"),
    [
        (1.0, 0.5, 0.2 * 20 / 2),
        (2.0, 0.5, 0.2 * 20 / 4),
        (3.0, 0.5, 0.2 * 20 / 8),
        # A shock counts no more than 1.
        (2.0, 1.0, 4.0),
        (2.0, 7.0, 4.0),
    ],
)
def test_the_budget_is_a_part_of_the_dense_training(power, shock, budget) -> None:
    (decision,) = decide(ShockRule(fraction=0.2, power=power, least=0.01), pruned(shock))
    assert not decision.stop
    assert decision.until == pytest.approx(budget)
    threshold = 0.05 ** (1 / power)
    assert decision.evidence == pytest.approx(
        {"distance": shock, "threshold": threshold, "passes": 0, "budget": budget}
    )


def test_with_no_least_part_every_level_trains() -> None:
    rule = ShockRule(fraction=0.2, power=1.0, least=0.0)
    small, none = decide(rule, pruned(1e-3), pruned(0.0))
    assert (small.stop, none.stop) == (False, False)
    assert small.until == pytest.approx(4e-3)


def test_a_level_ends_as_soon_as_it_has_trained_so_long() -> None:
    rule = ShockRule(fraction=0.2, power=1.0)
    readings = [pruned(0.5), trained(1), trained(1.999), trained(2), trained(3)]
    decisions = decide(rule, *readings)
    assert [decision.stop for decision in decisions] == [False, False, False, True, True]
    assert decisions[3].reason is StopReason.SHOCK
    assert decisions[3].evidence == {"passes": 2.0, "budget": 2.0}
    assert all(decision.until is None for decision in decisions[1:])


def test_a_budget_reached_but_for_rounding_is_reached() -> None:
    almost = 0.1 + 0.7
    assert almost < 0.8
    rule = ShockRule(fraction=0.04, power=1.0)
    assert decide(rule, pruned(1.0), trained(almost))[1].stop


def test_below_the_least_part_a_level_is_not_trained() -> None:
    # Of 20 passes: 0.2 * 0.25 * 20 = 1 is a twentieth.
    settings = {"fraction": 0.2, "power": 2.0}
    assert not decide(ShockRule(**settings, least=0.05), pruned(0.5))[0].stop
    (decision,) = decide(ShockRule(**settings, least=0.0501), pruned(0.5))
    assert decision.stop
    assert decision.reason is StopReason.UNDISTURBED
    assert decision.until is None
    # The report shows both sides of the inequality.
    assert 0.5 == decision.evidence["distance"] < decision.evidence["threshold"] < 0.501


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_shock_that_is_not_finite_counts_as_one(bad) -> None:
    first, last = decide(ShockRule(fraction=0.2), pruned(bad), trained(4))
    assert not first.stop
    assert first.reason is StopReason.NON_FINITE
    assert first.until == 4.0
    assert "distance" not in first.evidence
    assert last.reason is StopReason.SHOCK


def test_a_level_that_was_not_measured_right_after_pruning_trains_for_its_whole_budget() -> None:
    decisions = decide(ShockRule(), trained(4), trained(8))
    assert [decision.stop for decision in decisions] == [False, True]


def test_what_the_rule_needs_is_refused_where_it_is_missing() -> None:
    with pytest.raises(ConfigError, match="expected the passes of the dense training, got none"):
        ShockRule().init(StopContext(max_passes=8))
    with pytest.raises(FlowError, match="ShockRule: expected a reading compared with 'trained'"):
        decide(ShockRule(), trained(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0.0}, "a finite fraction above 0, got 0"),
        ({"fraction": math.inf}, "a finite fraction above 0, got inf"),
        ({"power": -1.0}, "a finite power above 0, got -1"),
        ({"power": math.nan}, "a finite power above 0, got nan"),
        ({"least": 1.0}, r"least, a part of the dense training, in \[0, 1\), got 1"),
        ({"least": -0.1}, r"least, .* in \[0, 1\), got -0.1"),
        ({"least": math.nan}, r"least, .* in \[0, 1\), got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message) -> None:
    with pytest.raises(ConfigError, match=f"ShockRule: expected {message}"):
        ShockRule(**settings)
