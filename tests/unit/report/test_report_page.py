from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from infcop.errors import RunFolderError
from infcop.report.page import render_report, write_report
from tests.reference.pages import Page
from tests.reference.records import HOSTILE, make_record


def page_of(**options) -> Page:
    return Page(render_report(make_record(**options), "runs/first"))


def test_the_answer_comes_first() -> None:
    text = page_of().text
    places = [
        text.index(words)
        for words in (
            "The sparse network keeps 7.4 % of the weights",
            "with the full budget at every level it would have been 64",
            "Accuracy against density",
            "Passes per level, and why each level stopped",
            "Information flow per edge and level",
            "Distance of the flow from its reference",
            "Density per layer and level",
            "What it cost",
            "Level by level",
            "Configuration",
            "Versions and hardware",
            "Parameters left alone",
            "the data loader shuffles",
        )
    ]
    assert places == sorted(places)


def test_every_figure_has_a_place_a_text_and_a_table() -> None:
    page = page_of(flow="both", not_finite=True)
    places = [x for x in page.all("div") if x.get("class") == "plot"]
    assert [x["id"] for x in places] == [f"plot-{figure['key']}" for figure in page.figures]
    assert len(places) == 6
    for place in places:
        assert place["role"] == "img"
        assert len(place["aria-label"] or "") > 40
    assert page.text.count("The numbers") == 6


def test_nothing_is_fetched() -> None:
    page = page_of()
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset", "action", "data", "poster", "background"):
            assert name not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    policies = [x for x in page.all("meta") if x.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policies[0]["content"] or "")
    styles = "".join(text for name, text in page.scripts.items() if name.startswith("style"))
    assert "url(" not in styles
    assert "@import" not in styles


def test_hostile_names_stay_text() -> None:
    plain, hostile = page_of(flow="both"), page_of(flow="both", hostile=True)
    assert len(hostile.all("script")) == len(plain.all("script")) == 3
    assert not hostile.all("img")
    assert HOSTILE in " ".join(hostile.words)
    labels = json.dumps(hostile.figures)
    assert "<script" not in labels
    assert "<img" not in labels


def test_the_title_is_escaped() -> None:
    page = Page(render_report(make_record(levels=1), HOSTILE))
    assert len(page.all("script")) == 3
    assert HOSTILE in " ".join(page.words)


def test_the_configuration_can_be_used_again() -> None:
    record = make_record()
    text = render_report(record, "first")
    block = re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)
    assert block
    assert yaml.safe_load(Page(block.group(1)).words[0]) == record.config


def test_an_unfinished_run_says_so() -> None:
    page = page_of(levels=3, finished=False)
    assert "This run is unfinished" in page.text
    assert "still training" in json.dumps(page.figures)


def test_a_run_that_has_only_begun_has_a_page() -> None:
    page = page_of(levels=0, flow="none", finished=False)
    assert page.figures == []
    assert page.text.count("Left out:") == 5


def test_held_out_numbers_are_not_passed_off_as_test() -> None:
    record = make_record(levels=1)
    assert record.outcome is not None
    outcome = record.outcome.model_copy(update={"measured_on": "held-out"})
    text = Page(render_report(record.model_copy(update={"outcome": outcome}), "x")).text
    assert "held-out accuracy" in text
    assert "may flatter" in text


def test_columns_without_numbers_are_left_out() -> None:
    assert "gradient-measuring passes" not in page_of(flow="information").text
    assert "gradient-measuring passes" in page_of(flow="gradient").text


def test_the_page_is_written_at_once(tmp_path: Path) -> None:
    target = tmp_path / "first" / "report.html"
    target.parent.mkdir()
    target.write_text("old", encoding="utf-8")
    assert write_report(make_record(levels=1), target) == target
    assert "<h1>first</h1>" in target.read_text(encoding="utf-8")
    assert os.listdir(target.parent) == ["report.html"]


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.mkdir()
    with pytest.raises(RunFolderError, match="directory"):
        write_report(make_record(levels=1), target)
    assert os.listdir(tmp_path) == ["report.html"]
    with pytest.raises(RunFolderError, match="No such file"):
        write_report(make_record(levels=1), tmp_path / "nowhere" / "report.html")
