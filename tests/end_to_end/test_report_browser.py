"""The report in a real browser: it draws every figure, fits a phone, and prints."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from infcop.core.study import StudyFailure
from infcop.report.compare_page import write_comparison
from infcop.report.page import write_report
from infcop.report.replay_page import write_replay
from infcop.study.replay import replay
from tests.reference.browser import chromium_or_skip, look, run_chromium
from tests.reference.footprints import make_footprint
from tests.reference.records import HOSTILE, make_record
from tests.reference.replays import full_record, level_of
from tests.reference.studies import make_study

FOOTPRINTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hostile": {"name": HOSTILE + "{}", "new_biases": (HOSTILE,)},
    "many-edges": {"layers": 90, "name": "a.rather.long.name.of.one.layer.{}.conv", "timed": False},
}
"""Of the pages that have a compact network."""

RECORDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hostile": {"hostile": True, "flow": "both", "not_finite": True},
    "many-edges": {"layers": 62, "levels": 20, "remove": 0.2, "flow": "both"},
    "unfinished": {"levels": 3, "finished": False},
    "no-flow": {"flow": "none"},
}

WIDTHS = (390, 1200)

# Browsers refuse windows narrower than about 500 pixels, frames not: the page is looked at through
# a frame of each width, first as it opens, then as for print, then with all that is folded opened.
FRAMES = """<!doctype html><title>frames</title>
<iframe src="PAGE" style="border: 0; width: 390px; height: 900px"></iframe>
<iframe src="PAGE" style="border: 0; width: 1200px; height: 900px"></iframe>
<script>
const reports = {};
const look = (frame) => {
  const page = frame.contentDocument, root = page.documentElement;
  if (!("scrollWidth" in root.dataset)) { setTimeout(() => look(frame), 50); return; }
  const all = (selector) => [...page.querySelectorAll(selector)];
  const openDetails = () => all("details.printed").filter((one) => one.open).length;
  const report = { ...root.dataset, title: page.title, images: all("img").length };
  report.declared = all(".plot").length;
  report.withSvg = all(".plot").filter((plot) => plot.querySelector("svg")).length;
  report.openAtFirst = openDetails();
  frame.contentWindow.dispatchEvent(new Event("beforeprint"));
  report.openInPrint = openDetails();
  report.printedDetails = all("details.printed").length;
  frame.contentWindow.dispatchEvent(new Event("afterprint"));
  report.openAfterPrint = openDetails();
  all("details").forEach((one) => { one.open = true; });
  report.openedWidth = root.scrollWidth;
  reports[frame.clientWidth] = report;
  document.documentElement.dataset.reports = JSON.stringify(reports);
};
for (const frame of document.querySelectorAll("iframe")) {
  frame.addEventListener("load", () => look(frame));
}
</script>
"""


@pytest.fixture(scope="session")
def chromium() -> str:
    return chromium_or_skip()


class Plots(HTMLParser):
    """For each element with the class ``plot``, how many SVG drawings lie inside it."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.drawings: dict[str, int] = {}
        self.root: dict[str, str | None] = {}
        self._stack: list[str | None] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "html":
            self.root = attributes
        inside = self._stack[-1] if self._stack else None
        if "plot" in (attributes.get("class") or "").split():
            inside = attributes["id"]
            self.drawings[str(inside)] = 0
        if tag == "svg" and inside:
            self.drawings[inside] += 1
        if tag not in self.VOID:
            self._stack.append(inside)

    def handle_endtag(self, tag: str) -> None:
        if self._stack and tag not in self.VOID:
            self._stack.pop()


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_draws_everything_and_fits(chromium: str, tmp_path: Path, name: str) -> None:
    compact = make_footprint(**FOOTPRINTS[name]) if name in FOOTPRINTS else None
    record = make_record(**RECORDS[name])
    page = write_report(record, tmp_path / "report.html", title=name, footprint=compact)
    for width, seen in look(chromium, tmp_path, page, FRAMES, WIDTHS).items():
        assert seen["errors"] == ""
        assert int(seen["figures"]) == seen["declared"] == seen["withSvg"] > 0
        assert seen["title"].startswith(name)
        assert seen["images"] == 0
        assert int(seen["innerWidth"]) == width
        assert int(seen["scrollWidth"]) <= width
        assert seen["openedWidth"] <= width
        assert seen["openAtFirst"] == seen["openAfterPrint"] == 0
        assert seen["openInPrint"] == seen["printedDetails"] > 0


@pytest.mark.parametrize("many", [False, True], ids=["failures", "many methods"])
def test_a_comparison_draws_everything_and_fits(chromium: str, tmp_path: Path, many: bool) -> None:
    failure = StudyFailure(setting="digits", method="shock", seed=1, message="lost: " + "x" * 200)
    methods = {f"a-method-with-a-long-name-{number}": {"method": "lth"} for number in range(9)}
    changes = {"methods": {"lth": {"method": "lth"}, **methods}, "densities": [0.2, 0.1, 0.05]}
    results = make_study(**changes) if many else make_study((failure,))
    page = write_comparison(results, tmp_path / "compare.html")
    for width, seen in look(chromium, tmp_path, page, FRAMES, WIDTHS).items():
        assert seen["errors"] == ""
        assert int(seen["figures"]) == seen["declared"] == seen["withSvg"] > 0
        assert int(seen["scrollWidth"]) <= width
        assert seen["openedWidth"] <= width


def test_a_replay_draws_everything_and_fits(chromium: str, tmp_path: Path) -> None:
    metric = [0.5, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]
    levels = [level_of(number, metric) for number in range(1, 9)]
    found = replay({"a" * 60: full_record(*levels), "b": full_record(*levels)})
    page = write_replay(found, tmp_path / "replay.html")
    for width, seen in look(chromium, tmp_path, page, FRAMES, WIDTHS).items():
        assert seen["errors"] == ""
        assert int(seen["figures"]) == seen["declared"] == seen["withSvg"] > 10
        assert int(seen["scrollWidth"]) <= width
        assert seen["openedWidth"] <= width


def test_the_page_opened_by_itself(chromium: str, tmp_path: Path) -> None:
    page = write_report(make_record(flow="both"), tmp_path / "report.html")
    dom = Plots(run_chromium(chromium, tmp_path / "profile", page, "--dump-dom"))
    assert dom.root["data-errors"] == ""
    assert int(dom.root["data-figures"] or 0) == len(dom.drawings) == 6
    assert all(drawings > 0 for drawings in dom.drawings.values())
    width = int(dom.root["data-inner-width"] or 0)
    assert int(dom.root["data-scroll-width"] or 0) <= width


def test_a_broken_figure_is_reported(chromium: str, tmp_path: Path) -> None:
    page = write_report(make_record(levels=1), tmp_path / "report.html")
    text = page.read_text(encoding="utf-8").replace('id="plot-density"', 'id="plot-elsewhere"')
    page.write_text(text, encoding="utf-8")
    seen = look(chromium, tmp_path, page, FRAMES, WIDTHS)[1200]
    assert seen["errors"] != ""
    assert int(seen["figures"]) == seen["declared"] - 1


def test_the_page_prints(chromium: str, tmp_path: Path) -> None:
    page = write_report(make_record(levels=2), tmp_path / "report.html")
    target = tmp_path / "report.pdf"
    run_chromium(chromium, tmp_path / "profile", page, f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF")
