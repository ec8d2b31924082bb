"""The files in ``examples`` work as they are."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest

from infcop.pipeline.configure import load_config
from infcop.pipeline.demo import demo_config
from infcop.pipeline.store import load_record
from infcop.study.configure import load_comparison
from infcop.study.jobs import check_runs
from infcop.study.replay_rules import rules_of

EXAMPLES = Path(__file__).parents[2] / "examples"
COMPARISONS = sorted(EXAMPLES.glob("compare*.yaml"))
REPLAYS = sorted(EXAMPLES.glob("replay*.yaml"))
CONFIGS = sorted(set(EXAMPLES.glob("*.yaml")) - {*COMPARISONS, *REPLAYS})
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_is_valid(path: Path) -> None:
    assert load_config(path).data.name in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_a_comparison_is_valid(path: Path) -> None:
    config = load_comparison(path)
    check_runs(config)
    assert f"infcop compare examples/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", REPLAYS, ids=lambda path: path.name)
def test_rules_to_replay_are_valid(path: Path) -> None:
    assert len(rules_of(path)) >= 2
    assert f"--rules examples/{path.name}" in path.read_text(encoding="utf-8")


def test_the_digits_are_the_demo() -> None:
    assert load_config(EXAMPLES / "digits.yaml") == demo_config()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "run"])
    runpy.run_path(script, run_name="__main__")
    record = load_record(tmp_path / "run")
    assert record.outcome is not None
    density = record.config["density"]
    assert record.outcome.kept == round(density * record.outcome.prunable)
    assert (tmp_path / "run" / "report.html").exists()
    told = capsys.readouterr().out
    assert f"{100 * density:.1f} % of" in told
    assert "Why levels stopped" in told


def test_there_are_examples() -> None:
    assert {path.name for path in SCRIPTS} >= {"own_model.py", "own_task.py"}
    assert {path.name for path in CONFIGS} >= {"digits.yaml", "fashion-mnist.yaml"}
    assert {path.name for path in COMPARISONS} >= {"compare.yaml"}
