"""The tables in the docs are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import flow_cost, flow_sources
from benchmarks.first_run import REWINDS, markdown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("rewind", REWINDS)
def test_the_page_shows_the_committed_figures(rewind: str) -> None:
    file = ROOT / "benchmarks" / "results" / f"first_run_{rewind}.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["command"].startswith("python -m benchmarks.first_run")
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert markdown(result["details"]["table"]) in page
    assert f"`{result['command']} --out" in page


def test_the_distances_between_sources_are_the_committed_ones() -> None:
    file = ROOT / "benchmarks" / "results" / "flow_sources.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "decisions" / "0010-two-sources-of-flow.md").read_text(encoding="utf-8")
    assert flow_sources.markdown(result["details"]) in page
    assert f"`{result['command']}`" in page


def test_the_cost_of_measuring_is_the_committed_one() -> None:
    file = ROOT / "benchmarks" / "results" / "flow_cost.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert flow_cost.markdown(result["details"]) in page
    for name, label in flow_cost.HEADLINES.items():
        key = f"training_source_ratio_{name.replace('-', '').replace('lenet300100', 'lenet300')}"
        measured = result["details"][f"training {name}"][label]["ratio"]
        assert result["figures"][key] == round(measured, 4)
