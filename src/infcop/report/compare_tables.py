"""The tables of a comparison, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from infcop.core.study import StudyCell, StudyFailure, StudyResults
from infcop.report import words
from infcop.report.compare_words import (
    dense_value,
    density_name,
    difference,
    findings,
    label_of,
    main_name,
    main_value,
    notices,
    place_name,
    ratio,
    scope,
)
from infcop.report.tables import Table, plain_lines

__all__ = [
    "comparison_lines",
    "failure_table",
    "level_endings_table",
    "numbers_table",
    "warning_table",
]


def comparison_lines(results: StudyResults) -> Iterator[str]:
    """Yield the comparison as lines of plain text: a table for each place, then what they say."""
    baseline = results.config.baseline
    for cells in _places(results.cells):
        yield f"{place_name(cells[0])}; {dense_value(cells)}"
        headings = (
            "method",
            main_name(cells[0]),
            f"minus {baseline}",
            "cost/dense",
            f"cost/{baseline}",
            "training",
            "measuring",
            f"time/{baseline}",
            "Pareto",
        )
        rows = tuple(_plain_row(results, cell) for cell in cells)
        yield from plain_lines(Table(headings=headings, rows=rows))
        yield ""
    yield from findings(results)
    yield from notices(results)
    for failure in results.failures:
        yield f"failed: {', '.join(_failure_cells(failure))}"
    yield scope(results)


def numbers_table(results: StudyResults, setting: str) -> Table:
    """Return every method at every density of a setting."""
    baseline = results.config.baseline
    own = [cell for cell in results.cells if cell.setting == setting]
    rows = tuple(
        ("" if place else density_name(cell.density), *_page_row(results, cell))
        for cells in _places(own)
        for place, cell in enumerate(cells)
    )
    return Table(
        headings=(
            "weights kept",
            "method",
            main_name(own[0]) if own else "main metric",
            f"minus {baseline}",
            "cost / dense training",
            f"cost / {baseline}",
            "training passes",
            "measuring passes",
            "evaluating passes",
            f"time / {baseline}",
            "on the Pareto line",
            f"minus {baseline}, resampled",
        ),
        rows=rows,
        text=frozenset({0, 1}),
    )


def level_endings_table(results: StudyResults, setting: str) -> Table:
    """Return how the levels of every method ended, on average over the seeds."""
    return Table(
        headings=(
            "weights kept",
            "method",
            "levels",
            "untrained",
            "at the minimum",
            "full budget",
            "cost / method to equal",
            "why levels stopped, all seeds",
        ),
        rows=tuple(
            (
                density_name(cell.density),
                label_of(results, cell),
                *(f"{n:.1f}" for n in (cell.levels, cell.untrained, cell.at_minimum, cell.at_cap)),
                ratio(cell.levels_cost_vs_target),
                ", ".join(f"{reason} {count}" for reason, count in cell.stop_reasons.items()),
            )
            for cell in results.cells
            if cell.setting == setting
        ),
        text=frozenset({0, 1, 7}),
    )


def failure_table(results: StudyResults) -> Table:
    """Return what failed, and why."""
    return Table(
        headings=("setting", "method", "seed", "weights kept", "what happened"),
        rows=tuple(_failure_cells(failure) for failure in results.failures),
        text=frozenset({0, 1, 2, 3, 4}),
    )


def warning_table(results: StudyResults) -> Table:
    """Return the warnings of all runs, each once for a method on a setting."""
    told = dict.fromkeys(
        (row.setting, row.method, warning) for row in results.rows for warning in row.warnings
    )
    return Table(
        headings=("setting", "method", "warning"), rows=tuple(told), text=frozenset({0, 1, 2})
    )


def _places(cells: Sequence[StudyCell]) -> Iterator[list[StudyCell]]:
    for place in dict.fromkeys((cell.setting, cell.density) for cell in cells):
        yield [cell for cell in cells if (cell.setting, cell.density) == place]


def _plain_row(results: StudyResults, cell: StudyCell) -> tuple[str, ...]:
    return (
        label_of(results, cell),
        main_value(cell, cell.main),
        difference(cell),
        ratio(cell.cost_vs_dense, interval=False),
        ratio(cell.cost_vs_baseline, interval=False),
        words.passes(cell.training_passes),
        words.passes(cell.measuring_passes),
        ratio(cell.seconds_vs_baseline, interval=False),
        "yes" if cell.pareto else "",
    )


def _page_row(results: StudyResults, cell: StudyCell) -> tuple[str, ...]:
    return (
        label_of(results, cell),
        main_value(cell, cell.main),
        difference(cell),
        ratio(cell.cost_vs_dense),
        ratio(cell.cost_vs_baseline),
        words.passes(cell.training_passes),
        words.passes(cell.measuring_passes),
        words.passes(cell.evaluating_passes),
        ratio(cell.seconds_vs_baseline),
        "yes" if cell.pareto else "",
        _bootstrap(cell),
    )


def _bootstrap(cell: StudyCell) -> str:
    if cell.bootstrap is None:
        return ""
    scale, form = (100, "+.2f") if words.is_share(cell) else (1, "+.3f")
    low, high = (f"{scale * end:{form}}" for end in cell.bootstrap)
    return f"{low} to {high}"


def _failure_cells(failure: StudyFailure) -> tuple[str, ...]:
    density = "all" if failure.density is None else density_name(failure.density)
    return failure.setting, failure.method, f"seed {failure.seed}", density, failure.message
