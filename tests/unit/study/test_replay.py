from __future__ import annotations

import math
from typing import Any

import pytest

from infcop.core.records import RunRecord, StopReason
from infcop.core.replay import Replay, ReplayedRule
from infcop.errors import ConfigError, FlowError
from infcop.study.replay import replay
from tests.reference.replays import away, dense_reading, full_record, level_of

RISES = [0.5, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]
"""Recovered after 4 of 8 passes; its end is 0.9."""

LATE = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9]


def asked(record: RunRecord, stop: dict[str, Any], **more: Any) -> ReplayedRule:
    """Replay one rule on one record."""
    return replay({"a": record}, {"rule": {"stop": stop, **more}}).rules[0]


def fixed(passes: float) -> dict[str, Any]:
    return {"rule": "fixed-budget", "passes": passes}


def near(epsilon: float, **more: Any) -> dict[str, Any]:
    return {"rule": "matrix-flow", "epsilon": epsilon, **more}


def test_a_fixed_budget_by_head() -> None:
    rule = asked(full_record(level_of(1, RISES), level_of(2, LATE)), fixed(2))
    assert [level.passes for level in rule.levels] == [2, 2]
    assert [level.recovered for level in rule.levels] == [4, 7]
    assert [level.wasted for level in rule.levels] == [-2, -5]
    assert [level.lost for level in rule.levels] == pytest.approx([0.2, 0.4])
    assert [level.main for level in rule.levels] == [0.7, 0.5]
    assert (rule.passes, rule.wasted) == (2, -3.5)
    assert rule.lost == rule.lost_by_fixed == pytest.approx(0.3)
    assert rule.main == pytest.approx(0.6)
    assert (rule.at_minimum, rule.at_budget, rule.untrained) == (0, 0, 0)
    assert {level.reason for level in rule.levels} == {StopReason.BUDGET}


def test_minimum_and_budget_are_shares_of_levels() -> None:
    record = full_record(level_of(1, RISES), level_of(2, LATE))
    assert asked(record, fixed(1)).at_minimum == 1
    assert asked(record, fixed(8)).at_budget == 1
    assert asked(record, {"rule": "fixed-budget"}).wasted == 2.5
    # After one pass 0.5 lies within 0.5 + of the trained network; LATE stays there for long.
    rule = asked(record, near(0.45), min_passes=1)
    assert [level.passes for level in rule.levels] == [2, 7]
    assert asked(record, near(0.55), min_passes=1).at_minimum == 1
    assert asked(record, near(0.01), min_passes=1).at_budget == 1
    # A minimum in between is where the rule stops at the earliest.
    assert asked(record, fixed(1), min_passes=3).levels[0].passes == 3
    assert asked(record, fixed(1), min_passes=3).at_minimum == 1


def test_equal_cost_goes_to_the_one_that_spends_where_it_is_needed() -> None:
    record = full_record(level_of(1, [0.9] * 8), level_of(2, LATE))
    rule = asked(record, near(0.15), min_passes=1)
    assert [level.passes for level in rule.levels] == [1, 7]
    assert rule.lost == pytest.approx(0)
    # Four passes at each: nothing is lost at the first level, 0.4 at the second.
    assert rule.lost_by_fixed == pytest.approx(0.2)


def test_a_lower_metric_may_be_the_better_one() -> None:
    loss = [1 - value for value in RISES]
    level = level_of(1, loss, pruned=0.9, distances=[1 - value for value in RISES])
    record = full_record(level, metric="loss", higher_is_better=False)
    (one,) = asked(record, fixed(2)).levels
    assert (one.recovered, one.wasted) == (4, -2)
    assert one.lost == pytest.approx(0.2)


def test_a_level_may_need_no_training() -> None:
    record = full_record(level_of(1, RISES, shock=0.1, pruned=0.9), level_of(2, RISES, shock=0.5))
    rule = asked(record, near(0.3))
    assert [level.passes for level in rule.levels] == [0, 3]
    assert [level.reason for level in rule.levels] == [StopReason.UNDISTURBED, StopReason.FLOW]
    assert [level.recovered for level in rule.levels] == [0, 4]
    assert [level.lost for level in rule.levels] == pytest.approx([0, 0.1])
    assert (rule.untrained, rule.at_minimum) == (0.5, 0.5)
    # The same rule with a minimum can't leave it untrained, and is not measured against that.
    held = asked(record, near(0.3), min_passes=1)
    assert [level.passes for level in held.levels] == [3, 3]
    assert [level.recovered for level in held.levels] == [4, 4]
    assert [course.spared for course in replay({"a": record}).courses] == [True, False]


def test_a_mean_below_the_first_reading_has_no_fixed_budget_beside_it() -> None:
    rule = asked(full_record(level_of(1, RISES, shock=0.1)), near(0.3))
    assert (rule.passes, rule.lost_by_fixed) == (0, None)


def test_the_shock_gives_a_budget() -> None:
    # Half of 4 dense passes, times the square of the shock.
    stop = {"rule": "shock-budget", "fraction": 0.5}
    levels = level_of(1, RISES, shock=0.01), level_of(2, RISES, shock=1)
    rule = asked(full_record(*levels), stop)
    assert [level.passes for level in rule.levels] == [0, 2]
    with pytest.raises(ConfigError, match=r"'a': 'shock-budget' .* needs min_passes 0"):
        asked(full_record(*levels), stop, min_passes=1)


def test_thresholds_can_be_multiples_of_the_noise_floor() -> None:
    # The dense readings lie 0.2 apart, so the threshold is 0.15.
    rule = asked(full_record(level_of(1, RISES)), {"rule": "matrix-flow", "kappa": 0.75})
    assert rule.levels[0].passes == 4
    few = [dense_reading(1, 0.7), dense_reading(2, 0.8, 0.2)]
    record = full_record(level_of(1, RISES), dense=few)
    with pytest.raises(FlowError, match=r"rule 'rule': 'a': noise floor: expected at least 3 read"):
        asked(record, {"rule": "matrix-flow", "kappa": 1})
    skipped = replay({"a": record}).skipped
    assert "expected at least 3 readings" in skipped["1 x drift, to trained"]
    assert "both halves of its probe" in skipped["1 x halves, to trained"]


@pytest.mark.parametrize(
    ("reference", "passes"),
    # RISES lies 0.5, 0.3, 0.2, 0.1 from the dense flow; the pruned one 0.5, the level before 0.7.
    [("dense", 4), ("pruned", 1), ("trained", 8)],
)
def test_the_reference_can_be_chosen(reference: str, passes: float) -> None:
    first = level_of(1, RISES, distances=[0.7] * 8)
    record = full_record(first, level_of(2, RISES))
    stop = {"rule": "information-flow", "epsilon": 0.15}
    rule = asked(record, stop, reference=reference)
    assert rule.levels[1].passes == passes
    assert asked(record, stop).levels[1].passes == 4, "warm-up, as in the record"


def test_records_are_averaged_level_by_level() -> None:
    one, other = full_record(level_of(1, RISES)), full_record(level_of(1, LATE), level_of(2, LATE))
    found = replay({"one": one, "other": other}, {"two": {"stop": fixed(2)}})
    assert found.rules[0].lost == pytest.approx((0.2 + 0.4 + 0.4) / 3)
    assert [record.levels for record in found.records] == [1, 2]
    assert [(c.record, c.level) for c in found.courses] == [("one", 1), ("other", 1), ("other", 2)]


def test_the_tolerance_can_be_given() -> None:
    record = full_record(level_of(1, RISES))
    assert replay({"a": record}, tolerance=0.1).courses[0].recovered == 3
    assert replay({"a": record}, tolerance=0.2).courses[0].recovered == 2
    for wrong in (-0.1, math.nan):
        with pytest.raises(ConfigError, match="finite tolerance of at least 0"):
            replay({"a": record}, tolerance=wrong)


def test_the_tolerance_is_twice_the_noise() -> None:
    noisy = [0.5, 0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 0.8]
    found = replay({"a": full_record(level_of(1, noisy))})
    assert found.records[0].tolerance == pytest.approx(2 * math.sqrt(0.005))
    assert found.courses[0].recovered == 2


def test_a_minimum_beyond_the_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_passes \(9\) must not exceed the budget .*, 8"):
        asked(full_record(level_of(1, RISES)), fixed(1), min_passes=9)


def broken(level: int, place: int, **changes: Any) -> Any:
    """Return a level with one reading changed."""
    whole = level_of(level, RISES)
    readings = list(whole.readings)
    readings[place] = readings[place].model_copy(update=changes)
    return whole.model_copy(update={"readings": tuple(readings)})


def test_a_metric_that_is_not_finite_is_counted() -> None:
    record = full_record(broken(1, 2, main=math.nan), level_of(2, RISES))
    found = replay({"a": record}, {"two": {"stop": fixed(2)}})
    assert found.records[0].not_finite == 1
    first, second = found.rules[0].levels
    assert (first.main, first.lost, first.recovered) == (None, None, 4)
    assert found.rules[0].lost == second.lost
    assert all(math.isfinite(lost) for _, lost in found.fixed)


def test_a_level_without_any_metric_is_in_no_mean() -> None:
    record = full_record(level_of(1, RISES, main=math.inf), level_of(2, RISES))
    found = replay({"a": record}, {"two": {"stop": fixed(2)}})
    assert [course.end for course in found.courses] == [None, pytest.approx(0.9)]
    assert found.rules[0].wasted == -2
    nothing = replay({"a": full_record(level_of(1, RISES, main=math.nan))})
    assert {rule.lost for rule in nothing.rules} == {None}
    assert {one.mean for one in nothing.correlations} == {None}
    assert nothing.fixed == ()


def test_a_flow_that_is_not_finite_is_counted() -> None:
    lost = {"trained": away(math.nan)}
    rule = asked(full_record(broken(1, 3, comparisons=lost)), near(0.25), min_passes=1)
    assert (rule.levels[0].passes, rule.not_finite) == (4, 1)


def test_a_level_at_which_a_rule_can_not_begin_is_told() -> None:
    flows = {"information.signed": (math.nan, 0.0)}
    record = full_record(broken(1, 0, flows=flows), level_of(2, RISES))
    stop = {"rule": "information-flow", "epsilon": 0.15}
    rule = asked(record, stop, reference="pruned")
    assert [level.level for level in rule.levels] == [2]
    ((why, levels),) = rule.refused.items()
    assert levels == 1
    assert "expected a finite reference" in why
    with pytest.raises(FlowError, match="rule 'rule': 'a': FlowRule: expected a finite reference"):
        asked(full_record(broken(1, 0, flows=flows)), stop, reference="pruned")


def test_the_catalogue_is_replayed_without_what_the_records_lack() -> None:
    found = replay({"a": full_record(level_of(1, RISES), level_of(2, LATE))})
    labels = [rule.label for rule in found.rules]
    assert "frobenius 0.4, to trained" in labels
    assert "fixed 8" in labels
    assert "fixed 12" not in labels
    assert "expected a reading compared with 'dense'" in found.skipped["frobenius 0.4, to dense"]
    assert not set(labels) & set(found.skipped)
    assert Replay.model_validate_json(found.model_dump_json()) == found


def test_what_fixed_budgets_lose_is_a_line() -> None:
    fixed_losses = replay({"a": full_record(level_of(1, RISES))}).fixed
    assert fixed_losses[0] == (1, pytest.approx(0.4))
    assert fixed_losses[-1] == (8, pytest.approx(0))
    assert len(fixed_losses) > 20


def test_readings_after_the_dense_warm_up_do_not_set_the_target() -> None:
    dense = [dense_reading(1, 0.75), *(dense_reading(p, 0.95, 0.2) for p in (2, 3, 4))]
    record = full_record(level_of(1, RISES), dense=dense)
    target = {"rule": "accuracy-target"}
    assert asked(record, target).levels[0].passes == 8
    settings = {"dense": {"passes": 4, "warmup_passes": 1}}
    warm = full_record(level_of(1, RISES), dense=dense, settings=settings)
    assert asked(warm, target).levels[0].passes == 3


def test_a_record_is_not_changed() -> None:
    record = full_record(level_of(1, RISES))
    before = record.model_dump_json()
    replay({"a": record})
    assert record.model_dump_json() == before


def test_a_stop_between_two_readings_is_at_the_second() -> None:
    record = full_record(level_of(1, RISES, unit=0.5))
    assert asked(record, fixed(0.7), min_passes=0.5).levels[0].passes == 1
