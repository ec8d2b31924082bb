from __future__ import annotations

from typing import Any

import pytest

from infcop.core.compare import CompareConfig
from infcop.core.method import FixedBudget
from infcop.errors import ConfigError
from infcop.study.configure import resolve_comparison
from infcop.study.jobs import check_runs, count_runs, equal_cost_jobs, first_jobs, never_begun
from infcop.study.store import StudyStore
from tests.reference.studies import comparison, make_row

STORE = StudyStore("out")
FIXED = {"method": {"name": "lth", "schedule": {"remove": 0.5}}, "equal_cost_to": "shock"}


def config_with(**methods: Any) -> CompareConfig:
    content = comparison()
    return resolve_comparison({**content, "methods": {**content["methods"], **methods}})


def test_every_method_meets_every_setting_and_seed() -> None:
    config = resolve_comparison(comparison(settings={"a": {}, "b": {}}))
    jobs = first_jobs(config, STORE)
    assert len(jobs) == count_runs(config) == 2 * 2 * 3
    places = {(job.setting, job.method, job.seed) for job in jobs}
    assert len(places) == len(jobs)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs), "pairs come first"


def test_runs_of_one_seed_share_all_but_the_method() -> None:
    lth, shock = first_jobs(config_with(), STORE)[:2]
    assert lth.dense_dir == shock.dense_dir
    assert lth.run_dir != shock.run_dir
    assert shock.config.levels.unit == 0.25
    assert shock.config.levels.min_passes == 0
    assert lth.config.levels.unit == 1
    shared = {"method", "levels"}
    assert lth.config.model_dump(exclude=shared) == shock.config.model_dump(exclude=shared)
    assert lth.config.milestones == (0.2,)
    assert lth.config.density == 0.05


def test_a_method_may_have_a_run_for_each_density() -> None:
    config = config_with(shot={"method": "lth", "per_density": True})
    jobs = [job for job in first_jobs(config, STORE) if job.method == "shot"]
    assert [job.run for job in jobs[:2]] == ["runs/digits/shot/0/0.2", "runs/digits/shot/0/0.05"]
    assert [job.densities for job in jobs[:2]] == [(0.2,), (0.05,)]
    assert count_runs(config) == 3 + 3 + 6


def test_an_equal_cost_run_reads_only_at_the_end_of_its_levels() -> None:
    config = config_with(fixed=FIXED)
    assert all(job.method != "fixed" for job in first_jobs(config, STORE))
    rows = [make_row("digits", "shock", seed, d) for seed in range(3) for d in (0.2, 0.05)]
    jobs = equal_cost_jobs(config, STORE, rows)
    assert len(jobs) == 6
    for job in jobs:
        budget = job.budget
        assert budget is not None
        assert job.config.method.stop == FixedBudget(passes=budget)
        levels = job.config.levels
        assert levels.min_passes == levels.max_passes == budget
        assert levels.unit == 1, "as elsewhere, so that the dense training can be shared"
        assert job.run.endswith(f"/{job.densities[0]:g}-{budget:g}-passes")
    assert len({job.budget for job in jobs}) == 2, "one for each density"


def test_an_equal_cost_run_waits_for_all_seeds() -> None:
    config = config_with(fixed=FIXED)
    rows = [make_row("digits", "shock", seed, 0.2) for seed in range(2)]
    rows += [make_row("digits", "shock", seed, 0.05) for seed in range(3)]
    assert {job.densities for job in equal_cost_jobs(config, STORE, rows)} == {(0.05,)}
    missing = list(never_begun(config, rows))
    assert [(f.seed, f.density) for f in missing] == [(0, 0.2), (1, 0.2), (2, 0.2)]
    assert "its budget follows from 'shock', of which a seed is missing" in missing[0].message


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (
            {"late": {"method": {"name": "lth", "rewind": {"to": "epoch", "passes": 9}}}},
            r"methods\.late with settings\.digits: method\.rewind\.passes \(9\) must not exceed",
        ),
        (
            {"short": {"method": "lth", "levels": {"min_passes": 9}}},
            r"methods\.short with settings\.digits\.levels: min_passes \(9\) must not exceed",
        ),
    ],
)
def test_a_method_that_does_not_fit_a_setting_is_refused(
    methods: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_runs(config_with(**methods))


def test_what_fits_is_let_through() -> None:
    check_runs(config_with(fixed=FIXED))
