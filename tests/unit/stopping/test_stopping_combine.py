from __future__ import annotations

import pytest

from infcop.core.records import Comparison, Reading, StopReason
from infcop.errors import ConfigError
from infcop.stopping.accuracy import AccuracyRule
from infcop.stopping.budget import BudgetRule
from infcop.stopping.combine import AllOfRule, AnyOfRule, AtLeastRule, AtMostRule
from infcop.stopping.flow import FlowRule
from infcop.stopping.plateau import PlateauRule
from infcop.stopping.rule import StopContext, replay
from infcop.stopping.shock import ShockRule

NAN = float("nan")
FLOW = FlowRule("information.signed", 0.1)
ACCURACY = AccuracyRule(target=0.9)


def reading(passes, flow=9.0, main=0.0):
    return Reading(
        phase="level",
        level=1,
        passes=passes,
        flows={"information.signed": (flow,)},
        main=main,
    )


def decide(rule, *readings):
    return replay(rule, StopContext(reference=reading(0, flow=0.0), max_passes=8), readings)


def reasons(rule, *readings):
    return [decision.reason for decision in decide(rule, *readings)]


def test_any_of_gives_the_first_reason_in_list_order_when_several_hold():
    both = reading(1, flow=0.0, main=1.0)
    assert reasons(AnyOfRule((FLOW, ACCURACY)), both) == [StopReason.FLOW]
    assert reasons(AnyOfRule((ACCURACY, FLOW)), both) == [StopReason.ACCURACY]
    (decision,) = decide(AnyOfRule((ACCURACY, FLOW)), both)
    assert decision.evidence == {"metric": 1.0, "threshold": 0.9}


def test_any_of_stops_by_whichever_holds():
    rule = AnyOfRule((FLOW, ACCURACY))
    assert reasons(rule, reading(1), reading(2, main=0.95)) == [
        StopReason.NOT_YET,
        StopReason.ACCURACY,
    ]


@pytest.mark.parametrize("combine", [AnyOfRule, AllOfRule])
def test_a_non_finite_reading_is_seen_behind_a_rule_that_waits(combine):
    (decision,) = decide(combine((ACCURACY, FLOW)), reading(1, flow=NAN))
    assert not decision.stop
    assert decision.reason is StopReason.NON_FINITE
    assert decision.evidence["non_finite_entries"] == 1


def test_all_of_stops_when_all_hold_at_once():
    rule = AllOfRule((FLOW, ACCURACY))
    decisions = decide(
        rule,
        reading(1, flow=0.0),
        reading(2, main=1.0),
        reading(3, flow=0.0, main=1.0),
    )
    assert [decision.stop for decision in decisions] == [False, False, True]
    assert decisions[0].evidence == {"metric": 0.0, "threshold": 0.9}
    assert decisions[2].reason is StopReason.FLOW
    assert decisions[2].evidence == {
        "distance": 0.0,
        "threshold": 0.1,
        "metric (2)": 1.0,
        "threshold (2)": 0.9,
    }


@pytest.mark.parametrize(
    ("wrap", "inner"),
    [
        (lambda rule: AnyOfRule((BudgetRule(0.5), rule)), lambda state: state["rules"][1]),
        (lambda rule: AllOfRule((FLOW, rule)), lambda state: state["rules"][1]),
        (lambda rule: AtLeastRule(3, rule), lambda state: state["of"]),
        (lambda rule: AtMostRule(0.5, rule), lambda state: state["of"]),
    ],
)
def test_inner_rules_see_every_reading_whatever_is_decided(wrap, inner):
    alone = PlateauRule(patience=2)
    wrapped = wrap(alone)
    context = StopContext(reference=reading(0, flow=0.0), max_passes=8)
    states = alone.init(context), wrapped.init(context)
    for passes, metric in [(1, 0.5), (2, 0.7), (3, 0.6)]:
        each = reading(passes, main=metric)
        states = alone.update(states[0], each)[0], wrapped.update(states[1], each)[0]
        assert inner(states[1]) == states[0]
    assert states[0]["passes_of_best"] == 2


def test_at_least_blocks_with_reason_minimum_and_the_inner_evidence():
    rule = AtLeastRule(2, FLOW)
    early, late = decide(rule, reading(1, flow=0.0), reading(2, flow=0.0))
    assert not early.stop
    assert early.reason is StopReason.MINIMUM
    assert early.evidence == {"distance": 0.0, "threshold": 0.1}
    assert late.stop
    assert late.reason is StopReason.FLOW


def test_at_least_says_not_yet_where_nothing_was_blocked():
    assert reasons(AtLeastRule(2, FLOW), reading(1)) == [StopReason.NOT_YET]


def test_at_least_zero_lets_a_level_end_without_training():
    assert reasons(AtLeastRule(0, FLOW), reading(0, flow=0.0)) == [StopReason.FLOW]


def test_at_most_asks_the_rule_first():
    rule = AtMostRule(2, FLOW)
    assert reasons(rule, reading(1), reading(2)) == [StopReason.NOT_YET, StopReason.BUDGET]
    assert reasons(rule, reading(2, flow=0.0)) == [StopReason.FLOW]
    (decision,) = decide(rule, reading(3))
    assert decision.evidence == {"distance": 9.0, "threshold": 0.1, "passes": 3, "budget": 2}


def test_at_most_ends_a_level_whose_readings_are_not_finite():
    rule = AtMostRule(2, FLOW)
    assert reasons(rule, reading(1, flow=NAN), reading(2, flow=NAN)) == [
        StopReason.NON_FINITE,
        StopReason.BUDGET,
    ]


def test_bounds_tolerate_rounding():
    almost = 0.1 + 0.7
    assert almost < 0.8
    assert decide(AtLeastRule(0.8, FLOW), reading(almost, flow=0.0))[0].stop
    assert decide(AtMostRule(0.8, FLOW), reading(almost))[0].stop


def test_minimum_above_maximum_ends_by_budget():
    rule = AtMostRule(2, AtLeastRule(4, FLOW))
    assert reasons(rule, reading(1, flow=0.0), reading(2, flow=0.0)) == [
        StopReason.MINIMUM,
        StopReason.BUDGET,
    ]


@pytest.mark.parametrize("combine", [AnyOfRule, AllOfRule])
def test_one_rule_alone_decides_as_it_would_by_itself(combine):
    readings = [reading(1), reading(2, flow=NAN), reading(3, flow=0.0)]
    assert decide(combine((FLOW,)), *readings) == decide(FLOW, *readings)


def shocked(passes, shock):
    moved = Comparison(difference=(shock**2,), present=(1.0,), reference=(1.0,))
    return reading(passes).model_copy(update={"comparisons": {"trained": moved}})


@pytest.mark.parametrize(
    ("rule", "until"),
    [
        # Of a dense training of 10 passes: a half, a tenth.
        (AnyOfRule((BudgetRule(4), ShockRule(0.5), ShockRule(0.1))), 1.0),
        (AllOfRule((BudgetRule(4), ShockRule(0.5), ShockRule(0.1))), 5.0),
        (AtLeastRule(2, AtMostRule(7, AnyOfRule((ShockRule(0.5), FLOW)))), 5.0),
        (AnyOfRule((BudgetRule(4), FLOW)), None),
        # A rule that would stop at once is not waited for.
        (AllOfRule((ShockRule(0.5), ShockRule(0.6, least=0.9))), 5.0),
    ],
)
def test_a_rule_that_knows_where_to_be_asked_is_heard_through_others(rule, until):
    context = StopContext(reference=reading(0, flow=0.0), dense_passes=10, max_passes=8)
    (decision,) = replay(rule, context, [shocked(0, 1.0)])
    assert not decision.stop
    assert decision.until == until


@pytest.mark.parametrize("combine", [AnyOfRule, AllOfRule])
def test_no_rules_are_refused(combine):
    with pytest.raises(ConfigError, match="expected at least one rule"):
        combine(())


@pytest.mark.parametrize(
    "make",
    [lambda: AtLeastRule(-1, FLOW), lambda: AtLeastRule(NAN, FLOW), lambda: AtMostRule(0, FLOW)],
)
def test_passes_out_of_range_are_refused(make):
    with pytest.raises(ConfigError, match="expected passes"):
        make()
