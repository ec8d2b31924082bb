"""From the record of a run to the rows of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from infcop.core.records import Cost, LevelRecord, Outcome, PhaseRecord, RunRecord
from infcop.core.study import StudyCost, StudyFailure, StudyRow
from infcop.report.spending import dense_examples
from infcop.study.jobs import Job

__all__ = ["failures_of", "rows_of"]


@dataclass(frozen=True)
class _Network:
    """A sparse network of a run, and what led to it."""

    density: float
    kept: int
    metrics: dict[str, float]
    levels: tuple[LevelRecord, ...]
    final: PhaseRecord
    cost: Cost
    seconds: float


def rows_of(job: Job, record: RunRecord) -> list[StudyRow]:
    """Return a row for each density that a finished run reached, in the job's order."""
    if record.outcome is None:
        return []
    return [
        _row(job, record, record.outcome, net) for net in _networks(job, record.outcome, record)
    ]


def failures_of(job: Job, record: RunRecord) -> Iterator[StudyFailure]:
    """Yield the densities that a finished run did not reach.

    A network that keeps more than was asked for can't be compared with one that does not.
    """
    outcome = record.outcome
    if outcome is None:
        return
    reached = {network.density for network in _networks(job, outcome, record)}
    why = f": {record.warnings[-1]}" if record.warnings else ""
    for density in job.densities:
        if density not in reached:
            yield job.failed(
                f"the run ended at density {outcome.density:g}, above {density:g}{why}", density
            )


def _networks(job: Job, outcome: Outcome, record: RunRecord) -> Iterator[_Network]:
    on_the_way = {found.level: found for found in record.milestones if found.metrics}
    for density in job.densities:
        kept = max(round(density * outcome.prunable), 1)
        # Whole groups may end somewhat below the count that was asked for.
        reached = next((x.level for x in record.levels if x.kept <= kept), None)
        if reached == len(record.levels) or (reached is None and outcome.kept <= kept):
            final = record.final or PhaseRecord()
            end = (outcome.sparse, record.levels, final, outcome.cost, outcome.seconds)
            yield _Network(density, outcome.kept, *end)
        elif reached is not None and (found := on_the_way.get(reached)):
            levels = record.levels[:reached]
            end = (found.metrics, levels, found.final, found.cost, found.seconds)
            yield _Network(density, found.kept, *end)


def _row(job: Job, record: RunRecord, outcome: Outcome, network: _Network) -> StudyRow:
    data, cost, levels = record.data, network.cost, network.levels
    reasons = Counter(x.stopped_by.reason.value for x in levels if x.stopped_by)
    untrained, at_minimum, at_cap = _lengths(job, record, levels)
    return StudyRow(
        setting=job.setting,
        method=job.method,
        seed=job.seed,
        density=network.density,
        kept=network.kept,
        prunable=outcome.prunable,
        main_metric=data.main_metric,
        higher_is_better=data.higher_is_better,
        measured_on=outcome.measured_on,
        sparse=network.metrics,
        dense=outcome.dense,
        train_examples=data.train,
        budget=job.budget,
        cost=_cost(record, network),
        cost_vs_dense=cost.forward_equivalents / (3 * dense_examples(record)),
        training_passes=record.passes(cost.training),
        measuring_passes=record.passes(cost.measuring + cost.measuring_gradient),
        evaluating_passes=record.passes(cost.evaluating),
        levels=len(levels),
        untrained=untrained,
        at_minimum=at_minimum,
        at_cap=at_cap,
        passes_per_level=tuple(level.passes for level in levels),
        stop_reasons=dict(sorted(reasons.items())),
        seconds=network.seconds,
        run=job.run,
        warnings=record.warnings,
    )


def _lengths(job: Job, record: RunRecord, levels: tuple[LevelRecord, ...]) -> tuple[int, int, int]:
    """Count levels without training, those at the minimum, and those that used up the budget."""
    limits = job.config.levels
    # A level ends with a whole step, so it may train that much longer than the minimum.
    step = job.config.training.batch_size / record.data.train
    trained = [level.passes for level in levels if level.passes > 0]
    at_cap = sum(passes >= limits.max_passes - 1e-9 for passes in trained)
    short = [passes for passes in trained if passes < limits.max_passes - 1e-9]
    return (
        len(levels) - len(trained),
        sum(passes < job.config.min_passes + step for passes in short),
        at_cap,
    )


def _cost(record: RunRecord, network: _Network) -> StudyCost:
    spent = sum((level.cost for level in network.levels), Cost())
    return StudyCost(
        dense=record.dense.cost.forward_equivalents,
        levels_training=3 * spent.training,
        levels_measuring=spent.measuring + 3 * spent.measuring_gradient,
        levels_evaluating=spent.evaluating,
        final=network.final.cost.forward_equivalents,
        total=network.cost.forward_equivalents,
    )
