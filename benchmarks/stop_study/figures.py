"""The figures of the stop study, from the rows of its comparisons."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from infcop.core.study import Estimate, StudyCell, StudyResults, StudyRow
from infcop.study.statistics import estimate

__all__ = ["figures", "replay_table", "tables"]

BASELINE, FIXED = "lth", "fixed"
MODES = ("infcop", "infcop-rewind")
MIDDLE = 0.1074
"""The density at which the best mode is judged: the cheapest that is accurate enough there."""
ALLOWED = 0.2
"""Points below the baseline."""


def figures(main: StudyResults | None, apart: StudyResults | None) -> dict[str, Any]:
    """Return the figures per setting and density, and those over all settings."""
    found: dict[str, Any] = {}
    for study, results in (("", main), ("apart: ", apart)):
        if results is None:
            continue
        found |= {
            f"{study}{cell.setting} at {cell.density:g}, {cell.method}": _of_cell(results, cell)
            for cell in results.cells
            if cell.method in MODES
        }
        found |= {f"{study}{key}": value for key, value in _overall(results).items()}
    return found


def _of_cell(results: StudyResults, cell: StudyCell) -> dict[str, Any]:
    return {
        "cost_vs_dense": round(cell.cost_vs_dense.mean, 3),
        "cost_vs_lth": _rounded(cell.cost_vs_baseline),
        "accuracy_minus_lth": _points(cell.difference),
        "accuracy_minus_fixed_budget": _points(_minus(results, cell, FIXED)),
        "seeds": cell.seeds,
    }


def _overall(results: StudyResults) -> dict[str, Any]:
    cells = [cell for cell in results.cells if cell.method in MODES]
    paired = [c for c in cells if c.cost_vs_baseline is not None and c.difference is not None]
    found: dict[str, Any] = {}
    for mode in MODES:
        own = [c for c in paired if c.method == mode]
        if not own:
            continue
        middle = [c for c in own if abs(c.density - MIDDLE) < 1e-3]
        found |= {
            f"worst_cost_vs_lth, {mode}": round(max(c.cost_vs_baseline.mean for c in own), 3),  # type: ignore[union-attr]
            f"worst_accuracy_minus_lth_at_0.107, {mode}": round(
                100 * min(c.difference.mean for c in middle),  # type: ignore[union-attr]
                2,
            ),
            f"worst_cost_vs_dense_at_0.107, {mode}": round(
                max(c.cost_vs_dense.mean for c in middle), 3
            ),
            f"mean_accuracy_minus_lth, {mode}": round(
                100 * fmean(c.difference.mean for c in own),  # type: ignore[union-attr]
                2,
            ),
        }
    if found:
        good = [mode for mode in MODES if _is_good(found, mode)] or list(MODES)
        best = min(good, key=lambda mode: found[f"worst_cost_vs_dense_at_0.107, {mode}"])
        rewinding = MODES[1]
        found |= {
            "worst_cost_vs_lth": found.get(f"worst_cost_vs_lth, {rewinding}"),
            "worst_accuracy_minus_lth_at_0.107": found.get(
                f"worst_accuracy_minus_lth_at_0.107, {rewinding}"
            ),
            "best_mode": best,
            "best_mode_cost_vs_dense_at_0.107": found[f"worst_cost_vs_dense_at_0.107, {best}"],
            "accuracy_minus_fixed_budget, infcop, all settings and densities": _points(
                _pooled(results)
            ),
        }
    return found


def _is_good(found: dict[str, Any], mode: str) -> bool:
    return found.get(f"worst_accuracy_minus_lth_at_0.107, {mode}", -100.0) >= -ALLOWED


def _pooled(results: StudyResults) -> Estimate | None:
    """Return infcop minus the fixed budget: each seed's mean over settings and densities."""
    by_seed: dict[int, list[float]] = {}
    for row, other in _pairs(results, MODES[0], FIXED):
        by_seed.setdefault(row.seed, []).append(row.main - other.main)
    return estimate([fmean(values) for values in by_seed.values()]) if by_seed else None


def _minus(results: StudyResults, cell: StudyCell, other: str) -> Estimate | None:
    differences = [
        row.main - beside.main
        for row, beside in _pairs(results, cell.method, other)
        if (row.setting, row.density) == (cell.setting, cell.density)
    ]
    return estimate(differences) if differences else None


def _pairs(results: StudyResults, method: str, other: str) -> list[tuple[StudyRow, StudyRow]]:
    place = {(r.setting, r.density, r.seed): r for r in results.rows if r.method == other}
    return [
        (row, place[key])
        for row in results.rows
        if row.method == method and (key := (row.setting, row.density, row.seed)) in place
    ]


PLACES = {
    "initialisation": "rewinding to the initialisation",
    "epoch": "rewinding to an early pass",
    "learning-rate": "rewinding the learning rate only",
    "none": "no rewinding",
}


def tables(results: StudyResults) -> str:
    """Return a table in Markdown for each setting: methods down, densities across.

    A study whose methods rewind to more than two places gets one for each place, with the
    baseline on top.
    """
    places: dict[str, list[str]] = {}
    for label, entry in results.config.methods.items():
        places.setdefault(entry.method.rewind.to, []).append(label)
    if len(places) <= 2:
        whole = list(results.config.methods)
        return "\n\n".join(_table(results, s, whole) for s in results.config.settings)
    baseline = results.config.baseline
    return "\n\n".join(
        _table(results, setting, list(dict.fromkeys((baseline, *places[to]))), f", {words}")
        for setting in results.config.settings
        for to, words in PLACES.items()
        if any(c.setting == setting and c.method in places.get(to, ()) for c in results.cells)
    )


def _table(results: StudyResults, setting: str, methods: list[str], what: str = "") -> str:
    cells = [c for c in results.cells if c.setting == setting and c.method in methods]
    densities = sorted({cell.density for cell in cells}, reverse=True)
    heads = [f"{100 * density:.3g} %" for density in densities]
    seeds = max((cell.seeds for cell in cells), default=0)
    lines = [
        f"| {setting}, {seeds} seeds{what} | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
    ]
    for method in dict.fromkeys(cell.method for cell in cells):
        own = {cell.density: cell for cell in cells if cell.method == method}
        shown = [_cell(own.get(density)) for density in densities]
        lines.append(f"| `{method}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def _cell(cell: StudyCell | None) -> str:
    """Return accuracy, difference to the baseline and cost, for instance 86.5 (-0.1 ± 0.4) 1.8x."""
    if cell is None:
        return "-"
    change = ""
    if cell.difference is not None:
        half = cell.difference.half_width
        spread = "" if half is None else f" ± {100 * half:.1f}"
        change = f" ({100 * cell.difference.mean:+.1f}{spread})"
    return f"{100 * cell.main.mean:.1f}{change} {cell.cost_vs_dense.mean:.2f}x"


def _points(value: Estimate | None) -> list[float] | None:
    """Return mean, low and high in percentage points."""
    if value is None:
        return None
    return [round(100 * v, 2) for v in (value.mean, value.low, value.high) if v is not None]


def _rounded(value: Estimate | None) -> float | None:
    return None if value is None else round(value.mean, 4)


REPLAYED = (
    "passes left",
    "frobenius to pruned",
    "frobenius to trained",
    "frobenius to dense",
    "mask change",
    "gradient.norm to trained",
    "information.cka to trained",
    "information.absolute to trained",
    "information.signed to dense",
)
"""The distances whose rank correlations the page shows; the first is a mere clock."""


def replay_table(replays: dict[str, Any]) -> str:
    """Return mean rank correlations within levels, distances down and records across."""
    lines = [
        f"| distance | {' | '.join(replays)} | mean |",
        f"| --- |{' --- |' * len(replays)} --- |",
    ]
    for name in REPLAYED:
        found = [replay["correlations"][name]["mean"] for replay in replays.values()]
        shown = " | ".join(f"{value:.2f}" for value in found)
        lines.append(f"| {name} | {shown} | {fmean(found):.2f} |")
    return "\n".join(lines)
