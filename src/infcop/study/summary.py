"""What the rows of a study say together: a cell per setting, density and method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from infcop.core.compare import CompareConfig
from infcop.core.study import Estimate, StudyCell, StudyRow
from infcop.study.statistics import bootstrap_interval, estimate

__all__ = ["summarise"]


def summarise(config: CompareConfig, rows: Iterable[StudyRow]) -> tuple[StudyCell, ...]:
    """Return what is known of every method at every density of every setting.

    Differences and ratios are taken seed by seed, over the seeds that both have, before they are
    averaged.
    """
    rows = list(rows)
    return tuple(
        cell
        for setting in config.settings
        for density in config.densities
        for cell in _place(
            config, [r for r in rows if (r.setting, r.density) == (setting, density)]
        )
    )


def _place(config: CompareConfig, rows: Sequence[StudyRow]) -> Iterator[StudyCell]:
    """Yield the cells of all methods at one density of one setting."""
    by_method = {
        method: found
        for method in config.methods
        if (found := [row for row in rows if row.method == method])
    }
    baseline = by_method.get(config.baseline, [])
    dense = {row.seed: row.dense[row.main_metric] for row in rows if row.dense}
    cells = []
    for method, own in by_method.items():
        target = by_method.get(config.methods[method].equal_cost_to or "", [])
        cells.append(_cell(own, [] if method == config.baseline else baseline, target, dense))
    # Means over other seeds can't be ranked among these.
    whole = [cell for cell in cells if cell.seeds == max(one.seeds for one in cells)]
    for cell in cells:
        best = cell in whole and not any(_dominates(other, cell) for other in whole)
        yield cell.model_copy(update={"pareto": best})


def _cell(
    rows: Sequence[StudyRow],
    baseline: Sequence[StudyRow],
    target: Sequence[StudyRow],
    dense: Mapping[int, float],
) -> StudyCell:
    """Return what one method came to; of the dense networks, whichever methods trained them."""
    first = rows[0]
    differences = _paired(rows, baseline, lambda own, other: own.main - other.main)
    return StudyCell(
        setting=first.setting,
        density=first.density,
        method=first.method,
        seeds=len(rows),
        main_metric=first.main_metric,
        higher_is_better=first.higher_is_better,
        measured_on=first.measured_on,
        main=estimate([row.main for row in rows]),
        dense=_estimated([dense[row.seed] for row in rows if row.seed in dense]),
        difference=_estimated(differences),
        bootstrap=bootstrap_interval(differences),
        cost_vs_dense=estimate([row.cost_vs_dense for row in rows]),
        cost_vs_baseline=_estimated(_paired(rows, baseline, _cost_ratio)),
        levels_cost_vs_target=_estimated(_levels_ratios(rows, target)),
        seconds_vs_baseline=_estimated(_paired(rows, baseline, _seconds_ratio)),
        training_passes=fmean(row.training_passes for row in rows),
        measuring_passes=fmean(row.measuring_passes for row in rows),
        evaluating_passes=fmean(row.evaluating_passes for row in rows),
        levels=fmean(row.levels for row in rows),
        untrained=fmean(row.untrained for row in rows),
        at_minimum=fmean(row.at_minimum for row in rows),
        at_cap=fmean(row.at_cap for row in rows),
        stop_reasons=dict(sorted(sum((Counter(r.stop_reasons) for r in rows), Counter()).items())),
        pareto=False,
    )


def _paired(
    rows: Sequence[StudyRow],
    others: Sequence[StudyRow],
    compared: Callable[[StudyRow, StudyRow], float],
) -> list[float]:
    """Return a number for each seed that both have."""
    by_seed = {other.seed: other for other in others}
    return [compared(row, by_seed[row.seed]) for row in rows if row.seed in by_seed]


def _estimated(values: Sequence[float]) -> Estimate | None:
    return estimate(values) if values else None


def _cost_ratio(own: StudyRow, other: StudyRow) -> float:
    return own.cost.total / other.cost.total


def _seconds_ratio(own: StudyRow, other: StudyRow) -> float:
    return own.seconds / other.seconds


def _levels_ratios(rows: Sequence[StudyRow], target: Sequence[StudyRow]) -> list[float]:
    if not target:
        return []
    equal = fmean(row.cost.levels for row in target)
    return [row.cost.levels / equal for row in rows]


def _dominates(one: StudyCell, other: StudyCell) -> bool:
    sign = 1 if one.higher_is_better else -1
    better = sign * (one.main.mean - other.main.mean)
    cheaper = other.cost_vs_dense.mean - one.cost_vs_dense.mean
    return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)
