"""Replaying rules on the records of real, short runs."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infcop.cli import main
from infcop.core.config import SearchConfig
from infcop.errors import ConfigError
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.workload import run_config
from infcop.study.replay import replay, replay_level
from tests.end_to_end.conftest import Search
from tests.reference.pages import Page

RULES: dict[str, dict[str, Any]] = {
    "matrices": {"stop": {"rule": "matrix-flow", "kappa": 1.1, "floor": "larger"}},
    "shock": {"stop": {"rule": "shock-budget", "fraction": 0.3}},
    "vectors": {
        "stop": {"rule": "relative-information-flow", "epsilon": 0.4},
        "reference": "trained",
    },
    "pruned": {"stop": {"rule": "gradient-flow", "epsilon": 0.2}, "reference": "pruned"},
    "masks": {
        "stop": {
            "rule": "any-of",
            "rules": [
                {
                    "rule": "all-of",
                    "rules": [
                        {"rule": "settling", "readings": 1, "fraction": 0.9},
                        {"rule": "mask-distance", "epsilon": 0.3},
                    ],
                },
                {"rule": "accuracy-target", "margin": 0.02},
                {"rule": "at-least", "passes": 1, "of": {"rule": "plateau", "patience": 0.5}},
            ],
        },
    },
}


@pytest.mark.parametrize("name", RULES)
def test_the_rule_of_a_run_decides_the_same_again(search: Search, name: str) -> None:
    method = {"name": "lth", "schedule": {"remove": 0.4}, "rewind": {"to": "epoch"}, **RULES[name]}
    record = search(
        method=method,
        dense={"passes": 3},
        levels={"max_passes": 2, "unit": 0.5},
        probe_examples=32,
        final={"passes": 0},
    ).record
    known = {key: record.config[key] for key in ("method", "dense", "levels")}
    config = SearchConfig.model_validate(known)
    assert len(record.levels) >= 2
    for level in record.levels:
        told = [reading for reading in level.readings if reading.phase == "level"]
        again = replay_level(record, config, level.level)
        assert [decision for _, decision in again] == [reading.decision for reading in told]
        assert [reading.passes for reading, _ in again] == [reading.passes for reading in told]


FULL = """
density: 0.2
method: {name: lth, schedule: {remove: 0.6}, rewind: {to: epoch}, flow: {every_reading: true}}
data: {name: digits, train_examples: 300}
training: {batch_size: 32}
dense: {passes: 3}
levels: {max_passes: 3, unit: 0.5}
final: {passes: 0}
probe_examples: 128
execution: {threads: 1, device: cpu}
"""

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a full record in ``full``."""
    root = tmp_path_factory.mktemp("replay")
    run_config(resolve_config(yaml.safe_load(FULL)), run_dir=root / "full")
    return root


@pytest.fixture
def cli(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Run ``infcop study replay`` in this process; return exit code, output and errors."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["infcop", "study", "replay", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    yield run
    signal.signal(signal.SIGTERM, before)


def test_the_catalogue_on_digits(cli: Cli, folder: Path) -> None:
    code, out, err = cli("full")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[0] == "rule"
    assert sum(line.startswith("fixed ") for line in lines) == 5
    assert any(line.startswith("passes left ") for line in lines)
    assert lines[-1] == "Page: studies/replay/replay.html"
    page = Page((folder / "studies" / "replay" / "replay.html").read_text(encoding="utf-8"))
    assert "Where rules stop against where the metric recovered" in page.text
    found = replay([folder / "full"])
    assert found.skipped == {}, "everything is in a full record"
    assert all(len(rule.levels) == len(found.courses) >= 2 for rule in found.rules)
    assert len(found.correlations) > 25


def test_rules_of_a_file_as_json(cli: Cli, folder: Path) -> None:
    rules = {
        "half": {"stop": {"rule": "fixed-budget", "passes": 0.5}, "min_passes": 0.5},
        "near": {"stop": {"rule": "matrix-flow", "epsilon": 0.5}},
    }
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    code, out, _ = cli("full", "--rules", "rules.yaml", "--out", "here", "--json")
    assert code == 0
    told = json.loads(out)
    assert list(told["rules"]) == ["half", "near"]
    half = told["rules"]["half"]
    assert half["at_minimum"] == 1
    assert half["passes"] == pytest.approx(0.5, abs=0.1)
    assert half["regret_metric"] == half["regret_metric_of_fixed_budget"]
    assert told["correlations"]["passes left"]["levels"] == half["levels"]
    assert told["page"] == "here/replay.html"
    assert (folder / "here" / "replay.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere' is not a run folder"),
        (["full", "full"], "got 'full' more than once"),
        (["full", "--rules", "wrong.yaml"], "a.stop: got 'matrx-flow'; did you mean 'matrix-flow'"),
        (["full", "--rules", "nothing.yaml"], "'nothing.yaml': there is no such file"),
        (["full", "--tolerance", "-1"], "expected a finite tolerance of at least 0"),
        (["full", "--out", "in-the-way"], "can't make the folder 'in-the-way'"),
    ],
)
def test_bad_input_is_refused(cli: Cli, folder: Path, words: list[str], message: str) -> None:
    (folder / "wrong.yaml").write_text("a: {stop: {rule: matrx-flow}}")
    (folder / "in-the-way").write_text("")
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    assert message in err


def test_an_ordinary_run_says_how_to_make_a_full_one(search: Search) -> None:
    result = search(density=0.5)
    with pytest.raises(ConfigError, match=r"method\.flow\.every_reading=true and"):
        replay([result.run_dir])
