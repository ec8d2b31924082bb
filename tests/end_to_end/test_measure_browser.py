"""The page of a measurement in a real browser: it fits a phone, shows its drawing, and prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from infcop.core.measurement import MeasurementRecord
from infcop.report.graph_page import write_graph
from tests.reference.browser import chromium_or_skip, look, run_chromium
from tests.reference.measurements import (
    HOSTILE,
    dense_edges,
    make_layer,
    make_measurement,
    residual_edges,
)

RECORDS: dict[str, MeasurementRecord] = {
    "chain": make_measurement(layers=[make_layer("fc1", dead=3), *map(make_layer, ("fc2", "fc3"))]),
    "residual": make_measurement(residual_edges()),
    "dense": make_measurement(dense_edges()),
    "branches": make_measurement(
        [("in", f"branch{k}") for k in range(9)] + [(f"branch{k}", "out") for k in range(9)]
    ),
    "hostile": make_measurement([(HOSTILE, "out")], model=HOSTILE, warnings=(HOSTILE,)),
    "nothing": make_measurement((), edges=[]),
}

WIDTHS = (390, 1200)

# Browsers refuse windows narrower than about 500 pixels, frames not.
FRAMES = """<!doctype html><title>frames</title>
<iframe src="PAGE" style="border: 0; width: 390px; height: 900px"></iframe>
<iframe src="PAGE" style="border: 0; width: 1200px; height: 900px"></iframe>
<script>
const reports = {};
const look = (frame) => {
  const page = frame.contentDocument, root = page.documentElement;
  const all = (selector) => [...page.querySelectorAll(selector)];
  const graph = all("svg.graph")[0], box = graph.getBoundingClientRect();
  const inside = (text) => {
    const words = text.getBoundingClientRect();
    const frame = text.parentNode.querySelector("rect").getBoundingClientRect();
    return frame.left <= words.left && words.right <= frame.right
      && frame.top <= words.top && words.bottom <= frame.bottom + 1;
  };
  const report = {
    nodes: all(".nodes rect").length, links: all(".edges > g").length,
    scripts: all("script").length, images: all("img").length,
    title: page.title, width: root.scrollWidth, graph: [box.width, box.height],
    wide: graph.parentNode.scrollWidth > graph.parentNode.clientWidth,
    outside: all(".nodes text").filter((text) => !inside(text)).map((text) => text.textContent),
    drawn: all(".edges path:last-child").every((path) => path.getTotalLength() > 5),
  };
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


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_shows_its_graph_and_fits(chromium: str, tmp_path: Path, name: str) -> None:
    record = RECORDS[name]
    page = write_graph(record, tmp_path / "net.html")
    for width, seen in look(chromium, tmp_path, page, FRAMES, WIDTHS).items():
        assert seen["nodes"] == len(record.layers)
        assert seen["links"] == len(record.edges)
        assert seen["drawn"]
        assert seen["outside"] == []
        assert (seen["scripts"], seen["images"]) == (0, 0)
        assert seen["title"].startswith(record.model[:8])
        assert seen["width"] <= width
        assert seen["openedWidth"] <= width


def test_a_drawing_that_is_too_wide_scrolls_by_itself(chromium: str, tmp_path: Path) -> None:
    page = write_graph(RECORDS["dense"], tmp_path / "net.html")
    seen = look(chromium, tmp_path, page, FRAMES, WIDTHS)
    assert seen[390]["wide"]
    assert not seen[1200]["wide"]
    assert seen[390]["graph"] == seen[1200]["graph"]


def test_the_page_prints(chromium: str, tmp_path: Path) -> None:
    page = write_graph(RECORDS["residual"], tmp_path / "net.html")
    target = tmp_path / "net.pdf"
    run_chromium(chromium, tmp_path / "profile", page, f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF")
