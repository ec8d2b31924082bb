"""The page on compact networks says what the committed results say."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compact.__main__ import PARTS, file_of, tables
from benchmarks.compact.__main__ import RESULTS as RESULTS_DIR
from benchmarks.compact.figures import figures_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compact.md").read_text(encoding="utf-8")
RESULTS: dict[str, dict[str, Any]] = {
    part: json.loads(file_of(part).read_text(encoding="utf-8")) for part in PARTS
}


@pytest.mark.parametrize("part", PARTS)
def test_the_page_shows_the_committed_tables(part: str) -> None:
    result = RESULTS[part]
    assert f"`{result['command']} --out benchmarks/results`, {result['date']}" in PAGE
    for table in tables(part, result["details"]):
        assert table in PAGE


@pytest.mark.parametrize("part", PARTS)
def test_a_result_is_finished_and_its_figures_follow_from_it(part: str) -> None:
    result = RESULTS[part]
    assert "unfinished" not in result
    assert figures_of(part, result["details"]) == result["figures"]
    assert result["seconds"].keys() == result["details"].keys()


def test_ratios_are_the_medians_of_enough_pairs() -> None:
    cells = [cell for result in RESULTS.values() for cell in result["details"].values()]
    timed = [cell[key] for cell in cells for key in cell if key.startswith("latency")]
    assert timed
    assert min(one["repeats"] for one in timed) >= 5


def test_what_both_remove_is_the_same() -> None:
    for cell in RESULTS["torch-pruning"]["details"].values():
        if "latency" in cell:
            sizes = ("parameters", "multiply_adds")
            assert [cell["ours"][size] for size in sizes] == [
                cell["theirs"][size] for size in sizes
            ]


def test_networks_of_searches_lost_nothing_that_matters() -> None:
    for cell in RESULTS["zoo"]["details"].values():
        assert cell["verified"]
        assert cell["difference"] < 1e-4
        assert cell["surviving_after"] <= cell["surviving"]


def test_the_page_says_what_smaller_networks_on_the_way_save() -> None:
    result = json.loads((RESULTS_DIR / "collapse_in_search.json").read_text(encoding="utf-8"))
    assert f"`{result['command']} --out benchmarks/results/collapse_in_search.json`" in PAGE
    for network, found in result["details"].items():
        pairs = zip(found["seconds"]["collapse"], found["seconds"]["masked"], strict=True)
        ratio = statistics.median(ours / plain for ours, plain in pairs)
        assert result["figures"][f"wall_clock_ratio_{network}"] == round(ratio, 4)
        assert f"{network}: {ratio:.2f} of the time." in PAGE
        for phase in found["phases"]:
            times = f"{phase['seconds_masked']:.1f} s | {phase['seconds_collapse']:.1f} s"
            assert times in PAGE
        assert found["difference_in_float64"] < 1e-9
