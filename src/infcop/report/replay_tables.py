"""The tables of a replay, for the page, the terminal and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infcop.core.replay import Correlation, Replay, ReplayedRule
from infcop.report import words
from infcop.report.replay_words import (
    findings,
    is_share,
    loss,
    metric,
    metric_name,
    notices,
    number,
    scope,
)
from infcop.report.tables import Table, plain_lines

__all__ = ["correlation_table", "course_table", "replay_dict", "replay_lines", "rule_table"]

_SHOWN = 12
"""Distances that the terminal shows."""


def replay_lines(replay: Replay) -> Iterator[str]:
    """Yield a replay as lines of plain text: rules, distances, and what they say."""
    yield from plain_lines(rule_table(replay))
    yield ""
    table = correlation_table(replay)
    yield from plain_lines(Table(table.headings, table.rows[:_SHOWN], table.text))
    if len(table.rows) > _SHOWN:
        yield f"and {words.plural(len(table.rows) - _SHOWN, 'more distance')} on the page"
    yield ""
    yield from findings(replay)
    yield from notices(replay)
    yield scope(replay)


def replay_dict(replay: Replay) -> dict[str, Any]:
    """Return the numbers of a replay by rule and by distance, for JSON."""
    return {
        "main_metric": replay.main_metric,
        "higher_is_better": replay.higher_is_better,
        "records": [record.model_dump(mode="json") for record in replay.records],
        "rules": {rule.label: _rule_numbers(rule) for rule in replay.rules},
        "correlations": {
            one.name: one.model_dump(mode="json", exclude={"name"}) for one in replay.correlations
        },
        "skipped": replay.skipped,
    }


def rule_table(replay: Replay) -> Table:
    """Return every rule with its means over all levels."""
    unit = "points" if is_share(replay) else replay.main_metric.replace("_", " ")
    return Table(
        headings=(
            "rule",
            "passes",
            metric_name(replay),
            "passes wasted",
            f"{unit} lost",
            f"{unit} lost, fixed",
            "untrained",
            "at minimum",
            "at budget",
        ),
        rows=tuple(_rule_cells(replay, rule) for rule in replay.rules),
    )


def correlation_table(replay: Replay) -> Table:
    """Return how every distance goes with the deficit, the closest first."""
    rows = [_correlation_cells(one) for one in replay.correlations]
    headings = ("distance", "rank correlation", "lowest level", "levels", "left out")
    used = len(headings) if any(row[-1] for row in rows) else -1
    return Table(
        headings=headings[:used],
        rows=tuple(row[:used] for row in rows),
        text=frozenset({0, 4}),
    )


def course_table(replay: Replay) -> Table:
    """Return when the metric had recovered, level by level."""
    tolerances = {record.name: record.tolerance for record in replay.records}
    return Table(
        headings=(
            "record",
            "level",
            "density",
            "at the end",
            "tolerance",
            "recovered after",
            "right after pruning",
        ),
        rows=tuple(
            (
                course.record,
                str(course.level),
                words.percent(course.density),
                metric(replay, course.end),
                loss(replay, tolerances[course.record]),
                "unknown" if course.recovered is None else words.passes(course.recovered),
                "as good" if course.spared else "",
            )
            for course in replay.courses
        ),
        text=frozenset({0, 6}),
    )


def _rule_cells(replay: Replay, rule: ReplayedRule) -> tuple[str, ...]:
    return (
        rule.label,
        words.passes(rule.passes),
        metric(replay, rule.main),
        number(rule.wasted),
        loss(replay, rule.lost, unit=False),
        loss(replay, rule.lost_by_fixed, unit=False),
        *(f"{100 * share:.0f} %" for share in (rule.untrained, rule.at_minimum, rule.at_budget)),
    )


def _correlation_cells(one: Correlation) -> tuple[str, ...]:
    reasons = {"constant": one.constant, "too few readings": one.short}
    left_out = [f"{count} {why}" for why, count in reasons.items() if count]
    if one.not_finite:
        left_out.append(f"{words.plural(one.not_finite, 'reading')} not finite")
    return (one.name, number(one.mean), number(one.lowest), str(one.levels), ", ".join(left_out))


def _rule_numbers(rule: ReplayedRule) -> dict[str, Any]:
    return {
        "levels": len(rule.levels),
        "passes": rule.passes,
        "metric": rule.main,
        "regret_passes": rule.wasted,
        "regret_metric": rule.lost,
        "regret_metric_of_fixed_budget": rule.lost_by_fixed,
        "untrained": rule.untrained,
        "at_minimum": rule.at_minimum,
        "at_budget": rule.at_budget,
        "not_finite": rule.not_finite,
        "refused": rule.refused,
    }
