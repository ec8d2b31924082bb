"""Every rule that can be configured, through one set of questions."""

from __future__ import annotations

import copy
import json
import math
from typing import get_args

import pytest

from infcop.core import method
from infcop.core.comparison import ANCHORS, HALVES, comparison_name
from infcop.core.records import FLOWS, Comparison, Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.build import (
    build_rule,
    needed_comparisons,
    needed_floors,
    needed_flows,
    needs_flow_in_levels,
    needs_mask,
    needs_metric,
)
from infcop.stopping.rule import StopContext, replay

MAX_PASSES = 5.0
NAN = float("nan")

CONFIGS = {
    "fixed-budget": [method.FixedBudget(), method.FixedBudget(passes=2)],
    "information-flow": [
        method.InformationFlow(epsilon=0.3),
        method.InformationFlow(epsilon=0.3, statistic="absolute"),
    ],
    "gradient-flow": [
        method.GradientFlow(epsilon=0.3),
        method.GradientFlow(epsilon=0.3, statistic="mean"),
        method.GradientFlow(epsilon=0.3, reference_statistic="mean"),
    ],
    "relative-information-flow": [method.RelativeInformationFlow(epsilon=0.2)],
    "relative-gradient-flow": [method.RelativeGradientFlow(epsilon=0.2)],
    "matrix-flow": [
        method.MatrixFlow(epsilon=0.3),
        method.MatrixFlow(kappa=1, floor="larger", untrained=0.5),
        method.MatrixFlow(kappa=1, floor_readings=2, units="alive", combine="worst"),
        method.MatrixFlow(epsilon=0.1, reference="last", measure="cosine", combine="mean"),
        *(method.MatrixFlow(epsilon=0.3, reference=anchor) for anchor in ANCHORS[:2]),
        method.AtLeast(passes=1, of=method.MatrixFlow(kappa=2, reference="pruned")).of,
    ],
    "shock-budget": [method.ShockBudget(), method.ShockBudget(fraction=0.35, measure="cosine")],
    "settling": [method.Settling(), method.Settling(fraction=0.6, readings=1, units="alive")],
    "mask-distance": [method.MaskDistance(), method.MaskDistance(epsilon=0.5, readings=2)],
    "loss-plateau": [method.LossPlateau(), method.LossPlateau(patience=1, improvement=0.5)],
    "accuracy-target": [method.AccuracyTarget(), method.AccuracyTarget(target=0.7, margin=0.05)],
    "plateau": [method.Plateau(), method.Plateau(patience=1, improvement=0.1)],
    "any-of": [
        method.AnyOf(rules=(method.InformationFlow(epsilon=0.3), method.Plateau(patience=1)))
    ],
    "all-of": [
        method.AllOf(rules=(method.GradientFlow(epsilon=0.5), method.AccuracyTarget(target=0.5))),
        method.AllOf(rules=(method.MatrixFlow(kappa=1), method.MaskDistance(epsilon=0.3))),
    ],
    "at-least": [method.AtLeast(passes=3, of=method.Plateau(patience=1))],
    "at-most": [
        method.AtMost(
            passes=4, of=method.AtLeast(passes=2, of=method.RelativeGradientFlow(epsilon=0.2))
        )
    ],
}
ALL = [pytest.param(c, id=f"{name}-{i}") for name, cs in CONFIGS.items() for i, c in enumerate(cs)]
HISTORY = [
    # (passes, flow, metric); the loss is 1 less the metric, the mask moves as the flow does
    (0.0, 9.0, 0.2),
    (1.0, 1.6, 0.6),
    (2.0, NAN, NAN),
    (3.0, 1.15, 0.66),
    (4.0, 1.05, 0.64),
    (5.0, 1.0, 0.8),
]


def reading(passes, flow, metric, level=1, before=None):
    """Return a reading with matrices (flow, 1) and (1), where the reference's hold 1 only."""
    others = dict.fromkeys(ANCHORS, 1.0) | {"last": before}
    comparisons = {
        comparison_name(anchor, units): compared(flow, other)
        for anchor, other in others.items()
        for units in ("all", "alive")
        if other is not None
    }
    return Reading(
        phase="level",
        level=level,
        passes=passes,
        flows=dict.fromkeys(FLOWS, (flow, 2 * flow)),
        main=metric,
        train_loss=None if passes == 0 else 1 - metric,
        mask_change=_moved(flow, before),
        comparisons=comparisons,
    )


def compared(here, there):
    norms = (here**2 + 1, 1.0), (there**2 + 1, 1.0)
    return Comparison(difference=((here - there) ** 2, 0.0), present=norms[0], reference=norms[1])


def _moved(here, there):
    """Return how far the mask moved: as far as the flow, if it is known."""
    known = there is not None and math.isfinite(here - there)
    return abs(here - there) if known else None


def readings_of(history):
    """Return readings in order; right after pruning and at the first mark there is no last one."""
    before = [None, None, *(flow for _, flow, _ in history[1:-1])]
    return [reading(*place, before=last) for place, last in zip(history, before, strict=True)]


DENSE = [
    # What training moves the flow by, and for the last one what the two halves of a probe differ.
    reading(passes, flow, 0.9, level=0, before=before)
    for passes, flow, before in [(7, 1.0, None), (8, 1.5, 1.0), (9, 1.2, 1.5), (10, 1.0, 1.2)]
]
DENSE[-1] = DENSE[-1].model_copy(
    update={"comparisons": {**DENSE[-1].comparisons, HALVES: compared(1.0, 1.5)}}
)
CONTEXT = StopContext(
    reference=reading(8, 1.0, 0.9),
    dense=tuple(DENSE),
    dense_passes=10,
    warmup_best=0.75,
    higher_is_better=True,
    max_passes=MAX_PASSES,
)
READINGS = readings_of(HISTORY)


def test_the_table_names_every_rule_there_is():
    union = get_args(get_args(method.StopConfig)[0])
    assert {member.model_fields["rule"].default for member in union} == set(CONFIGS)
    assert all(config.rule == name for name, configs in CONFIGS.items() for config in configs)


@pytest.mark.parametrize("config", ALL)
def test_stops_at_the_whole_budget_at_the_latest(config):
    decisions = replay(build_rule(config, MAX_PASSES), CONTEXT, READINGS)
    assert decisions[-1].stop
    assert not decisions[0].stop
    assert all(decision.stop == _is_stop(decision.reason) for decision in decisions)


def _is_stop(reason):
    return reason in {
        StopReason.FLOW,
        StopReason.SHOCK,
        StopReason.SETTLED,
        StopReason.MASK,
        StopReason.ACCURACY,
        StopReason.PLATEAU,
        StopReason.LOSS,
        StopReason.BUDGET,
    }


@pytest.mark.parametrize("name", [*CONFIGS])
def test_a_rule_stops_for_its_own_reason_somewhere(name):
    """Else the questions here would be put to the cap alone."""
    reasons = {
        decision.reason
        for config in CONFIGS[name]
        for decision in replay(build_rule(config, MAX_PASSES), CONTEXT, READINGS)
        if decision.stop
    }
    assert reasons - {StopReason.BUDGET} or name == "fixed-budget"


@pytest.mark.parametrize("config", ALL)
def test_state_survives_json_between_updates(config):
    rule = build_rule(config, MAX_PASSES)
    expected = replay(rule, CONTEXT, READINGS)
    state = rule.init(CONTEXT)
    for each, decision in zip(READINGS, expected, strict=True):
        stored = json.loads(json.dumps(state, allow_nan=False))
        assert stored == state
        state, got = build_rule(config, MAX_PASSES).update(stored, each)
        assert got == decision


@pytest.mark.parametrize("config", ALL)
def test_replaying_a_stored_record_gives_the_same_decisions(config):
    rule = build_rule(config, MAX_PASSES)
    stored = [Reading.model_validate_json(each.model_dump_json()) for each in READINGS]
    context = StopContext.model_validate_json(CONTEXT.model_dump_json())
    decisions = replay(rule, CONTEXT, READINGS)
    assert replay(rule, context, stored) == decisions
    for decision in decisions:
        assert StopDecision.model_validate_json(decision.model_dump_json()) == decision
        assert all(map(math.isfinite, decision.evidence.values()))


@pytest.mark.parametrize("config", ALL)
def test_update_is_pure(config):
    rule = build_rule(config, MAX_PASSES)
    state = rule.init(CONTEXT)
    for each in READINGS:
        before, seen = copy.deepcopy(state), each.model_copy(deep=True)
        first, second = rule.update(state, each), rule.update(state, each)
        assert first == second
        assert state == before
        assert each.model_dump_json() == seen.model_dump_json()
        state = first[0]
    hash(rule)


@pytest.mark.parametrize("config", ALL)
def test_decisions_look_at_nothing_but_what_is_declared(config):
    """Other flows, comparisons, levels and costs may change without changing any decision."""
    needed = needed_flows(config)
    names = {comparison_name(*comparison) for comparison in needed_comparisons(config)}
    stripped = [
        each.model_copy(
            update={
                "level": 7,
                "flows": {f: each.flows[f] for f in needed},
                "comparisons": {n: c for n, c in each.comparisons.items() if n in names},
                "mask_change": each.mask_change if needs_mask(config) else None,
                "main": each.main if needs_metric(config) else None,
            }
        )
        for each in READINGS
    ]
    reference = CONTEXT.reference.model_copy(
        update={"flows": {f: CONTEXT.reference.flows[f] for f in needed}}
    )
    dense = CONTEXT.dense if needed_floors(config) else ()
    context = CONTEXT.model_copy(update={"reference": reference, "dense": dense})
    rule = build_rule(config, MAX_PASSES)
    assert replay(rule, context, stripped) == replay(rule, CONTEXT, READINGS)


@pytest.mark.parametrize(
    ("config", "flows"),
    [
        (method.FixedBudget(), set()),
        (method.Plateau(), set()),
        (method.InformationFlow(epsilon=1), {"information.signed"}),
        (method.InformationFlow(epsilon=1, statistic="absolute"), {"information.absolute"}),
        (method.GradientFlow(epsilon=1), {"gradient.norm"}),
        (method.RelativeGradientFlow(epsilon=1, statistic="mean"), {"gradient.mean"}),
        (CONFIGS["any-of"][0], {"information.signed"}),
        (CONFIGS["at-most"][0], {"gradient.norm"}),
        (
            method.AllOf(rules=(CONFIGS["any-of"][0], CONFIGS["all-of"][0])),
            {"information.signed", "gradient.norm"},
        ),
    ],
)
def test_needed_flows(config, flows):
    assert needed_flows(config) == flows


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (method.FixedBudget(), set()),
        (method.InformationFlow(epsilon=1), set()),
        (method.ShockBudget(units="alive"), {("trained", "alive")}),
        (method.Settling(), {("last", "all")}),
        (method.MatrixFlow(epsilon=1), {("trained", "all")}),
        # The reading right after pruning is always compared with the trained network.
        (method.MatrixFlow(epsilon=1, reference="dense"), {("trained", "all"), ("dense", "all")}),
        (
            method.AtMost(passes=1, of=method.AnyOf(rules=(CONFIGS["settling"][1],))),
            {("last", "alive")},
        ),
    ],
)
def test_needed_comparisons(config, expected):
    assert needed_comparisons(config) == expected


def test_needed_floors():
    assert needed_floors(CONFIGS["matrix-flow"][0]) == ()
    both = method.AllOf(rules=(CONFIGS["matrix-flow"][1], CONFIGS["matrix-flow"][2]))
    assert needed_floors(both) == (("larger", None, "all"), ("drift", 2, "alive"))


def test_what_a_level_must_measure_for_a_rule():
    """Flow at every reading, the next mask, the held-out metric."""
    asks = (needs_flow_in_levels, needs_mask, needs_metric)
    expected = {
        method.FixedBudget(): (False, False, False),
        method.ShockBudget(): (False, False, False),
        method.LossPlateau(): (False, False, False),
        method.MaskDistance(): (False, True, False),
        method.Plateau(): (False, False, True),
        method.AccuracyTarget(): (False, False, True),
        method.Settling(): (True, False, False),
        method.MatrixFlow(kappa=1): (True, False, False),
        method.GradientFlow(epsilon=1): (True, False, False),
        CONFIGS["all-of"][1]: (True, True, False),
        CONFIGS["at-least"][0]: (False, False, True),
    }
    for config, answers in expected.items():
        assert tuple(ask(config) for ask in asks) == answers, config


def test_the_published_rule_with_its_cap():
    """Flow first, then accuracy, then budget, after one pass at least."""
    inner = method.AnyOf(rules=(method.InformationFlow(epsilon=0.5), method.AccuracyTarget()))
    rule = build_rule(method.AtLeast(passes=1, of=inner), max_passes=3)

    def reasons(*places):
        readings = [reading(*place) for place in places]
        return [d.reason.value for d in replay(rule, CONTEXT, readings)]

    assert reasons((0, 1.0, 0.9), (1, 1.0, 0.9)) == ["minimum", "flow"]
    assert reasons((1, 9.0, 0.75)) == ["accuracy"]
    assert reasons((1, 9.0, 0.1), (2, NAN, 0.1), (3, 9.0, 0.1)) == [
        "not-yet",
        "non-finite",
        "budget",
    ]


def test_relative_and_absolute_rules_differ_by_the_size_of_the_reference():
    size = math.hypot(1.0, 2.0)
    present = [reading(1, 1.19, 0.5)]  # At relative distance 0.19, so at distance 0.42.
    for epsilon, relative, absolute in [(0.2, True, False), (0.2 * size, True, True)]:
        config = method.RelativeInformationFlow(epsilon=epsilon)
        assert replay(build_rule(config, 9), CONTEXT, present)[0].stop == relative
        config = method.InformationFlow(epsilon=epsilon)
        assert replay(build_rule(config, 9), CONTEXT, present)[0].stop == absolute


def test_what_is_no_rule_is_refused():
    with pytest.raises(ConfigError, match=r"expected a stop rule of .*, got Rewind"):
        build_rule(method.Rewind(), 5)
    with pytest.raises(ConfigError, match="passes above 0"):
        build_rule(method.FixedBudget(), 0)
    with pytest.raises(ValueError, match="max_passes"):
        StopContext(max_passes=0)
