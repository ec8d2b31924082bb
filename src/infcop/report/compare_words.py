"""A comparison in sentences, and its numbers as people read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from infcop.core.study import Estimate, StudyCell, StudyResults
from infcop.report import words

__all__ = [
    "dense_value",
    "density_name",
    "difference",
    "findings",
    "label_of",
    "main_name",
    "main_value",
    "notices",
    "others",
    "place_name",
    "ratio",
    "scope",
]

_NEAR = 0.01
"""Part of a density by which what is kept may miss it without a word."""


def main_name(cell: StudyCell) -> str:
    """Return what the main metric is called, and the split it is measured on."""
    return f"{cell.measured_on} {cell.main_metric.replace('_', ' ')}"


def main_value(cell: StudyCell, found: Estimate) -> str:
    """Return a value of the main metric with half its interval: accuracies in percent."""
    if words.is_share(cell):
        return f"{_spread(found, 100, '.2f')} %"
    return _spread(found, 1, ".3f")


def dense_value(cells: Iterable[StudyCell]) -> str:
    """Return the main metric of the dense networks, of the method that had most of them."""
    known = [cell for cell in cells if cell.dense is not None]
    if not known:
        return "no dense network was trained to the end"
    cell = max(known, key=lambda one: one.seeds)
    assert cell.dense is not None
    return f"dense network {main_value(cell, cell.dense)}"


def density_name(density: float) -> str:
    """Return a density as it was asked for.

    Example:
        >>> density_name(0.2097)
        '20.97 %'
    """
    return f"{100 * density:g} %"


def difference(cell: StudyCell) -> str:
    """Return the difference to the baseline, accuracies in points; nothing for the baseline."""
    if cell.difference is None:
        return ""
    if words.is_share(cell):
        return f"{_spread(cell.difference, 100, '+.2f')} points"
    return _spread(cell.difference, 1, "+.3f")


def ratio(found: Estimate | None, *, interval: bool = True) -> str:
    """Return a ratio, with half its interval where that is asked for and known.

    Example:
        >>> ratio(Estimate(mean=0.25, low=0.2, high=0.3)), ratio(None)
        ('0.25 ± 0.05', '')
    """
    if found is None:
        return ""
    return _spread(found if interval else Estimate(mean=found.mean), 1, ".2f")


def label_of(results: StudyResults, cell: StudyCell) -> str:
    """Return the method, and how many seeds it has where some are missing."""
    wanted = len(results.config.seeds)
    return (
        cell.method if cell.seeds == wanted else f"{cell.method} ({cell.seeds} of {wanted} seeds)"
    )


def place_name(cell: StudyCell) -> str:
    """Return setting and density of a cell."""
    return f"{cell.setting}, {density_name(cell.density)} of the weights kept"


def others(results: StudyResults) -> list[str]:
    """Return the labels of all methods but the baseline."""
    return [method for method in results.config.methods if method != results.config.baseline]


def scope(results: StudyResults) -> str:
    """Return what was compared, and how much of it is there."""
    config = results.config
    made = f"{results.finished} of {words.plural(results.runs, 'run')} finished"
    densities = len(config.densities)
    return (
        f"{words.plural(len(config.methods), 'method')} on "
        f"{words.plural(len(config.settings), 'setting')} at "
        f"{densities} densit{'y' if densities == 1 else 'ies'} with "
        f"{words.plural(len(config.seeds), 'seed')}, paired by seed; {made}"
    )


def findings(results: StudyResults) -> list[str]:
    """Return what the data show, two sentences for each method, then who is on the Pareto line."""
    if not others(results):
        return [
            f"{results.config.baseline} is the only method: there is nothing to compare it with."
        ]
    told = [_against_baseline(results, method) for method in others(results)]
    return [*told, *_pareto(results)]


def notices(results: StudyResults) -> list[str]:
    """Return what a reader must know before believing the findings."""
    told = []
    if len(results.config.seeds) == 1:
        told.append("There is one seed, so there are no intervals: any difference may be chance.")
    if results.failures:
        failed = words.plural(len(results.failures), "failure")
        told.append(
            f"{failed}: see the list below. What is missing is left out of all means, and a method "
            "that lacks a seed which others have is not on the Pareto line."
        )
    if results.finished < results.runs and not results.failures:
        told.append("The study is unfinished; the same command goes on with it.")
    return [*told, *_other_densities(results), *_idle_rules(results)]


def _other_densities(results: StudyResults) -> Iterator[str]:
    """Yield what keeps another part of the weights than was asked for, by more than 1 % of it."""
    for cell in results.cells:
        kept = [
            row.kept / row.prunable
            for row in results.rows
            if (row.setting, row.method, row.density) == (cell.setting, cell.method, cell.density)
        ]
        found = fmean(kept) if kept else cell.density
        if abs(found / cell.density - 1) > _NEAR:
            yield (
                f"{cell.method} keeps {100 * found:.3g} % of the weights of {cell.setting} where "
                f"{density_name(cell.density)} was asked for: what it removes goes in groups."
            )


def _spread(found: Estimate, scale: float, form: str) -> str:
    mean = f"{scale * found.mean:{form}}"
    if found.half_width is None:
        return mean
    half = f"{scale * found.half_width:{form.replace('+', '')}}"
    return f"{mean} ± {half}" if float(half) else mean


def _against_baseline(results: StudyResults, method: str) -> str:
    baseline = results.config.baseline
    cells = [c for c in results.cells if c.method == method and c.difference is not None]
    if not cells:
        return f"{method} can't be compared yet: no seed is finished for it and for {baseline}."
    metric, moved = _metric_name(cells), _moved(cells)
    costs = [c.cost_vs_baseline.mean for c in cells if c.cost_vs_baseline is not None]
    cost = f"{method} costs {_range(costs, '.2f')} times what {baseline} costs."
    if len(results.config.seeds) == 1:
        return f"{cost} Its {metric} differs by {moved}."
    counts = Counter(_verdict(cell) for cell in cells)
    shown = [
        f"{verdict} in {counts[verdict]}" for verdict in ("better", "worse") if counts[verdict]
    ]
    if not shown:
        return f"{cost} No difference in {metric} is shown in {_of(len(cells))} ({moved})."
    return f"{cost} Its {metric} is {' and '.join(shown)} of {_of(len(cells))} ({moved})."


def _of(count: int) -> str:
    return words.plural(count, "comparison")


def _verdict(cell: StudyCell) -> str:
    """Say what the interval of the difference shows: better, worse, or nothing."""
    found, sign = cell.difference, 1 if cell.higher_is_better else -1
    if found is None or found.low is None or found.high is None or found.low <= 0 <= found.high:
        return ""
    return "better" if sign * found.mean > 0 else "worse"


def _moved(cells: Sequence[StudyCell]) -> str:
    moves = [cell.difference.mean for cell in cells if cell.difference is not None]
    if not all(words.is_share(cell) for cell in cells):
        return _range(moves, "+.3f")
    points = [100 * move for move in moves]
    average = "" if len(points) == 1 else f", {fmean(points):+.2f} on average"
    return f"{_range(points, '+.2f')} points{average}"


def _pareto(results: StudyResults) -> Iterator[str]:
    if not results.cells:
        return
    places = len({(cell.setting, cell.density) for cell in results.cells})
    counts = {
        method: sum(cell.pareto for cell in results.cells if cell.method == method)
        for method in results.config.methods
    }
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    told = ", ".join(f"{method} {count}" for method, count in ranked)
    metric = _metric_name(results.cells)
    yield (
        f"On the Pareto line of {metric} against cost, where no other method is both as good and "
        f"as cheap: {told}, of {words.plural(places, 'place')}."
    )


def _idle_rules(results: StudyResults) -> Iterator[str]:
    """Yield methods whose stop rule made no difference on a setting."""
    for method, entry in results.config.methods.items():
        if entry.equal_cost_to is not None or entry.method.stop.rule == "fixed-budget":
            continue
        for setting in results.config.settings:
            cells = [c for c in results.cells if (c.setting, c.method) == (setting, method)]
            for name, told in (
                ("at_minimum", "stopped every level at its minimum"),
                ("untrained", "stopped every level untrained"),
                ("at_cap", "ran every level to its full budget"),
            ):
                if cells and all(getattr(cell, name) >= cell.levels - 1e-9 for cell in cells):
                    yield f"The rule of {method} {told} on {setting}: it decided nothing there."


def _metric_name(cells: Sequence[StudyCell]) -> str:
    names = {cell.main_metric.replace("_", " ") for cell in cells}
    return names.pop() if len(names) == 1 else "main metric"


def _range(values: Sequence[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"
