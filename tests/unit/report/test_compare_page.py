from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from infcop.core.study import StudyFailure, StudyResults
from infcop.errors import RunFolderError
from infcop.report.compare_figure import legend, pareto_panels
from infcop.report.compare_page import render_comparison, write_comparison
from infcop.report.compare_tables import comparison_lines, level_endings_table, numbers_table
from infcop.report.compare_words import findings, notices, scope
from infcop.study.summary import summarise
from tests.reference.pages import Page
from tests.reference.records import HOSTILE
from tests.reference.studies import comparison, make_study

FAILED = StudyFailure(setting="digits", method="shock", seed=1, message="the loss became infinite")


def study_with(results: StudyResults, **row_changes: Any) -> StudyResults:
    """Return results with changed rows, and what follows from them."""
    rows = tuple(row.model_copy(update=row_changes) for row in results.rows)
    return results.model_copy(update={"rows": rows, "cells": summarise(results.config, rows)})


def test_the_headline_says_what_the_data_show() -> None:
    results = make_study()
    told = findings(results)
    cells = [cell for cell in results.cells if cell.method == "shock"]
    costs = sorted(cell.cost_vs_baseline.mean for cell in cells if cell.cost_vs_baseline)
    assert told[0].startswith(
        f"shock costs {costs[0]:.2f} to {costs[-1]:.2f} times what lth costs. "
    )
    assert "2 comparisons (" in told[0]
    assert "points" in told[0]
    assert told[1].startswith("On the Pareto line of accuracy against cost")
    assert scope(results) == (
        "2 methods on 1 setting at 2 densities with 3 seeds, paired by seed; 6 of 6 runs finished"
    )
    assert notices(results) == []


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (0.1, "is better in 2 of 2 comparisons"),
        (-0.1, "is worse in 2 of 2 comparisons"),
        (0.0, "No difference in accuracy is shown in 2 comparisons"),
    ],
)
def test_a_difference_is_shown_where_its_interval_leaves_out_zero(gain: float, words: str) -> None:
    results = make_study()
    rows = tuple(
        row.model_copy(update={"sparse": {"accuracy": 0.8 + 0.001 * row.seed + own}})
        for row in results.rows
        for own in [gain + (0.001 if row.seed == 2 else 0) if row.method == "shock" else 0.0]
    )
    results = results.model_copy(update={"cells": summarise(results.config, rows)})
    assert words in findings(results)[0]


def test_one_seed_shows_nothing() -> None:
    results = make_study(seeds=[0])
    assert "any difference may be chance" in notices(results)[0]
    assert "differs by" in findings(results)[0]
    assert "±" not in "\n".join(comparison_lines(results))


def test_one_method_has_nothing_to_be_compared_with() -> None:
    results = make_study(methods={"lth": {"method": "lth"}})
    assert findings(results) == ["lth is the only method: there is nothing to compare it with."]
    assert "lth is the only method" in Page(render_comparison(results, "x")).text


def test_failures_are_told() -> None:
    results = make_study((FAILED,))
    lines = list(comparison_lines(results))
    assert "failed: digits, shock, seed 1, all, the loss became infinite" in lines
    assert any(line.startswith("shock (2 of 3 seeds)") for line in lines)
    assert "1 failure: see the list below" in notices(results)[0]
    text = Page(render_comparison(results, "x")).text
    assert "Failures" in text
    assert "the loss became infinite" in text


def test_an_unfinished_study_says_so() -> None:
    results = make_study().model_copy(update={"finished": 5})
    assert notices(results) == ["The study is unfinished; the same command goes on with it."]
    nothing = results.model_copy(update={"rows": (), "cells": (), "finished": 0})
    assert "shock can't be compared yet" in findings(nothing)[0]
    page = Page(render_comparison(nothing, "x"))
    assert "No run of this setting is finished." in page.text
    assert page.figures == []
    assert list(comparison_lines(nothing))


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"untrained": 0, "at_minimum": 7, "at_cap": 0}, "stopped every level at its minimum"),
        ({"untrained": 7, "at_minimum": 0, "at_cap": 0}, "stopped every level untrained"),
        ({"untrained": 0, "at_minimum": 0, "at_cap": 7}, "ran every level to its full budget"),
    ],
)
def test_a_rule_that_decides_nothing_is_pointed_out(counts: dict[str, int], told: str) -> None:
    results = study_with(make_study(), levels=7, **counts)
    assert notices(results) == [f"The rule of shock {told} on digits: it decided nothing there."]


def test_a_density_that_groups_can_not_meet_is_pointed_out() -> None:
    results = make_study()
    rows = tuple(
        row.model_copy(update={"kept": round(0.9 * row.density * row.prunable)})
        if row.method == "shock"
        else row
        for row in results.rows
    )
    results = results.model_copy(update={"rows": rows, "cells": summarise(results.config, rows)})
    told = notices(results)
    assert len(told) == 2
    density = max(row.density for row in rows)
    assert told[0] == (
        f"shock keeps {90 * density:.3g} % of the weights of digits where "
        f"{100 * density:g} % was asked for: what it removes goes in groups."
    )


def test_the_terminal_shows_a_table_for_each_place() -> None:
    results = make_study()
    lines = list(comparison_lines(results))
    heads = [line for line in lines if line.startswith("digits, ")]
    assert [head.partition(" of ")[0] for head in heads] == ["digits, 20 %", "digits, 5 %"]
    heads = "method, test accuracy, minus lth, cost/dense, cost/lth, training, measuring, time/lth"
    assert re.sub(" {2,}", ", ", lines[1]) == f"{heads}, Pareto"
    cell = results.cells[1]
    row = next(line for line in lines if line.startswith("shock"))
    assert f"{100 * cell.main.mean:.2f} ± " in row
    assert cell.difference is not None
    assert f"{100 * cell.difference.mean:+.2f} ± " in row
    assert f"{cell.cost_vs_dense.mean:.2f}" in row.split()


def test_other_metrics_are_plain_numbers() -> None:
    results = study_with(
        make_study(),
        main_metric="loss",
        higher_is_better=False,
        sparse={"loss": 0.25},
        dense={"loss": 0.125},
    )
    text = "\n".join(comparison_lines(results))
    assert "0.250" in text
    assert "0.125" in text
    assert "%" not in text.partition("dense network")[2].partition("\n\n")[0]
    assert "points" not in text


def test_every_setting_has_a_panel_for_each_density() -> None:
    results = make_study(settings={"digits": {}, "more": {}})
    page = Page(render_comparison(results, "first"))
    places = [x for x in page.all("div") if x.get("class") == "plot"]
    assert [x["id"] for x in places] == [f"plot-{figure['key']}" for figure in page.figures]
    assert len(places) == 4
    for place in places:
        assert place["role"] == "img"
        assert "times the dense training" in (place["aria-label"] or "")
    for words in ("first", "How to read this page", "20 % of the weights kept", "Recipe"):
        assert words in page.text


def test_panels_show_means_intervals_and_the_pareto_line() -> None:
    results = make_study()
    panel = pareto_panels(results, "digits")[0]
    line, *points = panel.plot.data
    cells = results.cells[:2]
    for cell, point in zip(cells, points, strict=True):
        assert list(point.x) == [cell.cost_vs_dense.mean]
        assert list(point.y) == [100 * cell.main.mean]
        assert point.error_y.array[0] == pytest.approx(100 * (cell.main.half_width or 0))
        assert point.marker.symbol.endswith("-open") != cell.pareto
    on_line = sorted(cell.cost_vs_dense.mean for cell in cells if cell.pareto)
    assert list(line.x) == on_line
    assert line.line.shape == "hv"


def test_methods_look_different() -> None:
    methods = {f"m{number}": {"method": "lth"} for number in range(30)}
    looks = legend(make_study(methods=methods, baseline="m0"))
    assert len({(entry.colour, entry.symbol) for entry in looks}) == 30


def test_tables_hold_every_method_and_density() -> None:
    results = make_study()
    for table in (numbers_table(results, "digits"), level_endings_table(results, "digits")):
        assert len(table.rows) == 4
        assert {len(row) for row in table.rows} == {len(table.headings)}
    assert [row[0] for row in numbers_table(results, "digits").rows] == ["20 %", "", "5 %", ""]


def test_nothing_is_fetched() -> None:
    page = Page(render_comparison(make_study(), "x"))
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "action", "data", "poster", "href"} & set(attributes)
    policies = [x for x in page.all("meta") if x.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policies[0]["content"] or "")


def test_hostile_texts_stay_text() -> None:
    failure = FAILED.model_copy(update={"message": HOSTILE})
    results = study_with(make_study((failure,)), warnings=(HOSTILE,))
    content = comparison(settings={"digits": {"model": {"name": HOSTILE}}})
    config = make_study(**{"settings": content["settings"]}).config
    page = Page(render_comparison(results.model_copy(update={"config": config}), HOSTILE))
    assert len(page.all("script")) == 3
    assert not page.all("img")
    assert " ".join(page.words).count(HOSTILE) >= 4
    assert "<script" not in json.dumps(page.figures)


def test_the_page_is_written_at_once(tmp_path: Path) -> None:
    target = tmp_path / "first" / "compare.html"
    target.parent.mkdir()
    assert write_comparison(make_study(), target) == target
    assert "<h1>first</h1>" in target.read_text(encoding="utf-8")
    assert os.listdir(target.parent) == ["compare.html"]
    with pytest.raises(RunFolderError, match="can't write"):
        write_comparison(make_study(), tmp_path / "nowhere" / "compare.html")
