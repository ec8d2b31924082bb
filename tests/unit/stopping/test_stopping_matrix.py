from __future__ import annotations

import math

import pytest

from infcop.core.comparison import HALVES, comparison_name
from infcop.core.records import Comparison, Reading, StopReason
from infcop.errors import ConfigError, FlowError
from infcop.stopping.matrix import MatrixRule
from infcop.stopping.rule import StopContext, replay


def at(distance):
    return Comparison(difference=(distance**2, 0.0), present=(1.0, 0.0), reference=(1.0, 0.0))


def reading(passes, **distances):
    """Return a reading that lies so far from each state; ``_`` stands for the dash."""
    return Reading(
        phase="level",
        level=1,
        passes=passes,
        comparisons={name.replace("_", "-"): at(far) for name, far in distances.items()},
    )


DENSE = tuple(
    Reading(phase="dense", level=0, passes=p, comparisons={"last": at(d), HALVES: at(0.8)})
    for p, d in [(1, 0.9), (2, 0.5), (3, 0.25)]
)


def decide(rule, *readings):
    return replay(rule, StopContext(dense=DENSE, max_passes=8), readings)


def test_a_distance_equal_to_epsilon_goes_on_and_just_below_it_stops() -> None:
    rule = MatrixRule(epsilon=0.5)
    on, stop = decide(rule, reading(1, trained=0.5), reading(2, trained=math.nextafter(0.5, 0)))
    assert (on.stop, stop.stop) == (False, True)
    assert (on.reason, stop.reason) == (StopReason.NOT_YET, StopReason.FLOW)
    assert on.evidence == {"distance": 0.5, "threshold": 0.5}


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        ({"kappa": 2.0}, 1.1),
        ({"kappa": 2.0, "floor_readings": 2}, 0.75),
        ({"kappa": 2.0, "floor": "halves"}, 1.6 / math.sqrt(2)),
        ({"kappa": 0.5, "floor": "larger"}, 0.4 / math.sqrt(2)),
        ({"epsilon": 0.7}, 0.7),
    ],
)
def test_kappa_is_a_multiple_of_the_floor_and_epsilon_a_distance(settings, threshold) -> None:
    (decision,) = decide(MatrixRule(**settings), reading(1, trained=0.1))
    assert decision.evidence["threshold"] == pytest.approx(threshold)


def test_right_after_pruning_the_trained_network_is_the_reference() -> None:
    rule = MatrixRule(epsilon=0.5, reference="dense")
    undisturbed, far = (
        decide(rule, reading(0, trained=d, dense=1 - d), reading(1, trained=d, dense=1 - d))
        for d in (0.2, 0.8)
    )
    assert [decision.stop for decision in undisturbed] == [True, False]
    assert undisturbed[0].reason is StopReason.UNDISTURBED
    assert [decision.stop for decision in far] == [False, True]
    assert far[1].reason is StopReason.FLOW


def test_the_reading_right_after_pruning_may_have_a_threshold_of_its_own() -> None:
    rule = MatrixRule(kappa=2.0, untrained=0.5)
    both = decide(rule, reading(0, trained=0.3), reading(1, trained=0.3))
    assert [decision.evidence["threshold"] for decision in both] == pytest.approx([0.275, 1.1])
    assert [decision.stop for decision in both] == [False, True]
    same = decide(MatrixRule(kappa=2.0), reading(0, trained=0.3))
    assert same[0].stop


@pytest.mark.parametrize("reference", ["warm-up", "dense", "trained", "pruned", "last"])
@pytest.mark.parametrize("units", ["all", "alive"])
def test_compares_with_the_state_and_the_units_it_names_only(reference, units) -> None:
    name = comparison_name(reference, units)
    present = Reading(phase="level", level=1, passes=1, comparisons={name: at(0.25)})
    (decision,) = decide(MatrixRule(epsilon=0.5, reference=reference, units=units), present)
    assert decision.stop
    assert decision.evidence["distance"] == 0.25


def test_the_first_reading_of_a_level_has_no_last_one_and_goes_on() -> None:
    rule = MatrixRule(epsilon=0.5, reference="last")
    first, second = decide(rule, reading(1, trained=0.1), reading(2, trained=0.1, last=0.1))
    assert (first.stop, first.reason, first.evidence) == (False, StopReason.NOT_YET, {})
    assert second.stop


def test_a_missing_comparison_is_refused_with_the_nearest_name() -> None:
    rule = MatrixRule(epsilon=0.5, reference="warm-up")
    with pytest.raises(
        FlowError,
        match="MatrixRule: expected a reading compared with 'warm-up', got none after 1 passes of "
        "level 1; known: dense, trained",
    ):
        decide(rule, reading(1, trained=0.1, dense=0.1))
    named = reading(0).model_copy(update={"comparisons": {"trained, alive units": at(0.1)}})
    with pytest.raises(FlowError, match="did you mean 'trained, alive units'"):
        decide(MatrixRule(epsilon=0.5), named)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("passes", [0, 1])
def test_a_distance_that_is_not_finite_goes_on_with_the_reason(bad, passes) -> None:
    broken = Comparison(difference=(bad,), present=(1.0,), reference=(1.0,))
    present = Reading(phase="level", level=1, passes=passes, comparisons={"trained": broken})
    (decision,) = decide(MatrixRule(epsilon=9.0, untrained=8.0), present)
    assert not decision.stop
    assert decision.reason is StopReason.NON_FINITE
    assert decision.evidence == {"non_finite_entries": 1.0, "threshold": 9.0 if passes else 8.0}


def test_without_dense_readings_a_multiple_of_the_floor_is_refused_and_a_distance_is_not() -> None:
    empty = StopContext(max_passes=8)
    with pytest.raises(FlowError, match="at least 3 readings"):
        MatrixRule(kappa=1.0).init(empty)
    assert MatrixRule(epsilon=0.5).init(empty) == {"threshold": 0.5, "untrained": 0.5}


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["epsilon", "kappa", "untrained"])
def test_thresholds_must_be_finite_and_positive(bad, name) -> None:
    settings = {"epsilon": 0.5} if name == "untrained" else {}
    with pytest.raises(ConfigError, match=f"MatrixRule: expected a finite {name} above 0"):
        MatrixRule(**settings, **{name: bad})


@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.5, "kappa": 1.0}])
def test_exactly_one_threshold_is_needed(settings) -> None:
    with pytest.raises(ConfigError, match="expected either epsilon or kappa"):
        MatrixRule(**settings)
