"""The table of the page on performance is that of the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scores

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    file = ROOT / "benchmarks" / "results" / "scores.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_the_page_shows_the_committed_figures(result: dict[str, Any], page: str) -> None:
    details = result["details"]
    assert scores.markdown(details) in page
    assert result["threads"] == 1
    assert f"`{result['command']} --out benchmarks/results/scores.json`, {result['date']}" in page
    versions = (result["torch"].partition("+")[0], details["torch-pruning"]["version"])
    assert "PyTorch {} and torch-pruning {}".format(*versions) in page


def test_the_figures_are_those_of_the_details(result: dict[str, Any]) -> None:
    assert result["figures"] == scores.figures(result["details"])
    assert result["details"]["model"] == "timm:resnet50"


def test_ratios_are_the_medians_of_enough_pairs(result: dict[str, Any]) -> None:
    details = result["details"]
    pruned = [details[f"torch prune {share}"] for share in scores.REMOVED]
    assert min(one["repeats"] for one in (*pruned, details["torch-pruning"])) >= 5
    for name in scores.MODELS:
        trained = details[f"training {name}"]
        assert min(trained["plain"]["repeats"], trained["torch prune"]["repeats"]) >= 20
        assert trained["steps"] > 1


@pytest.mark.parametrize(
    ("low", "high", "limit", "verdict"),
    [
        (0.9, 1.0, "at most 1", "met"),
        (0.9, 1.1, "at most 1", "open"),
        (1.01, 1.1, "at most 1", "missed"),
        (0.9, 1.0, "below 1", "open"),
        (0.9, 0.99, "below 1", "met"),
        (1.0, 1.1, "below 1", "missed"),
    ],
)
def test_a_limit_is_met_where_the_whole_interval_is(
    low: float, high: float, limit: str, verdict: str
) -> None:
    assert scores.verdict(low, high, limit) == verdict
