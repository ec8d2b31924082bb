"""The page on the scaled-down protocol says what the committed result says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import paper_protocol
from benchmarks.paper_protocol import EPSILONS, PRESETS, cases, markdown

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper-protocol.md").read_text(encoding="utf-8")
RESULT: dict[str, Any] = json.loads(
    (ROOT / "benchmarks" / "results" / "paper_protocol.json").read_text(encoding="utf-8")
)
TABLE: list[dict[str, Any]] = RESULT["details"]["table"]
KEYS = ("at_minimum", "at_cap")


def test_the_page_shows_the_committed_table() -> None:
    assert markdown(TABLE) in PAGE
    assert f"`{RESULT['command']} --out benchmarks/results/paper_protocol.json`" in PAGE
    assert RESULT["date"] in PAGE


def test_the_table_and_the_figures_follow_from_the_runs() -> None:
    assert list(paper_protocol._table(RESULT["details"]["runs"])) == TABLE
    assert paper_protocol._figures(TABLE) == RESULT["figures"]


def test_every_case_was_run() -> None:
    keys = ("pair", "rule", "epsilon", "preset")
    assert [tuple(row[key] for key in keys) for row in TABLE] == [tuple(case) for case in cases()]
    assert all(row["levels"] == 5 * row["seeds"] for row in TABLE)


@pytest.mark.parametrize("rule", EPSILONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_page_says_of_a_rule(rule: str, preset: str) -> None:
    rows = [row for row in TABLE if (row["rule"], row["preset"]) == (rule, preset)]
    told = [(row["at_minimum"], row["at_cap"]) for row in rows]
    if rule == "infcop-if":
        assert told == [(5, 0)] * 4
    elif preset == "reference code":
        assert told == [(0, 5)] * 4
    else:
        by_epsilon = {
            epsilon: [sum(row[key] for row in rows if row["epsilon"] == epsilon) for key in KEYS]
            for epsilon in EPSILONS[rule]
        }
        assert by_epsilon == {0.3: [5, 4], 0.7: [9, 0]}


def test_accuracies_lie_where_the_page_says() -> None:
    accuracies = [row["accuracy"] for row in TABLE]
    assert (round(100 * min(accuracies), 1), round(100 * max(accuracies), 1)) == (80.3, 81.5)
    assert all(row["back_at_first"] == 0 for row in TABLE)
