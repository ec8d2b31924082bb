"""Whole comparisons on the embedded digits, a second or so for each run."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import infcop
from infcop.cli import main
from infcop.core.study import StudyResults
from infcop.errors import ConfigError, MissingDataError, RunFolderError
from infcop.study.executor import LocalProcesses, ThisProcess, Work
from infcop.study.jobs import Job
from infcop.study.store import StudyStore
from infcop.study.work import Finished

SETTINGS: dict[str, Any] = {
    "seeds": [0, 1],
    "baseline": "lth",
    "densities": [0.4, 0.2],
    "settings": {
        "digits": {
            "data": {"name": "digits", "train_examples": 300},
            "dense": {"passes": 2},
            "levels": {"max_passes": 2},
            "final": {"passes": 1},
            "execution": {"device": "cpu"},
        }
    },
    "methods": {
        "lth": {"method": {"name": "lth", "schedule": {"remove": 0.6}}},
        "short": {
            "method": {
                "name": "fine-tune",
                "schedule": {"remove": 0.6},
                "stop": {"rule": "plateau", "patience": 0.5},
            },
            "levels": {"unit": 0.5, "min_passes": 0.5, "max_passes": 1},
        },
    },
}


class Counting(ThisProcess):
    """Carries out at most so many jobs here, then is interrupted as by Ctrl-C."""

    def __init__(self, most: int = 1000) -> None:
        self.left, self.made = most, 0

    def run(self, call: Callable[[Job], Finished], jobs: Sequence[Job]) -> Work:
        for job in jobs:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left, self.made = self.left - 1, self.made + 1
            yield call(job)


def settings_with(**changes: Any) -> dict[str, Any]:
    return {**SETTINGS, **changes}


def timeless(results: StudyResults) -> dict[str, Any]:
    """Return results without what a clock decides."""
    content = results.model_dump(mode="json")
    for row in content["rows"]:
        del row["seconds"]
    for cell in content["cells"]:
        del cell["seconds_vs_baseline"]
    return content


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResults]:
    folder = tmp_path_factory.mktemp("study")
    return folder, infcop.compare(SETTINGS, out=folder, workers=1)


def test_every_run_gives_its_rows(study: tuple[Path, StudyResults]) -> None:
    folder, results = study
    places = [(row.method, row.seed, row.density) for row in results.rows]
    assert places == [(m, s, d) for m in ("lth", "short") for s in (0, 1) for d in (0.4, 0.2)]
    assert (results.runs, results.finished, results.failures) == (4, 4, ())
    for row in results.rows:
        assert row.kept == round(row.density * row.prunable)
        record = infcop.load_record(folder / row.run)
        assert record.outcome is not None
        end = row.density == 0.2
        metrics = record.outcome.sparse if end else record.milestones[0].metrics
        assert row.sparse == metrics
        assert row.levels == (len(record.levels) if end else record.milestones[0].level)
        assert record.config["execution"]["threads"] == 1
    assert StudyStore(folder).read_results() == results
    assert (folder / "compare.html").exists()


def test_all_methods_start_from_the_same_dense_network(study: tuple[Path, StudyResults]) -> None:
    _, results = study
    for seed in (0, 1):
        starts = [row.dense for row in results.rows if row.seed == seed]
        assert starts == starts[:1] * 4
    assert results.rows[0].dense != results.rows[2].dense


def test_finished_runs_are_not_made_again(study: tuple[Path, StudyResults]) -> None:
    folder, results = study
    executor = Counting()
    assert infcop.compare(SETTINGS, out=folder, executor=executor) == results
    assert executor.made == 0


def test_more_seeds_add_runs(study: tuple[Path, StudyResults]) -> None:
    folder, results = study
    executor = Counting()
    more = infcop.compare(settings_with(seeds=[0, 1, 2]), out=folder, executor=executor)
    assert executor.made == 2
    assert [row for row in more.rows if row.seed < 2] == list(results.rows)


def test_other_settings_are_refused_before_any_training(study: tuple[Path, StudyResults]) -> None:
    folder, _ = study
    executor = Counting()
    setting = {**SETTINGS["settings"]["digits"], "final": {"passes": 2}}
    with pytest.raises(RunFolderError, match=r"final\.passes is 1 there, 2 now"):
        infcop.compare(settings_with(settings={"digits": setting}), out=folder, executor=executor)
    assert executor.made == 0


def test_a_half_finished_study_goes_on(tmp_path: Path, study: tuple[Path, StudyResults]) -> None:
    with pytest.raises(KeyboardInterrupt):
        infcop.compare(SETTINGS, out=tmp_path, executor=Counting(3))
    half = StudyStore(tmp_path).read_results()
    assert (half.finished, half.runs, len(half.rows)) == (3, 4, 6)
    executor = Counting()
    whole = infcop.compare(SETTINGS, out=tmp_path, executor=executor)
    assert executor.made == 1
    assert timeless(whole) == timeless(study[1])


def test_workers_give_the_same_results(tmp_path: Path, study: tuple[Path, StudyResults]) -> None:
    config = settings_with(seeds=[0])
    results = infcop.compare(config, out=tmp_path, executor=LocalProcesses(2))
    alone = [row for row in timeless(study[1])["rows"] if row["seed"] == 0]
    assert timeless(results)["rows"] == alone


def test_equal_cost_is_reached(tmp_path: Path) -> None:
    fixed = {
        "method": {"name": "fine-tune", "schedule": {"remove": 0.4}},
        "equal_cost_to": "short",
    }
    methods = {**SETTINGS["methods"], "fixed": fixed}
    setting = {**SETTINGS["settings"]["digits"]}
    setting["levels"] = {"max_passes": 2, "evaluate": "ends"}
    setting["training"] = {"batch_size": 8}
    config = settings_with(methods=methods, settings={"digits": setting})
    results = infcop.compare(config, out=tmp_path, workers=1)
    assert results.failures == ()
    assert results.runs == results.finished == 8
    rows = [row for row in results.rows if row.method == "fixed"]
    assert [(row.seed, row.density) for row in rows] == [(0, 0.4), (0, 0.2), (1, 0.4), (1, 0.2)]
    for density, levels in ((0.4, 2), (0.2, 4)):
        same = [row for row in rows if row.density == density]
        assert len({row.budget for row in same}) == 1
        assert {row.levels for row in same} == {levels}
        target = [r for r in results.rows if (r.method, r.density) == ("short", density)]
        wanted = sum(r.cost.levels_training + r.cost.levels_measuring for r in target) / 2
        # In whole steps.
        step = 3 * 8 * levels
        for row in same:
            assert abs(row.cost.levels_training - wanted) <= step
            assert row.at_cap == levels
    cells = [cell for cell in results.cells if cell.method == "fixed"]
    assert all(cell.levels_cost_vs_target is not None for cell in cells)


def test_a_failed_run_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    failing = {"method": {"name": "lth", "keep_per_layer": 10**6}}
    fixed = {"method": "fine-tune", "equal_cost_to": "failing"}
    lth = SETTINGS["methods"]["lth"]
    methods = {"lth": lth, "failing": failing, "fixed": fixed}
    config = settings_with(methods=methods, seeds=[0], densities=[0.4])
    results = infcop.compare(config, out=tmp_path, workers=1)
    assert {row.method for row in results.rows} == {"lth"}
    told = {failure.method: failure.message for failure in results.failures}
    assert sorted(told) == ["failing", "fixed"]
    assert "keep_per_layer" in told["failing"]
    assert "its budget follows from 'failing'" in told["fixed"]
    assert (results.runs, results.finished) == (3, 1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"settings": {"digits": {"data": {"name": "digit"}}}},
            ConfigError,
            r"settings\.digits\.data: .*did you mean 'digits'",
        ),
        (
            {"settings": {"m": {"data": {"name": "mnist", "dir": "nowhere"}}}},
            MissingDataError,
            r"settings\.m\.data: .*'mnist' is not in 'nowhere'",
        ),
        ({"baseline": "lht"}, ConfigError, "baseline"),
        (
            {"methods": {"lth": {"method": {"name": "lth-rewind", "rewind": {"passes": 99}}}}},
            ConfigError,
            r"methods\.lth with settings\.digits: method\.rewind\.passes \(99\)",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        infcop.compare(settings_with(**changes), out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_two_studies_in_one_folder_are_refused(tmp_path: Path) -> None:
    with StudyStore(tmp_path).locked(), pytest.raises(RunFolderError, match="in use by another"):
        infcop.compare(SETTINGS, out=tmp_path, workers=1)


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Run ``infcop compare`` in this process; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def run(settings: dict[str, Any], *words: str) -> tuple[int, str, str]:
        Path("mine.yaml").write_text(yaml.safe_dump(settings))
        monkeypatch.setattr(sys, "argv", ["infcop", "compare", "mine.yaml", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    yield run
    signal.signal(signal.SIGTERM, before)


def test_the_command_line(cli: Cli, tmp_path: Path) -> None:
    small = settings_with(seeds=[0], densities=[0.4])
    code, out, err = cli(small, "--workers", "1")
    assert code == 0
    assert "digits, 40 % of the weights kept" in out
    assert "Page: studies/mine/compare.html" in out
    assert "digits, short, seed 0, 0.4 (2 of 2 runs): finished" in err
    (tmp_path / "studies" / "mine" / "compare.html").unlink()
    code, out, err = cli(small, "--report-only", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert {"cells", "failures", "finished", "runs", "out", "page"} == set(told)
    assert (tmp_path / "studies" / "mine" / "compare.html").exists()


def test_failures_have_an_exit_code(cli: Cli) -> None:
    failing = {"method": {"name": "lth", "keep_per_layer": 10**6}}
    changes = {"methods": {"lth": failing}, "seeds": [0], "densities": [0.4]}
    code, out, err = cli(settings_with(**changes), "--workers", "1", "--quiet")
    assert (code, err) == (3, "")
    assert "failed: digits, lth, seed 0, 40 %" in out


def test_an_interruption_says_how_to_go_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infcop.study.compare.local_executor", lambda workers: Counting(0))
    code, out, err = cli(SETTINGS, "--out", "here", "--quiet")
    assert (code, out) == (130, "")
    assert "are saved in here; run the same command again" in err


def test_there_must_be_results_to_report(cli: Cli) -> None:
    code, _, err = cli(SETTINGS, "--report-only", "--out", "nothing")
    assert code == 2
    assert "'nothing' is not the folder of a study" in err
