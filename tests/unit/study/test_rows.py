from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infcop.core.records import Cost, Milestone, PhaseRecord, RunRecord
from infcop.study.configure import resolve_comparison
from infcop.study.jobs import Job, first_jobs
from infcop.study.rows import failures_of, rows_of
from infcop.study.store import StudyStore
from tests.reference.records import TRAIN, make_record
from tests.reference.studies import comparison


def job_for(densities: list[float], **levels: Any) -> Job:
    setting = {"data": {"name": "digits"}, "training": {"batch_size": 64}, "levels": levels}
    config = resolve_comparison(
        comparison(seeds=[3], densities=densities, settings={"digits": setting})
    )
    return first_jobs(config, StudyStore("study"))[0]


def record_with_milestone() -> tuple[RunRecord, list[float]]:
    """Return a finished run of six levels with a network after the third, and both densities."""
    record = make_record(flow="information")
    third = record.levels[2]
    final = PhaseRecord(cost=Cost(training=100, evaluating=7), seconds=5.0)
    before = [record.dense, *record.levels[:3]]
    milestone = Milestone(
        level=3,
        kept=third.kept,
        density=third.density,
        final=final,
        metrics={"accuracy": 0.9, "loss": 0.3},
        cost=sum((phase.cost for phase in before), final.cost),
        seconds=sum(phase.seconds for phase in before) + 5.0,
    )
    assert record.outcome is not None
    densities = [third.kept / record.outcome.prunable, record.outcome.density]
    return record.model_copy(update={"milestones": (milestone,)}), densities


def test_a_run_gives_a_row_for_each_density() -> None:
    record, densities = record_with_milestone()
    job = job_for(densities, max_passes=8, unit=0.5, min_passes=0.5)
    on_the_way, end = rows_of(job, record)
    assert [on_the_way.density, end.density] == densities
    assert (on_the_way.levels, end.levels) == (3, 6)
    assert on_the_way.main == 0.9
    assert record.outcome is not None
    assert end.sparse == record.outcome.sparse
    assert on_the_way.dense == end.dense == record.outcome.dense
    assert on_the_way.seed == 3
    assert (on_the_way.setting, on_the_way.method) == ("digits", "lth")
    assert on_the_way.run == "runs/digits/lth/3"
    assert on_the_way.seconds < end.seconds
    assert list(failures_of(job, record)) == []


def test_costs_are_those_up_to_the_density() -> None:
    record, densities = record_with_milestone()
    on_the_way, end = rows_of(job_for(densities, max_passes=8), record)
    levels = sum((level.cost for level in record.levels[:3]), Cost())
    cost = on_the_way.cost
    assert cost.levels_training == 3 * levels.training
    assert cost.levels_measuring == levels.measuring > 0
    assert cost.levels_evaluating == levels.evaluating > 0
    assert cost.levels == levels.forward_equivalents
    assert cost.final == 307
    assert cost.total == cost.dense + cost.levels + cost.final
    dense = record.dense.cost.training
    assert on_the_way.cost_vs_dense == pytest.approx(cost.total / (3 * dense))
    assert end.training_passes == pytest.approx(
        (dense + sum(level.cost.training for level in record.levels) + 8 * TRAIN) / TRAIN
    )
    measured = sum(level.cost.measuring for level in record.levels[:3])
    assert on_the_way.measuring_passes == pytest.approx(
        (record.dense.cost.measuring + measured) / TRAIN
    )


def test_gradients_count_three_in_cost_and_one_in_passes() -> None:
    record = make_record(flow="gradient")
    assert record.outcome is not None
    row = rows_of(job_for([record.outcome.density]), record)[0]
    measured = sum(level.cost.measuring_gradient for level in record.levels)
    assert row.cost.levels_measuring == 3 * measured > 0
    whole = record.outcome.cost.measuring_gradient
    assert row.measuring_passes == pytest.approx(whole / TRAIN)


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        ({"min_passes": 0, "max_passes": 8}, (1, 0, 0)),
        ({"min_passes": 1, "max_passes": 8}, (1, 2, 0)),
        ({"min_passes": 1, "max_passes": 1}, (1, 0, 5)),
        ({"min_passes": 0, "max_passes": 3}, (1, 0, 1)),
    ],
)
def test_how_levels_ended_is_counted(
    limits: dict[str, float], counts: tuple[int, int, int]
) -> None:
    record = make_record(flow="none", levels=6)
    assert record.outcome is not None
    passes = [0.0, 1.0, 1.02, 2.0, 2.5, 3.0]
    levels = tuple(
        level.model_copy(
            update={"readings": (level.readings[-1].model_copy(update={"passes": count}),)}
        )
        for level, count in zip(record.levels, passes, strict=True)
    )
    record = record.model_copy(update={"levels": levels})
    row = rows_of(job_for([record.outcome.density], **limits), record)[0]
    assert (row.untrained, row.at_minimum, row.at_cap) == counts
    assert row.passes_per_level == tuple(passes)
    assert row.stop_reasons == {"budget": 6}


def test_a_run_that_keeps_more_than_was_asked_for_gives_no_row() -> None:
    record, densities = record_with_milestone()
    job = job_for([densities[0], densities[1] / 2])
    assert [row.density for row in rows_of(job, record)] == densities[:1]
    (failure,) = failures_of(job, record)
    assert failure.density == densities[1] / 2
    assert "the run ended at density" in failure.message
    assert "the data loader shuffles" in failure.message, "the warning says why"


def test_an_unfinished_run_gives_nothing() -> None:
    record = make_record(finished=False)
    job = job_for([0.1])
    assert rows_of(job, record) == []
    assert list(failures_of(job, record)) == []


def test_a_job_survives_a_round_trip() -> None:
    job = job_for([0.2, 0.1])
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert job.dense_dir == Path("study/dense/digits/3")
    assert job.densities == (0.2, 0.1)
