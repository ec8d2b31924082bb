from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.records import Reading, StopReason
from infcop.errors import ConfigError
from infcop.stopping.plateau import LossRule, PlateauRule
from infcop.stopping.rule import StopContext, replay
from tests.reference.stopping import slow_plateau


def stops(rule, metrics, *, unit=1.0, higher=True):
    context = StopContext(higher_is_better=higher, max_passes=8)
    readings = [
        Reading(phase="level", level=1, passes=unit * (i + 1), main=metric)
        for i, metric in enumerate(metrics)
    ]
    return [decision.stop for decision in replay(rule, context, readings)]


def test_patience_is_counted_in_passes_from_the_best_and_its_end_stops():
    metrics = [0.5, 0.6, 0.6, 0.55, 0.6]
    assert stops(PlateauRule(patience=2), metrics) == [False, False, False, True, True]
    assert stops(PlateauRule(patience=1), metrics) == [False, False, True, True, True]
    assert stops(PlateauRule(patience=2), metrics, unit=0.5) == [False] * 5
    assert stops(PlateauRule(patience=1.5), metrics, unit=0.5)[-1]


def test_patience_survives_the_rounding_of_fractions():
    assert stops(PlateauRule(patience=0.2), [0.5] * 8, unit=0.1).index(True) == 2
    assert stops(PlateauRule(patience=0.7), [0.5] * 9, unit=0.1).index(True) == 7


def test_an_improvement_starts_the_count_again():
    assert stops(PlateauRule(patience=2), [0.5, 0.4, 0.6, 0.5, 0.7, 0.6, 0.6])[:6] == [False] * 6


@pytest.mark.parametrize(
    ("higher", "first", "second", "better"),
    [
        (True, 0.5, 0.55, False),
        (True, 0.5, 0.56, True),
        (False, 0.5, 0.45, False),
        (False, 0.5, 0.44, True),
        # The margin is a fraction of the size of the best, whatever its sign.
        (True, -0.5, -0.45, False),
        (True, -0.5, -0.44, True),
        (False, -0.5, -0.55, False),
        (False, -0.5, -0.56, True),
        (True, 0.0, 1e-9, True),
        (True, 0.0, 0.0, False),
    ],
)
def test_improvement_is_relative_to_the_size_of_the_best(higher, first, second, better):
    rule = PlateauRule(patience=1, improvement=0.1)
    first, second = (round(value, 10) for value in (first, second))
    assert stops(rule, [first, second], higher=higher)[1] == (not better)


def test_many_small_steps_count_once_they_exceed_the_margin_together():
    rule = PlateauRule(patience=3, improvement=0.1)
    assert stops(rule, [1.0, 1.05, 1.09, 1.11, 1.12, 1.13]) == [False] * 6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("higher", [True, False])
def test_non_finite_metric_never_improves(bad, higher):
    rule = PlateauRule(patience=2)
    assert stops(rule, [0.5, bad, bad], higher=higher) == [False, False, True]
    assert stops(rule, [bad, 0.5, 0.5], higher=higher) == [False, False, False]
    assert stops(rule, [bad, bad, bad], higher=higher) == [False, True, True]


@settings(deadline=None, max_examples=80)
@given(
    metrics=st.lists(
        st.one_of(st.integers(-5, 5).map(float), st.just(math.nan)), min_size=1, max_size=10
    ),
    patience=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    improvement=st.sampled_from([0.0, 0.3]),
    unit=st.sampled_from([0.25, 1.0]),
    higher=st.booleans(),
)
def test_equals_the_slow_twin(metrics, patience, improvement, unit, higher):
    history = [(unit * (i + 1), metric) for i, metric in enumerate(metrics)]
    expected = [
        slow_plateau(history[: i + 1], patience, improvement, higher) for i in range(len(metrics))
    ]
    assert stops(PlateauRule(patience, improvement), metrics, unit=unit, higher=higher) == expected


def after_losses(rule, losses, **context):
    readings = [
        Reading(phase="level", level=1, passes=i, train_loss=loss) for i, loss in enumerate(losses)
    ]
    return replay(rule, StopContext(max_passes=8, **context), readings)


def test_a_loss_that_no_longer_falls_stops_whatever_direction_the_metric_has():
    # Nothing was trained before the first reading; 0.46 lies within a tenth of 0.5, 0.44 does not.
    losses = [None, 0.5, 0.46, 0.44, 0.43, 0.41]
    for higher in (True, False):
        decisions = after_losses(LossRule(2, 0.1), losses, higher_is_better=higher)
        assert [decision.stop for decision in decisions] == [False] * 5 + [True]
        assert decisions[-1].reason is StopReason.LOSS
        assert decisions[-1].evidence == {
            "passes_without_improvement": 2,
            "patience": 2,
            "best": 0.44,
        }
    assert [d.stop for d in after_losses(LossRule(1, 0.1), losses)][:3] == [False, False, True]


@settings(deadline=None, max_examples=40)
@given(
    losses=st.lists(st.integers(0, 9).map(float), min_size=1, max_size=10),
    patience=st.sampled_from([1.0, 2.0, 3.0]),
    improvement=st.sampled_from([0.0, 0.3]),
)
def test_a_loss_decides_as_a_metric_would_that_is_better_if_lower(losses, patience, improvement):
    expected = stops(PlateauRule(patience, improvement), losses, higher=False)
    decisions = after_losses(LossRule(patience, improvement), [None, *losses])
    assert [decision.stop for decision in decisions[1:]] == expected


def test_reason_and_evidence():
    readings = [Reading(phase="level", level=1, passes=p, main=0.5) for p in (1, 2)]
    go_on, stop = replay(PlateauRule(patience=1), StopContext(max_passes=8), readings)
    assert (go_on.reason, stop.reason) == (StopReason.NOT_YET, StopReason.PLATEAU)
    assert stop.evidence == {"passes_without_improvement": 1, "patience": 1, "best": 0.5}


def test_reading_without_a_metric_is_refused():
    with pytest.raises(ConfigError, match="PlateauRule: expected a main metric"):
        stops(PlateauRule(), [None])


@pytest.mark.parametrize("rule", [PlateauRule, LossRule])
@pytest.mark.parametrize(
    "arguments",
    [{"patience": 0}, {"patience": math.nan}, {"improvement": -0.1}, {"improvement": math.nan}],
)
def test_settings_out_of_range_are_refused(rule, arguments):
    with pytest.raises(ConfigError, match="PlateauRule: expected"):
        rule(**arguments)
