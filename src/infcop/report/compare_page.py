"""The page of a comparison: one HTML file that needs no network."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from infcop.core.study import StudyResults
from infcop.report import words
from infcop.report.compare_figure import legend, pareto_panels
from infcop.report.compare_tables import (
    failure_table,
    level_endings_table,
    numbers_table,
    warning_table,
)
from infcop.report.compare_words import findings, notices, others, scope
from infcop.report.drawing import to_draw
from infcop.report.tables import pairs_table
from infcop.report.writing import template, write_page

__all__ = ["render_comparison", "write_comparison"]


def render_comparison(results: StudyResults, title: str) -> str:
    """Return the page of a comparison, finished or not.

    As with the page of a run, everything is inside, the page forbids itself any request, and every
    text of the results is escaped.
    """
    settings = [_setting(results, label) for label in results.config.settings]
    methods = {
        label: entry.model_dump(mode="json", exclude_none=True)
        for label, entry in results.config.methods.items()
    }
    page: str = template("compare.html.j2").render(
        title=title,
        scope=scope(results),
        baseline=results.config.baseline,
        findings=findings(results),
        notices=notices(results),
        numbers=_numbers(results),
        legend=legend(results),
        settings=settings,
        methods=_yaml(methods),
        seeds=", ".join(map(str, results.config.seeds)),
        failures=failure_table(results),
        warnings=warning_table(results),
        versions=pairs_table(results.versions, "package"),
        hardware=pairs_table(results.hardware, "hardware"),
        plots=[
            to_draw(panel.key, panel.plot) for setting in settings for panel in setting["panels"]
        ],
        # The library's own text, which holds no closing script tag.
        plotly=Markup(get_plotlyjs()),
    )
    return page


def write_comparison(results: StudyResults, path: str | os.PathLike[str]) -> Path:
    """Write the page of a comparison, titled like its folder; a reader never sees half of one.

    Raises:
        RunFolderError: The file can't be written; what was there before is left as it was.
    """
    target = Path(path)
    write_page(target, render_comparison(results, target.resolve().parent.name))
    return target


def _setting(results: StudyResults, label: str) -> dict[str, Any]:
    """Return what the page shows of a setting."""
    setting = results.config.settings[label]
    rows = [row for row in results.rows if row.setting == label]
    examples = f", {words.count(rows[0].train_examples)} training examples" if rows else ""
    return {
        "label": label,
        "subject": f"{setting.model.name} on {setting.data.name}{examples}",
        "panels": pareto_panels(results, label),
        "numbers": numbers_table(results, label),
        "endings": level_endings_table(results, label),
        "recipe": _yaml(setting.model_dump(mode="json")),
    }


def _numbers(results: StudyResults) -> list[tuple[str, str, str]]:
    """Return for each method its mean cost against the baseline, and what its metric did."""
    told = []
    for method in others(results):
        cells = [cell for cell in results.cells if cell.method == method]
        costs = [c.cost_vs_baseline.mean for c in cells if c.cost_vs_baseline is not None]
        moves = [c.difference.mean for c in cells if c.difference is not None]
        if costs and moves:
            share = all(words.is_share(cell) for cell in cells)
            beside = f"{100 * fmean(moves):+.2f} points on average" if share else ""
            cost = f"{fmean(costs):.2f} \N{MULTIPLICATION SIGN}"
            told.append((f"the cost of {results.config.baseline}: {method}", cost, beside))
    return told


def _yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
