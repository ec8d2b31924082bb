"""Trying stop rules on stored records, without any training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from infcop.core.config import SearchConfig
from infcop.core.method import ShockBudget, rule_parts
from infcop.core.records import Reading, RunRecord, StopDecision, StopReason
from infcop.core.replay import Correlation, Replay, ReplayedLevel, ReplayedRule, ReplayRule
from infcop.errors import ConfigError, FlowError, InfcopError
from infcop.pipeline.stop_context import asks_at_once, level_rule, stop_context
from infcop.stopping.rule import reached
from infcop.stopping.rule import replay as decisions_of
from infcop.study.courses import (
    FullCourse,
    courses_of,
    fixed_losses,
    lost_by_fixed,
    replayed_record,
)
from infcop.study.distances import CLOCK, LOSS, MASK, correlations, curves
from infcop.study.full_records import FullRecord, full_records, trained_readings
from infcop.study.replay_rules import Rules, catalogue, rules_of

__all__ = ["replay", "replay_level"]

Runs = Iterable[str | os.PathLike[str]] | Mapping[str, RunRecord]


def replay(runs: Runs, rules: Rules | None = None, *, tolerance: float | None = None) -> Replay:
    """Ask of full records where stop rules would have stopped, and what that would have cost.

    Every level is taken as it stands in its record, after levels that all trained to the full
    budget: what a rule would have made of the levels before is not known.

    Args:
        runs: Run folders, or records by name. They must have been made with
            ``method.flow.every_reading`` and a fixed budget.
        rules: A YAML file or a mapping from labels to rules; by default a catalogue of all
            criteria, without those that the records lack something for.
        tolerance: How far short of its end the held-out metric of a level may lie and still count
            as recovered, in its units; by default twice its noise (``study.recovery``).

    Returns:
        Where each rule stops at each level, against where the metric had recovered; and how each
        distance goes with the metric.

    Raises:
        ConfigError: A record is not full, or a rule is unknown, out of range, or can't be asked.
        FlowError: A given rule needs a flow, or readings for a noise floor, that a record lacks.
        RunFolderError: A folder holds no record, or one of another version.

    Example:
        >>> import tempfile, infcop
        >>> full = {
        ...     "data": {"train_examples": 100}, "density": 0.4, "dense": {"passes": 2},
        ...     "levels": {"max_passes": 3}, "final": {"passes": 0},
        ...     "method": {"name": "lth", "flow": {"every_reading": True}},
        ... }
        >>> from infcop.pipeline.configure import resolve_config
        >>> from infcop.pipeline.workload import run_config
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = run_config(resolve_config(full), run_dir=folder)
        >>> found = replay(
        ...     {"digits": run.record},
        ...     {"a pass": {"stop": {"rule": "fixed-budget", "passes": 1}}},
        ... )
        >>> found.rules[0].passes, found.rules[0].at_minimum
        (1.0, 1.0)
    """
    given = None if rules is None else rules_of(rules)
    records = full_records(runs)
    by_record = [courses_of(full, tolerance) for full in records]
    courses = [course for own in by_record for course in own]
    replayed, skipped = [], {}
    for label, rule in (given or _catalogue(records)).items():
        try:
            replayed.append(_replayed(label, rule, by_record))
        except (ConfigError, FlowError) as error:
            if given is not None:
                raise type(error)(f"rule '{label}': {error}") from None
            skipped[label] = str(error)
    told = correlations(courses)
    data = records[0].record.data
    return Replay(
        main_metric=data.main_metric,
        higher_is_better=data.higher_is_better,
        records=tuple(map(replayed_record, records, by_record)),
        courses=tuple(course.facts for course in courses),
        rules=tuple(replayed),
        skipped=skipped,
        fixed=fixed_losses(courses),
        correlations=told,
        curves=curves(courses, _shown(told, records[0])),
    )


def replay_level(
    record: RunRecord, config: SearchConfig, level: int
) -> list[tuple[Reading, StopDecision]]:
    """Return the readings of a level at which a run with these settings asks its rule, and answers.

    Args:
        record: Of any run.
        config: Its settings, or with another rule, reference, minimum or budget.
        level: Number of the level, from 1.

    Raises:
        ConfigError: The rule can't be asked where it has to be, or lacks its target.
        FlowError: The record lacks a flow that the rule compares.
    """
    readings = trained_readings(record.levels[level - 1])
    if asks_at_once(config):
        readings = (record.levels[level - 1].readings[0], *readings)
    elif any(isinstance(part, ShockBudget) for part in rule_parts(config.method.stop)):
        raise ConfigError(
            "'shock-budget' decides at the reading right after pruning, so it needs min_passes 0 "
            f"and a record with flow from a probe, got min_passes {config.min_passes:g} and "
            f"method.flow.source '{config.method.flow.source}'"
        )
    decisions = decisions_of(level_rule(config), stop_context(record, config, level), readings)
    return list(zip(readings, decisions, strict=True))


def _catalogue(records: Sequence[FullRecord]) -> dict[str, ReplayRule]:
    return catalogue(
        budget=min(full.config.levels.max_passes for full in records),
        unit=max(full.config.levels.unit for full in records),
        share=records[0].record.data.main_metric.endswith("accuracy"),
        warmed_apart=any(full.config.dense.warmup < full.config.dense.passes for full in records),
    )


def _shown(found: Sequence[Correlation], full: FullRecord) -> list[str]:
    """Choose the distances to draw: the best of each kind, and the published one."""
    names = [one.name for one in found if one.mean is not None and one.name not in (CLOCK, LOSS)]
    wanted = f"information.signed to {full.config.method.reference}"
    published = wanted if wanted in names else "information.signed to dense"
    matrix = [n for n in names if n.split()[0] in ("frobenius", "cosine") and " last" not in n]
    vector = [n for n in names if "." in n.split()[0] and n != published]
    return [*matrix[:1], *vector[:1], *(n for n in (published, MASK) if n in names)]


def _replayed(
    label: str, rule: ReplayRule, by_record: Sequence[Sequence[FullCourse]]
) -> ReplayedRule:
    levels: list[ReplayedLevel] = []
    refused: Counter[str] = Counter()
    for courses in by_record:
        config = _with(courses[0].full.config, rule)
        errors: list[InfcopError] = []
        for course in courses:
            try:
                levels.append(_at_level(course, config))
            except (ConfigError, FlowError) as error:
                errors.append(error)
        if len(errors) == len(courses):
            raise type(errors[0])(f"'{courses[0].full.name}': {errors[0]}")
        refused.update(map(str, errors))
    passes = fmean(level.passes for level in levels)
    return ReplayedRule(
        label=label,
        rule=rule,
        levels=tuple(levels),
        refused=dict(refused),
        passes=passes,
        main=_mean([level.main for level in levels]),
        wasted=_mean([level.wasted for level in levels]),
        lost=_mean([level.lost for level in levels]),
        lost_by_fixed=lost_by_fixed([course for own in by_record for course in own], passes),
        untrained=fmean(level.passes == 0 for level in levels),
        at_minimum=fmean(level.at_minimum for level in levels),
        at_budget=fmean(level.at_budget for level in levels),
        not_finite=sum(level.not_finite for level in levels),
    )


def _with(config: SearchConfig, rule: ReplayRule) -> SearchConfig:
    """Return the settings of a record with another rule."""
    most = config.levels.max_passes
    if rule.min_passes is not None and rule.min_passes > most:
        raise ConfigError(
            f"min_passes ({rule.min_passes:g}) must not exceed the budget of the levels, {most:g}"
        )
    method = config.method.model_copy(
        update={"stop": rule.stop, "reference": rule.reference or config.method.reference}
    )
    levels = config.levels.model_copy(update={"min_passes": rule.min_passes})
    return config.model_copy(update={"method": method, "levels": levels})


def _at_level(course: FullCourse, config: SearchConfig) -> ReplayedLevel:
    facts = course.facts
    asked = replay_level(course.full.record, config, facts.level)
    # The budget stops a level at its last reading, if nothing did before.
    stop = next(place for place, (_, decision) in enumerate(asked) if decision.stop)
    reading, decision = asked[stop]
    lost = course.lost(reading)
    first = next(r.passes for r, _ in asked if reached(r.passes, config.min_passes))
    spared = facts.spared and asks_at_once(config)
    return ReplayedLevel(
        record=facts.record,
        level=facts.level,
        passes=reading.passes,
        reason=decision.reason,
        main=None if lost is None else reading.main,
        lost=lost,
        recovered=0.0 if spared else facts.recovered,
        at_minimum=reading.passes == first,
        at_budget=reached(reading.passes, config.levels.max_passes),
        not_finite=sum(d.reason is StopReason.NON_FINITE for _, d in asked[: stop + 1]),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
