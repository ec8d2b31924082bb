"""The tables in the docs are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import flow_cost, flow_sources
from benchmarks.first_run import REWINDS, markdown
from benchmarks.stop_study import __main__ as stop_study
from benchmarks.stop_study.figures import figures, replay_table, tables
from infcop.core.study import StudyResults
from infcop.study.configure import load_comparison
from infcop.study.jobs import check_runs
from infcop.study.summary import summarise

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


@pytest.mark.parametrize("study", stop_study.STUDIES)
def test_every_comparison_of_the_stop_study_can_be_run(study: str) -> None:
    config = load_comparison(stop_study.HERE / f"{study}.yaml")
    check_runs(config)
    assert any(label.startswith("infcop") for label in config.methods)


@pytest.mark.parametrize("study", stop_study.STUDIES)
def test_the_page_shows_the_stop_study_as_committed(study: str) -> None:
    file = ROOT / "benchmarks" / "results" / f"stop_study_{study}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    results = StudyResults.model_validate(content["results"])
    assert results.cells == summarise(results.config, results.rows)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert tables(results) in page
    assert f"`{content['command']}`, {content['date']}" in page


def test_the_summary_prints_the_figures_of_the_committed_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert stop_study.main(["--summary"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    file = ROOT / "benchmarks" / "results" / "stop_study_main.json"
    main = StudyResults.model_validate(json.loads(file.read_text(encoding="utf-8"))["results"])
    assert printed.items() >= json.loads(json.dumps(figures(main, None))).items()
    wanted = {"worst_cost_vs_lth", "worst_accuracy_minus_lth_at_0.107"}
    assert wanted | {"best_mode_cost_vs_dense_at_0.107"} <= set(printed)
    one = printed["fashion-lenet5 at 0.1074, infcop"]
    assert {"cost_vs_dense", "cost_vs_lth", "accuracy_minus_lth"} < set(one)
    assert len(one["accuracy_minus_fixed_budget"]) == 3


def test_the_page_shows_the_replays_as_committed() -> None:
    file = ROOT / "benchmarks" / "results" / "stop_study_replay.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert replay_table(content["replays"]) in page
    records = ROOT / "benchmarks" / "stop_study" / "records"
    assert {path.stem for path in records.glob("*.yaml")} == set(content["replays"])
    assert all(f"`{command}`" in page for command in content["commands"])
