from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from infcop.core.records import RunRecord
from infcop.core.replay import Replay
from infcop.errors import RunFolderError
from infcop.report.replay_curves import curve_legend, curve_panels
from infcop.report.replay_figures import loss_figure, stop_figure, stop_panels
from infcop.report.replay_page import render_replay, write_replay
from infcop.report.replay_tables import correlation_table, replay_dict, replay_lines, rule_table
from infcop.report.replay_words import findings, notices, scope
from infcop.study.replay import replay
from tests.reference.pages import Page
from tests.reference.records import HOSTILE
from tests.reference.replays import full_record, level_of

RISES = [0.5, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]
LATE = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9]
RULES: dict[str, Any] = {
    "two": {"stop": {"rule": "fixed-budget", "passes": 2}},
    "near": {"stop": {"rule": "matrix-flow", "epsilon": 0.15}, "min_passes": 1},
    "far": {"stop": {"rule": "matrix-flow", "epsilon": 0.55}, "min_passes": 1},
}


def record(**changes: Any) -> RunRecord:
    """Return a record of three levels: good at once, after four passes, after seven."""
    levels = level_of(1, [0.9] * 8), level_of(2, RISES), level_of(3, LATE)
    return full_record(*levels, **changes)


@pytest.fixture(scope="module")
def few() -> Replay:
    return replay({"a": record()}, RULES)


@pytest.fixture(scope="module")
def many() -> Replay:
    return replay({"a": record(), "b": record()})


def test_the_findings_say_what_the_numbers_show(few: Replay) -> None:
    told = findings(few)
    assert told[0].startswith(
        "At the tolerance of 0.00 points, the cheapest rule is near with 4 passes per level; "
        "a fixed budget of 7"
    )
    assert told[1] == "1 of 2 rules would have lost less than a fixed budget of as many passes."
    assert told[2].startswith("1 rule stopped every level at the first reading possible, and 0")
    assert told[3].startswith("Within a level, ")
    assert told[4] == (
        "The held-out accuracy had recovered after 4 of 8 passes on average, and at 0 of 3 levels "
        "it was as good right after pruning."
    )
    assert scope(few) == "3 rules replayed on 3 levels of 1 record with 24 readings"


def test_no_rule_may_be_good_enough() -> None:
    found = replay({"a": record()}, {"far": RULES["far"]})
    assert "no rule that was replayed is good enough; a fixed budget of 7" in findings(found)[0]
    only_fixed = findings(replay({"a": record()}, {"two": RULES["two"]}))
    assert len(only_fixed) == 3


def test_notices_tell_what_is_missing(many: Replay) -> None:
    told = notices(many)
    assert told[0] == "a is unfinished; the levels that have stopped were replayed."
    assert any(f"{len(many.skipped)} rules of the catalogue left out, " in line for line in told)
    assert "Rules left out" in Page(render_replay(many, "x")).text
    level = level_of(1, RISES, main=math.nan)
    lost = level_of(2, RISES, flows={"information.signed": (math.nan, 0.0)})
    rules = {"a": {"stop": {"rule": "information-flow", "epsilon": 0.1}, "reference": "trained"}}
    found = replay({"a": full_record(level, lost, level_of(3, RISES))}, rules)
    told = notices(found)
    assert any("is not finite at 8 readings" in line for line in told)
    assert any("met 7 readings that they could not decide from" in line for line in told)
    assert any(line.startswith("a can't be asked at 1 level: ") for line in told)


def test_the_table_holds_every_rule(few: Replay) -> None:
    rows = {row[0]: row[1:] for row in rule_table(few).rows}
    assert rows["two"] == ("2", "70.0 %", "-2.00", "20.00", "20.00", "0 %", "0 %", "0 %")
    assert rows["near"] == ("4", "90.0 %", "0.00", "0.00", "13.33", "0 %", "33 %", "0 %")
    assert rows["far"][-2:] == ("100 %", "0 %")


def test_the_terminal_shows_rules_distances_and_findings(many: Replay) -> None:
    lines = list(replay_lines(many))
    assert lines[0].split()[:2] == ["rule", "passes"]
    assert sum("more distances on the page" in line for line in lines) <= 1
    assert lines[-1] == scope(many)
    assert findings(many)[0] in lines


def test_the_numbers_are_there_as_json(few: Replay) -> None:
    told = json.loads(json.dumps(replay_dict(few)))
    assert told["rules"]["two"]["regret_passes"] == -2
    assert told["rules"]["two"]["regret_metric"] == pytest.approx(0.2)
    assert told["rules"]["far"]["at_minimum"] == 1
    assert told["correlations"]["frobenius to trained"]["levels"] == 2
    assert told["correlations"]["frobenius to trained"]["constant"] == 1


def test_what_was_left_out_has_a_column_only_where_something_was(few: Replay) -> None:
    assert correlation_table(few).headings[-1] == "left out"
    assert ("2", "1 constant") in {row[-2:] for row in correlation_table(few).rows}
    whole = replay({"a": full_record(level_of(1, [k / 8 for k in range(8)]))}, RULES)
    assert correlation_table(whole).headings[-1] in ("levels", "left out")


def test_other_metrics_are_plain_numbers() -> None:
    level = level_of(1, [1 - value for value in RISES])
    found = replay({"a": full_record(level, metric="loss", higher_is_better=False)}, RULES)
    text = "\n".join(replay_lines(found))
    assert "loss lost" in text
    assert "points" not in text
    assert "points" not in Page(render_replay(found, "x")).text


def test_a_point_for_every_rule_and_a_line_for_fixed_budgets(few: Replay) -> None:
    line, *groups = loss_figure(few).plot.data
    assert (line.x[0], line.x[-1]) == (1, 8)
    points = {(x, round(y, 6)) for group in groups for x, y in zip(group.x, group.y, strict=True)}
    assert points == {(rule.passes, round(100 * (rule.lost or 0), 6)) for rule in few.rules}
    assert [group.name for group in groups] == ["fixed budget", "matrices"]


def test_a_row_for_every_rule_and_a_column_for_every_level(few: Replay, many: Replay) -> None:
    figure = stop_figure(few)
    cells = figure.plot.data[0]
    assert [list(row) for row in cells.z] == [[1, -2, -5], [0, 0, 0], [0, -3, -6]]
    assert list(figure.plot.layout.yaxis.ticktext) == ["two", "near", "far"]
    assert figure.finding.startswith("near stops nearest to recovery: 0.00 passes")
    assert len(stop_figure(many).table.headings) == 7
    assert "b, level 3" in stop_figure(many).table.headings


def test_panels_show_stop_against_recovery(few: Replay, many: Replay) -> None:
    panels = stop_panels(few)
    assert [panel.heading for panel in panels] == ["two", "near", "far"]
    points = panels[0].plot.data[1]
    assert sorted(zip(points.x, points.y, strict=True)) == [(1, 2), (4, 2), (7, 2)]
    assert panels[0].caption == "2 levels too early, 1 too late, 0 in place. Loses 20.00 points."
    # Of many rules the nearest of each kind; the same place at two records is one larger point.
    kinds = stop_panels(many)
    assert 3 < len(kinds) <= 12
    assert len(kinds) < len(many.rules)
    assert len(kinds[0].plot.data[1].x) <= 3


def test_curves_are_shares_of_their_largest(few: Replay) -> None:
    panels = curve_panels(few)
    assert panels[0].heading == "Level 1, density 80.0 %"
    names = [entry.method for entry in curve_legend(few)]
    assert names[0] == "held-out accuracy lacking"
    for panel in panels:
        assert {trace.name for trace in panel.plot.data} <= set(names)
        for trace in panel.plot.data:
            assert max(value for value in trace.y if value is not None) <= 1
    assert panels[1].caption == "Lacks 40.00 points at first, recovered after 4 passes."


def test_a_level_without_a_metric_is_drawn_all_the_same() -> None:
    found = replay({"a": full_record(level_of(1, RISES, main=math.nan))}, RULES)
    assert curve_panels(found)[0].caption == "The metric is not finite."
    assert stop_panels(found) == []
    assert "At no level is it known" in stop_figure(found).finding
    page = Page(render_replay(found, "x"))
    assert "Where rules stop against" not in page.text
    assert list(replay_lines(found))


def test_the_page_holds_everything(many: Replay) -> None:
    page = Page(render_replay(many, "first"))
    places = [x for x in page.all("div") if x.get("class") == "plot"]
    assert [x["id"] for x in places] == [f"plot-{figure['key']}" for figure in page.figures]
    assert all(place["aria-label"] for place in places)
    for words in ("first", "How to read this page", "What was replayed", "Of each kind of rule"):
        assert words in page.text


def test_nothing_is_fetched(few: Replay) -> None:
    page = Page(render_replay(few, "x"))
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "action", "data", "poster", "href"} & set(attributes)
    policies = [x for x in page.all("meta") if x.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policies[0]["content"] or "")


def test_hostile_texts_stay_text() -> None:
    model = record().model.model_copy(update={"name": HOSTILE})
    found = replay({HOSTILE: record().model_copy(update={"model": model})}, {HOSTILE: RULES["two"]})
    page = Page(render_replay(found, HOSTILE))
    assert len(page.all("script")) == 3
    assert not page.all("img")
    assert " ".join(page.words).count(HOSTILE) >= 4
    assert "<script" not in json.dumps(page.figures)


def test_the_page_is_written_at_once(few: Replay, tmp_path: Path) -> None:
    target = tmp_path / "new" / "first" / "replay.html"
    assert write_replay(few, target) == target
    assert "<h1>first</h1>" in target.read_text(encoding="utf-8")
    assert os.listdir(target.parent) == ["replay.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can't make the folder"):
        write_replay(few, tmp_path / "file" / "replay.html")
