"""The page on SynFlow says what the committed result says, and the result holds together."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synflow.measures import GRID, SCORES
from benchmarks.synflow.rounds import kept_at
from benchmarks.synflow.tables import (
    collapse_table,
    conserved_table,
    figures,
    ratio_table,
    reached,
    runs_table,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "synflow.md").read_text(encoding="utf-8")
RESULT: dict[str, Any] = json.loads(
    (ROOT / "benchmarks" / "results" / "synflow.json").read_text(encoding="utf-8")
)
CELLS: dict[str, dict[str, Any]] = RESULT["details"]
RUNS = {key: cell for key, cell in CELLS.items() if key.startswith("run ")}


def mean(label: str, what: str = "without_empty", network: str = "vgg-16") -> float:
    return statistics.mean(reached(CELLS, network, label)[what])


def ratio(exponent: int, spacing: str = "exponential", rounds: int = 100) -> float:
    found: float = CELLS[f"run vgg-16 {exponent} 0 {spacing} {rounds}"]["largest_ratio"]
    return found


def test_the_page_shows_the_committed_tables() -> None:
    assert f"`{RESULT['command']} --out benchmarks/results/synflow.json`, {RESULT['date']}" in PAGE
    for table in (
        collapse_table(CELLS, "vgg-16"),
        collapse_table(CELLS, "resnet-18"),
        runs_table(CELLS, "vgg-16"),
        runs_table(CELLS, "resnet-18"),
        ratio_table(CELLS),
        conserved_table(CELLS),
    ):
        assert table in PAGE


def test_the_result_is_finished_and_its_figures_follow_from_it() -> None:
    assert "unfinished" not in RESULT
    assert figures(CELLS) == RESULT["figures"]
    assert RESULT["seconds"].keys() == CELLS.keys()


def test_every_score_was_measured_with_three_seeds() -> None:
    for label in (*SCORES, "synflow"):
        found = reached(CELLS, "vgg-16", label)
        assert [len(values) for values in found.values()] == [3, 3]
        assert set(found["without_empty"]) | set(found["with_path"]) <= set(GRID)


@pytest.mark.parametrize("key", RUNS)
def test_every_run_ended_where_it_should(key: str) -> None:
    run, sizes = CELLS[key], CELLS[f"sizes {CELLS[key]['network']}"]
    assert run["target"] == kept_at(sizes["no data"]["entries"], run["exponent"])
    if run["rounds"] == run["rounds_asked"]:
        assert run["kept"] == run["target"]
    else:
        assert (run["flow"], run["kept"] > run["target"]) == (0, True)


def test_layers_are_emptied_in_the_order_of_the_source() -> None:
    labels = ("magnitude", "random", "snip, eval", "synflow")
    order = [mean(label) for label in labels]
    assert order == sorted(order)
    assert CELLS["sizes vgg-16"]["no data"]["exponent"] - mean("synflow") < 0.25


def test_synflow_at_every_exponent_that_was_tried_with_one_seed() -> None:
    for exponent in range(1, 6):
        run = CELLS[f"run vgg-16 {exponent} 0 exponential 100"]
        assert (run["empty"], run["flow"] > 0) == ([], True)
        assert run["largest_ratio"] < 1


def test_a_round_of_many_removes_less_than_a_layer_only_by_a_constant_factor() -> None:
    for exponent in (2, 3):
        assert ratio(exponent) < 1 < ratio(exponent, "linear") < ratio(exponent, rounds=1)


def test_sums_are_conserved_to_rounding() -> None:
    for network in ("vgg-16", "resnet-18"):
        for label, found in CELLS[f"conservation {network}"].items():
            assert max(found.values()) < (1e-13 if label.startswith("float64") else 3e-6)
