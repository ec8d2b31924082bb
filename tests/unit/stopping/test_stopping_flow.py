from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.method import GradientFlow
from infcop.core.records import FLOWS, Reading, StopReason
from infcop.errors import ConfigError, FlowError
from infcop.stopping.build import build_rule, needed_flows
from infcop.stopping.flow import FlowRule, flow_distance, relative_flow_distance
from infcop.stopping.rule import StopContext, replay
from tests.reference.stopping import slow_distance, slow_flow_stop

NAN, INF = float("nan"), float("inf")
SIGNED = "information.signed"


def reading(*vector, flow=SIGNED, passes=1.0):
    return Reading(phase="level", level=1, passes=passes, flows={flow: vector})


def context(*reference, flow=SIGNED):
    return StopContext(reference=reading(*reference, flow=flow), max_passes=8)


def decide(rule, reference, present):
    return replay(rule, context(*reference), [reading(*present)])[0]


def test_distance_equal_to_epsilon_does_not_stop_and_just_below_does():
    present, reference = (0.5, 0.0), (0.0, 0.0)
    assert not decide(FlowRule(SIGNED, 0.5), reference, present).stop
    assert decide(FlowRule(SIGNED, math.nextafter(0.5, 1)), reference, present).stop
    below = decide(FlowRule(SIGNED, 0.5), reference, (math.nextafter(0.5, 0), 0.0))
    assert below.stop
    assert below.reason is StopReason.FLOW
    assert below.evidence == {"distance": math.nextafter(0.5, 0), "threshold": 0.5}


@pytest.mark.parametrize("distance", [flow_distance, relative_flow_distance])
@pytest.mark.parametrize("epsilon", [5e-324, 1e-9, 1e9])
def test_equal_vectors_stop_for_any_epsilon(distance, epsilon):
    vector = (0.1, -0.3, 1e-200)
    assert decide(FlowRule(SIGNED, epsilon, distance), vector, vector).stop


finite = st.floats(-1e6, 1e6)


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(
        st.tuples(st.one_of(finite, st.sampled_from([NAN, INF, -INF])), finite), min_size=1
    ),
    epsilon=st.floats(1e-3, 1e6),
)
def test_equals_the_slow_twin(pairs, epsilon):
    present, reference = zip(*pairs, strict=True)
    decision = decide(FlowRule(SIGNED, epsilon), reference, present)
    expected = flow_distance(present, reference)
    if not math.isclose(expected, epsilon, rel_tol=1e-12):
        assert decision.stop == slow_flow_stop(present, reference, epsilon)
    broken = not all(map(math.isfinite, present))
    assert (decision.reason is StopReason.NON_FINITE) == broken


@settings(deadline=None, max_examples=40)
@given(
    vectors=st.lists(st.tuples(st.one_of(finite, st.just(NAN)), finite), min_size=1, max_size=12),
    epsilons=st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)),
)
def test_larger_epsilon_never_uses_more_units(vectors, epsilons):
    readings = [reading(*v, passes=i + 1.0) for i, v in enumerate(vectors)]

    def units(epsilon):
        decisions = replay(FlowRule(SIGNED, epsilon), context(1.0, 2.0), readings)
        stops = [i for i, decision in enumerate(decisions) if decision.stop]
        return stops[0] if stops else len(decisions)

    assert units(max(epsilons)) <= units(min(epsilons))


@pytest.mark.parametrize("distance", [flow_distance, relative_flow_distance])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_non_finite_present_goes_on_with_the_reason(distance, bad):
    decision = decide(FlowRule(SIGNED, 1e9, distance), (0.1, 0.2), (bad, 0.2))
    assert not decision.stop
    assert decision.reason is StopReason.NON_FINITE
    assert decision.evidence == {"non_finite_entries": 1.0, "threshold": 1e9}


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_non_finite_reference_is_refused(bad):
    with pytest.raises(FlowError, match=r"finite reference 'information.signed'"):
        FlowRule(SIGNED, 0.1).init(context(0.1, bad))


def test_overflowing_distance_does_not_stop():
    assert not decide(FlowRule(SIGNED, 1e300), (-1e308, -1e308), (1e308, 1e308)).stop


def test_missing_reference_or_flow_is_refused():
    rule = FlowRule(SIGNED, 0.1)
    with pytest.raises(FlowError, match="expected a reference reading"):
        rule.init(StopContext(max_passes=8))
    with pytest.raises(FlowError, match=r"the reference to hold 'information.signed'"):
        rule.init(context(0.1, flow="information.absolute"))
    state = rule.init(context(0.1))
    with pytest.raises(FlowError, match=r"known: gradient.norm"):
        rule.update(state, reading(0.1, flow="gradient.norm"))


@pytest.mark.parametrize("distance", [flow_distance, relative_flow_distance])
def test_empty_or_unequal_vectors_are_refused(distance):
    rule = FlowRule(SIGNED, 0.1, distance)
    with pytest.raises(FlowError, match="lengths 0 and 0"):
        rule.init(context())
    with pytest.raises(FlowError, match="lengths 3 and 2"):
        rule.update(rule.init(context(0.1, 0.2)), reading(0.1, 0.2, 0.3))
    with pytest.raises(FlowError, match="lengths 1 and 0"):
        distance([1.0], [])


@pytest.mark.parametrize("epsilon", [0.0, -0.1, NAN, INF])
def test_epsilon_must_be_finite_and_positive(epsilon):
    with pytest.raises(ConfigError, match="finite epsilon above 0"):
        FlowRule(SIGNED, epsilon)


@pytest.mark.parametrize("scale", [1e-8, 3.0, 1e8])
def test_relative_distance_does_not_change_with_scale(scale):
    present, reference = (0.3, -0.2, 0.9), (0.1, 0.4, 0.5)
    expected = relative_flow_distance(present, reference)
    scaled = relative_flow_distance([scale * x for x in present], [scale * x for x in reference])
    assert scaled == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(flow_distance(present, reference) / math.hypot(*reference))


def test_relative_rule_refuses_a_zero_reference_at_once():
    with pytest.raises(FlowError, match="not zero"):
        FlowRule(SIGNED, 0.1, relative_flow_distance).init(context(0.0, 0.0))
    assert decide(FlowRule(SIGNED, 0.1), (0.0, 0.0), (0.0, 0.05)).stop


def test_the_reading_that_is_its_own_reference_ends_no_level():
    pruned = reading(0.3, passes=0).model_copy(update={"phase": "pruned"})
    rule = FlowRule(SIGNED, 0.1)
    readings = [reading(0.3, passes=0), reading(0.35, passes=1)]
    own = replay(rule, StopContext(reference=pruned, max_passes=8), readings)
    assert [decision.stop for decision in own] == [False, True]
    assert own[0].reason is StopReason.NOT_YET
    # That of another state may well be met without training.
    assert [decision.stop for decision in replay(rule, context(0.3), readings)] == [True, True]


@pytest.mark.parametrize("flow", FLOWS)
def test_compares_the_flow_it_names_only(flow):
    flows = dict.fromkeys(FLOWS, (9.0,)) | {flow: (1.0,)}
    present = Reading(phase="level", level=1, passes=1, flows=flows)
    (decision,) = replay(FlowRule(flow, 0.1), context(1.0, flow=flow), [present])
    assert decision.evidence["distance"] == 0


@settings(deadline=None, max_examples=40)
@given(
    entries=st.lists(st.tuples(finite, finite, finite, finite), min_size=1, max_size=6),
    epsilon=st.floats(1e-3, 1e6),
)
def test_norms_against_means_equal_the_slow_twin(entries, epsilon):
    norms, means, their_norms, their_means = zip(*entries, strict=True)
    both = ("gradient.norm", "gradient.mean")
    present, reference = (
        Reading(phase="level", level=1, passes=1, flows=dict(zip(both, vectors, strict=True)))
        for vectors in ((norms, means), (their_norms, their_means))
    )
    where = StopContext(reference=reference, max_passes=8)
    for config, expected in (
        (GradientFlow(epsilon=epsilon), (norms, their_norms)),
        (GradientFlow(epsilon=epsilon, reference_statistic="mean"), (norms, their_means)),
        (
            GradientFlow(epsilon=epsilon, statistic="mean", reference_statistic="norm"),
            (means, their_norms),
        ),
    ):
        assert needed_flows(config) <= set(both)
        (decision,) = replay(build_rule(config, 8), where, [present])
        distance = slow_distance(*expected)
        assert decision.evidence["distance"] == pytest.approx(distance)
        if not math.isclose(distance, epsilon, rel_tol=1e-12):
            assert decision.stop == slow_flow_stop(*expected, epsilon)


def test_the_reference_has_to_hold_what_it_is_compared_by():
    config = GradientFlow(epsilon=0.1, reference_statistic="mean")
    assert needed_flows(config) == {"gradient.norm", "gradient.mean"}
    with pytest.raises(FlowError, match=r"the reference to hold 'gradient.mean'; .*gradient.norm"):
        build_rule(config, 8).init(context(0.1, flow="gradient.norm"))
    with pytest.raises(FlowError, match=r"finite reference 'gradient.mean'"):
        build_rule(config, 8).init(context(NAN, flow="gradient.mean"))
