"""The figures of the families, from the rows of their comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from infcop.core.study import Estimate, StudyResults
from infcop.study.statistics import estimate

__all__ = ["figures", "measured", "pooled", "pooled_table"]


def figures(studies: Mapping[str, StudyResults]) -> dict[str, Any]:
    """Return accuracies in %, differences in points with their intervals, and costs."""
    found: dict[str, Any] = {}
    for study, results in studies.items():
        baseline = results.config.baseline
        for cell in results.cells:
            found[f"{study} at {cell.density:g}, {cell.method}"] = {
                "accuracy": round(100 * cell.main.mean, 2),
                f"minus_{baseline}": _points(cell.difference),
                "cost_vs_dense": round(cell.cost_vs_dense.mean, 3),
                "seeds": cell.seeds,
            }
        for method in results.config.methods:
            if method != baseline:
                found[f"{study}, {method} minus {baseline}"] = _points(pooled(results, method))
    return found


def pooled(results: StudyResults, method: str) -> Estimate | None:
    """Return the difference to the baseline: each seed's mean over settings and densities.

    Only over what both have; ``None`` where that is nothing.
    """
    place = {
        (row.setting, row.density, row.seed): row.main
        for row in results.rows
        if row.method == results.config.baseline
    }
    by_seed: dict[int, list[float]] = {}
    for row in results.rows:
        key = (row.setting, row.density, row.seed)
        if row.method == method and key in place:
            by_seed.setdefault(row.seed, []).append(row.main - place[key])
    return estimate([fmean(values) for values in by_seed.values()]) if by_seed else None


def pooled_table(studies: Sequence[StudyResults]) -> str:
    """Return the differences to a common baseline as a table: methods down, comparisons across."""
    config = studies[0].config
    heads = [", ".join(results.config.settings) for results in studies]
    lines = [
        f"| minus `{config.baseline}`, in points | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
    ]
    for method in config.methods:
        if method != config.baseline:
            shown = [_shown(pooled(results, method)) for results in studies]
            lines.append(f"| `{method}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def measured(studies: Sequence[StudyResults], method: str) -> str:
    """Return a sentence on one method: differences to the baseline, and costs."""
    config = studies[0].config
    parts = []
    for results in (one for one in studies if method in one.config.methods):
        own = [cell for cell in results.cells if cell.method == method]
        cost = fmean(cell.cost_vs_dense.mean for cell in own)
        setting = ", ".join(results.config.settings)
        shown = _shown(pooled(results, method))
        parts.append(f"{shown} points on `{setting}` ({own[0].seeds} seeds, {cost:.2f}x)")
    return f"against `{config.baseline}`, mean over densities: {' and '.join(parts)}"


def _shown(value: Estimate | None) -> str:
    if value is None:
        return "-"
    half = value.half_width
    return f"{100 * value.mean:+.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def _points(value: Estimate | None) -> list[float] | None:
    """Return mean, low and high in percentage points."""
    if value is None:
        return None
    return [round(100 * v, 2) for v in (value.mean, value.low, value.high) if v is not None]
