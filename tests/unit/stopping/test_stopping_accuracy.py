from __future__ import annotations

import math

import pytest

from infcop.core.records import Reading, StopReason
from infcop.errors import ConfigError
from infcop.stopping.accuracy import AccuracyRule
from infcop.stopping.rule import StopContext, replay


def decide(rule, metric, *, best=None, higher=True):
    context = StopContext(warmup_best=best, higher_is_better=higher, max_passes=8)
    return replay(rule, context, [Reading(phase="level", level=1, passes=1, main=metric)])[0]


@pytest.mark.parametrize(
    ("higher", "metric", "stop"),
    [
        (True, 0.9, True),
        (True, 0.91, True),
        (True, math.nextafter(0.9, 0), False),
        (False, 0.9, True),
        (False, 0.89, True),
        (False, math.nextafter(0.9, 1), False),
    ],
)
def test_target_is_reached_inclusively_in_the_metrics_direction(higher, metric, stop):
    decision = decide(AccuracyRule(target=0.9), metric, higher=higher)
    assert decision.stop == stop
    assert decision.reason is (StopReason.ACCURACY if stop else StopReason.NOT_YET)
    assert decision.evidence == {"metric": metric, "threshold": 0.9}


@pytest.mark.parametrize(("higher", "threshold"), [(True, 0.5), (False, 1.0)])
def test_margin_makes_the_target_easier_in_either_direction(higher, threshold):
    rule = AccuracyRule(target=0.75, margin=0.25)
    assert decide(rule, threshold, higher=higher).stop
    assert decide(rule, threshold, higher=higher).evidence["threshold"] == threshold
    assert not decide(rule, threshold + (-0.1 if higher else 0.1), higher=higher).stop


def test_default_target_is_the_best_of_the_warm_up_and_a_given_one_wins():
    assert decide(AccuracyRule(), 0.8, best=0.8).stop
    assert not decide(AccuracyRule(), 0.8, best=0.81).stop
    assert decide(AccuracyRule(target=0.7), 0.8, best=0.81).stop


@pytest.mark.parametrize("best", [None, math.nan, math.inf])
def test_no_target_is_an_error(best):
    with pytest.raises(ConfigError, match=f"expected a finite target, got {best}"):
        decide(AccuracyRule(), 0.8, best=best)


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("higher", [True, False])
def test_non_finite_metric_goes_on(metric, higher):
    decision = decide(AccuracyRule(target=0.5), metric, higher=higher)
    assert not decision.stop
    assert decision.reason is StopReason.NON_FINITE
    assert decision.evidence == {"threshold": 0.5}


def test_reading_without_a_metric_is_refused():
    with pytest.raises(ConfigError, match="expected a main metric in every reading"):
        decide(AccuracyRule(target=0.5), None)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_margin_must_be_finite_and_not_negative(margin):
    with pytest.raises(ConfigError, match="margin"):
        AccuracyRule(margin=margin)
