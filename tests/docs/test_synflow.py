"""The page on SynFlow says what the committed result says, and the result holds together."""

from __future__ import annotations

import json
import math
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


# -- what the page says in words -------------------------------------------------------------------


def test_what_the_page_says_of_the_scores() -> None:
    assert reached(CELLS, "vgg-16", "synflow")["without_empty"] == [6, 6, 5.75]
    assert CELLS["run vgg-16 6 0 exponential 100"]["kept"] == 15
    assert mean("snip, eval") == mean("snip, eval, 1,000 images")
    assert mean("snip, train") < mean("magnitude")
    assert mean("grasp, eval") + 0.25 == 3.25 < mean("random")
    assert abs(mean("grasp, eval, first code") - mean("snip, eval")) < 0.1
    for label in SCORES:
        assert mean(label, "with_path") < mean(label)


def test_what_the_page_says_of_random_scores() -> None:
    """The least of ``n`` uniform numbers: minus its logarithm has a known mean and deviation."""
    first = 64 * 3 * 3 * 3
    expected = (math.log(first) + 0.5772157) / math.log(10) - 0.25 / 2
    deviation = math.pi / math.sqrt(6) / math.log(10) / math.sqrt(3)
    assert f"{first:,} weights" in PAGE
    assert (round(expected, 2), round(deviation, 2)) == (3.36, 0.32)
    assert "gives 3.36 in expectation" in " ".join(PAGE.split())
    assert abs(mean("random") - expected) < 2 * deviation
    emptied = [CELLS[f"collapse vgg-16 random {seed}"]["empty_beyond"] for seed in range(3)]
    assert emptied == [["0.weight"]] * 3


def test_deep_convolutions_go_first_in_training_mode() -> None:
    deep = {"24.weight", "27.weight", "30.weight", "34.weight", "37.weight", "40.weight"}
    for score in ("snip", "grasp"):
        for seed in range(3):
            assert deep >= set(CELLS[f"collapse vgg-16 {score}, train {seed}"]["empty_beyond"])


def test_what_the_page_says_of_the_last_rounds() -> None:
    lost = CELLS["run vgg-16 6 2 exponential 100"]
    assert (lost["rounds"], lost["flow"]) == (97, 0)
    for key, run in RUNS.items():
        if "vgg-16" in key and run["exponent"] > 5:
            assert run["largest_ratio"] > 1


def test_what_the_page_says_of_resnet_18() -> None:
    runs = [run for key, run in RUNS.items() if key.startswith("run resnet-18")]
    assert all(run["flow"] > 0 for run in runs)
    assert all("shortcut" in name for name in runs[0]["empty"])
    assert runs[0]["exponent"] == 1
    assert runs[0]["empty"]
    assert sum("shortcut" not in name for name in runs[-1]["empty"]) > 2
