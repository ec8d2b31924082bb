from __future__ import annotations

import math
from typing import Any

import pytest

from infcop.core.config import RunConfig
from infcop.core.records import RunRecord
from infcop.pipeline.stop_context import asks_at_once, level_rule, reference_reading, stop_context
from infcop.stopping.rule import replay
from tests.reference.replays import dense_reading, full_record, level_of

DENSE = [dense_reading(passes, main) for passes, main in ((1, 0.6), (2, 0.7), (3, 0.5), (4, 0.9))]
RECORD = full_record(level_of(1, [0.1, 0.2]), level_of(2, [0.3, 0.4]), dense=DENSE)


def settings(record: RunRecord = RECORD, **groups: Any) -> RunConfig:
    return RunConfig.model_validate({**record.config, **groups})


def test_the_reference_is_a_reading_of_the_record() -> None:
    dense = {"passes": 4, "warmup_passes": 2}

    def reference(which: str, level: int) -> Any:
        config = settings(method={"name": "lth", "reference": which}, dense=dense)
        return reference_reading(RECORD, config, level)

    assert reference("warm-up", 2) == DENSE[1]
    assert reference("dense", 2) == DENSE[3]
    assert reference("pruned", 2) == RECORD.levels[1].readings[0]
    assert reference("trained", 2) == RECORD.levels[0].readings[-1]
    assert reference("trained", 1) == DENSE[3]


def test_a_level_that_did_not_train_is_no_trained_state() -> None:
    untrained = RECORD.levels[1].model_copy(update={"readings": RECORD.levels[1].readings[:1]})
    record = RECORD.model_copy(update={"levels": (RECORD.levels[0], untrained, RECORD.levels[1])})
    config = settings(method={"name": "lth", "reference": "trained"})
    assert reference_reading(record, config, 3) == RECORD.levels[0].readings[-1]
    assert reference_reading(full_record(RECORD.levels[0], dense=[]), config, 1) is None


@pytest.mark.parametrize(("higher_is_better", "best"), [(True, 0.7), (False, 0.5)])
def test_the_target_is_the_best_of_the_warm_up(higher_is_better: bool, best: float) -> None:
    record = full_record(*RECORD.levels, dense=DENSE, higher_is_better=higher_is_better)
    config = settings(dense={"passes": 4, "warmup_passes": 3})
    context = stop_context(record, config, 1)
    assert context.warmup_best == best
    assert context.higher_is_better == higher_is_better
    assert (context.dense_passes, len(context.dense), context.max_passes) == (4, 4, 2)


def test_nothing_evaluated_gives_no_target() -> None:
    dense = [DENSE[0].model_copy(update={"main": None})]
    context = stop_context(full_record(*RECORD.levels, dense=dense), settings(), 1)
    assert context.warmup_best is None
    assert context.reference is None


def test_a_rule_has_a_minimum_and_a_cap() -> None:
    config = settings(
        method={"name": "lth", "stop": {"rule": "fixed-budget", "passes": 1}},
        levels={"min_passes": 2, "max_passes": 3},
    )
    readings = level_of(1, [0.1, 0.2, 0.3]).readings[1:]
    decisions = replay(level_rule(config), stop_context(RECORD, config, 1), readings)
    assert [decision.reason.value for decision in decisions] == ["minimum", "budget", "budget"]


def test_the_reading_right_after_pruning_is_asked_where_it_may_end_a_level() -> None:
    plain = {"name": "lth", "stop": {"rule": "shock-budget"}}
    assert asks_at_once(settings(method=plain))
    assert not asks_at_once(settings(method={"name": "lth"}))
    assert asks_at_once(settings(method={"name": "lth"}, levels={"min_passes": 0}))
    training = {**plain, "flow": {"source": "training"}}
    assert not asks_at_once(settings(method=training, levels={"min_passes": 0}))


def test_numbers_that_are_not_finite_do_not_hide_the_others() -> None:
    dense = [dense_reading(1, math.nan), *DENSE[1:]]
    context = stop_context(full_record(*RECORD.levels, dense=dense), settings(), 1)
    assert context.dense[0].main is not None
    assert math.isnan(context.dense[0].main)
