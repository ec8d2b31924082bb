from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.records import Cost, PhaseRecord, RunRecord
from infcop.report.spending import (
    cost_rows,
    dense_main,
    kept_per_layer,
    main_after_pruning,
    main_at_end,
    prunable_entries,
    search_cost,
    spending,
    total_cost,
)
from tests.reference.records import FINAL_PASSES, MAX_PASSES, TRAIN, make_record

costs = st.builds(
    Cost,
    training=st.integers(0, 10**9),
    measuring=st.integers(0, 10**9),
    measuring_gradient=st.integers(0, 10**9),
    evaluating=st.integers(0, 10**9),
)


def with_costs(dense: Cost, level: Cost, final: Cost, rest: Cost) -> RunRecord:
    record = make_record(levels=1)
    assert record.outcome is not None
    return record.model_copy(
        update={
            "dense": PhaseRecord(cost=dense, seconds=1.0),
            "levels": (record.levels[0].model_copy(update={"cost": level}),),
            "final": PhaseRecord(cost=final, seconds=2.0),
            "outcome": record.outcome.model_copy(update={"cost": dense + level + final + rest}),
        }
    )


@given(costs, costs, costs, costs)
@settings(deadline=None, max_examples=50)
def test_rows_add_up_to_the_last_row_in_every_column(
    dense: Cost, level: Cost, final: Cost, rest: Cost
) -> None:
    *parts, total = cost_rows(with_costs(dense, level, final, rest))
    for field in (
        "training",
        "measuring",
        "measuring_gradient",
        "evaluating",
        "forward_equivalents",
    ):
        assert sum(getattr(row, field) for row in parts) == pytest.approx(getattr(total, field))


def test_a_hand_computed_run() -> None:
    record = with_costs(
        dense=Cost(training=8 * TRAIN, evaluating=TRAIN),
        level=Cost(training=2 * TRAIN, measuring=TRAIN),
        final=Cost(training=4 * TRAIN, measuring_gradient=TRAIN),
        rest=Cost(evaluating=TRAIN),
    )
    rows = {row.label: row for row in cost_rows(record)}
    assert list(rows) == ["Dense training", "Level 1", "Final training", "Other", "Whole search"]
    assert rows["Dense training"].forward_equivalents == 25
    assert rows["Level 1"].forward_equivalents == 7
    assert rows["Final training"].forward_equivalents == 15
    assert rows["Other"].forward_equivalents == 1
    assert rows["Whole search"].dense_trainings == pytest.approx(48 / 24)
    assert search_cost(record) == pytest.approx(48 / 24)


def test_spending_compares_with_the_full_budget_of_the_levels_there_were() -> None:
    spent = spending(make_record(levels=6))
    assert (spent.dense, spent.final) == (8, FINAL_PASSES)
    assert spent.full_levels == 6 * MAX_PASSES
    assert spent.full_total == 8 + 6 * MAX_PASSES + FINAL_PASSES
    assert spent.total == 8 + spent.levels + FINAL_PASSES
    assert spent.saved == pytest.approx(1 - spent.levels / (6 * MAX_PASSES))


def test_a_run_with_the_full_budget_saves_nothing() -> None:
    assert spending(make_record(flow="none")).saved == pytest.approx(0.0)


def test_an_unfinished_run_is_summed_so_far() -> None:
    record = make_record(levels=3, finished=False)
    assert spending(record).full_total is None
    assert spending(record).saved is None
    assert cost_rows(record)[-1].label == "So far"
    assert total_cost(record) == sum((x.cost for x in record.levels), record.dense.cost)


def test_before_dense_training_there_is_nothing_to_compare_with() -> None:
    record = make_record(levels=0, finished=False).model_copy(update={"dense": PhaseRecord()})
    assert search_cost(record) is None
    assert math.isnan(cost_rows(record)[-1].dense_trainings)


def test_density_of_each_layer_and_of_all() -> None:
    record = make_record(levels=4)
    kept = kept_per_layer(record)
    sizes = {name: math.prod(shape) for name, shape in record.model.prunable.items()}
    assert prunable_entries(record) == sum(sizes.values()) == 50_200
    for place, level in enumerate(record.levels):
        total = sum(kept[name][place] * size for name, size in sizes.items())
        assert total == pytest.approx(level.kept)


def test_a_layer_that_a_level_does_not_mention_is_unknown() -> None:
    record = make_record(levels=1)
    bare = record.levels[0].model_copy(update={"kept_per_layer": {}})
    kept = kept_per_layer(record.model_copy(update={"levels": (bare,)}))
    assert all(math.isnan(values[0]) for values in kept.values())


def test_main_metric_at_the_three_places() -> None:
    record = make_record(levels=2)
    level = record.levels[1]
    assert main_after_pruning(level) == level.readings[0].main
    assert main_at_end(level) == level.readings[-1].main
    assert dense_main(record) == record.dense.readings[-1].main
    unread = level.model_copy(update={"readings": ()})
    assert main_after_pruning(unread) is main_at_end(unread) is None


def test_the_reference_stands_in_for_dense_readings() -> None:
    record = make_record(levels=1).model_copy(update={"dense": PhaseRecord()})
    assert record.reference is not None
    assert dense_main(record) == record.reference.main
    assert dense_main(record.model_copy(update={"reference": None})) is None
