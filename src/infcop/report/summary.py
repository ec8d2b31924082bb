"""The result in plain text for the terminal, and as values for ``--json``."""

from __future__ import annotations

import math
from typing import Any

from infcop.core.records import LevelRecord, Milestone, RunRecord
from infcop.report import words
from infcop.report.decisions import decision_line, reasons_text, stop_counts
from infcop.report.spending import (
    dense_main,
    dense_trainings,
    main_at_end,
    prunable_entries,
    search_cost,
    spending,
    total_cost,
)

__all__ = ["decision_line", "milestone_line", "summary_dict", "summary_lines"]


def summary_lines(record: RunRecord) -> list[str]:
    """Return the result of a run in about six lines that a newcomer understands."""
    lines = _result_lines(record) if record.outcome else _unfinished_lines(record)
    lines.append(_training_line(record))
    if record.levels:
        lines.append(f"Why levels stopped: {reasons_text(record)}")
    lines += _cost_lines(record)
    if record.warnings:
        lines.append(f"Warnings: {len(record.warnings)}, the first: {record.warnings[0]}")
    return lines


def milestone_line(record: RunRecord, milestone: Milestone) -> str:
    """Say what a sparse network on the way has come to."""
    data = record.data
    name = data.main_metric.replace("_", " ")
    found = words.metric(data, milestone.metrics.get(data.main_metric))
    return (
        f"milestone, density {words.percent(milestone.density)}: trained to the end, {name} {found}"
    )


def summary_dict(record: RunRecord) -> dict[str, Any]:
    """Return the result of a run as values that standard JSON can hold; unknown ones are ``None``.

    Passes count training alone; ``search_cost`` counts measuring and evaluating too, in multiples
    of the dense training.
    """
    outcome, spent, data = record.outcome, spending(record), record.data
    dense = outcome.dense if outcome else {}
    sparse = outcome.sparse if outcome else {}
    full = {"full_budget": spent.full_total, "full_budget_levels": spent.full_levels}
    summary = {
        "finished": outcome is not None,
        "model": record.model.name,
        "data": data.name,
        "method": record.config.get("method", {}).get("name"),
        "seed": record.config.get("seed"),
        "density": _density(record),
        "kept": outcome.kept if outcome else None,
        "size": record.levels[-1].size if record.levels else None,
        "prunable": prunable_entries(record),
        "main_metric": data.main_metric,
        "higher_is_better": data.higher_is_better,
        "measured_on": outcome.measured_on if outcome else None,
        "dense": dense,
        "sparse": sparse,
        "change": _difference(dense.get(data.main_metric), sparse.get(data.main_metric)),
        "passes": {
            "dense": spent.dense,
            "levels": spent.levels,
            "final": spent.final,
            "total": spent.total,
            **full,
        },
        "saved": spent.saved,
        "search_cost": search_cost(record),
        "cost": total_cost(record).model_dump(),
        "seconds": _seconds(record),
        "stop_reasons": stop_counts(record),
        "levels": [_level_dict(level) for level in record.levels],
        "milestones": [_milestone_dict(record, milestone) for milestone in record.milestones],
        "warnings": list(record.warnings),
    }
    return {key: _finite(value) for key, value in summary.items()}


def _result_lines(record: RunRecord) -> list[str]:
    outcome, data = record.outcome, record.data
    assert outcome is not None
    dense, sparse = (part.get(data.main_metric) for part in (outcome.dense, outcome.sparse))
    what = f"{outcome.measured_on} {data.main_metric.replace('_', ' ')}"
    first, change = "Dense network: none was trained to the end", f" {what}"
    if outcome.dense:
        first = f"Dense network: {words.metric(data, dense)} {what}"
        change = f" ({words.change(data, dense, sparse)})"
    return [
        first,
        f"Sparse network: {words.percent(outcome.density)} of {words.count(outcome.prunable)} "
        f"weights kept{_size_words(record)}, {words.metric(data, sparse)}{change}",
    ]


def _size_words(record: RunRecord) -> str:
    """Say what is left of the multiply-adds or of the time, where the density is one of these."""
    size = record.levels[-1].size if record.levels else None
    if size is None:
        return ""
    timed = record.config.get("density_in") == "latency"
    return f" and {words.percent(size)} of the {'time' if timed else 'multiply-adds'}"


def _unfinished_lines(record: RunRecord) -> list[str]:
    name = record.data.main_metric.replace("_", " ")
    lines = ["Unfinished: the run was interrupted or is still going on; run it again to go on"]
    dense = dense_main(record)
    if dense is not None:
        lines.append(f"Dense network: {words.metric(record.data, dense)} held-out {name}")
    if record.levels:
        lines.append(f"Weights kept so far: {words.percent(record.levels[-1].density)}")
    return lines


def _training_line(record: RunRecord) -> str:
    spent = spending(record)
    parts = [f"{words.passes(spent.dense)} dense"]
    if record.levels:
        levels = words.plural(len(record.levels), "level")
        parts.append(f"{words.passes(spent.levels)} in {levels}")
    if record.final:
        parts.append(f"{words.passes(spent.final)} final")
    line = f"Training: {words.plural(spent.total, 'pass')} ({', '.join(parts)})"
    if spent.full_total is None:
        return line
    return f"{line}; the full budget would have been {words.passes(spent.full_total)}"


def _cost_lines(record: RunRecord) -> list[str]:
    cost = search_cost(record)
    if cost is None:
        return []
    so_far = "" if record.outcome else " so far"
    time = words.duration(_seconds(record))
    return [
        f"Whole search{so_far}: {cost:,.1f} times the work of training the dense network, "
        f"measuring included; {time}"
    ]


def _seconds(record: RunRecord) -> float:
    if record.outcome:
        return record.outcome.seconds
    levels = sum(level.seconds for level in record.levels)
    return record.dense.seconds + levels + (record.final.seconds if record.final else 0.0)


def _density(record: RunRecord) -> float:
    if record.outcome:
        return record.outcome.density
    return record.levels[-1].density if record.levels else 1.0


def _milestone_dict(record: RunRecord, milestone: Milestone) -> dict[str, Any]:
    return {
        "level": milestone.level,
        "density": milestone.density,
        "kept": milestone.kept,
        "sparse": dict(milestone.metrics),
        "search_cost": dense_trainings(record, milestone.cost) if milestone.metrics else None,
    }


def _level_dict(level: LevelRecord) -> dict[str, Any]:
    return {
        "level": level.level,
        "density": level.density,
        "passes": level.passes,
        "held_out": main_at_end(level),
        "reason": level.stopped_by.reason.value if level.stopped_by else None,
        "evidence": dict(level.stopped_by.evidence) if level.stopped_by else {},
    }


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _finite(value: Any) -> Any:
    """Replace numbers that standard JSON can't hold by ``None``, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value
