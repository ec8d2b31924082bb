"""Executors, with calls that need no training."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infcop.study.configure import resolve_comparison
from infcop.study.executor import Executor, LocalProcesses, ThisProcess, local_executor
from infcop.study.jobs import Job, first_jobs
from infcop.study.store import StudyStore
from infcop.study.work import Finished
from tests.reference.studies import (
    comparison,
    dies_on_seed_one,
    says_its_process,
    waits_unless_seed_zero,
)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    methods = {"lth": {"method": "lth"}}
    config = resolve_comparison(comparison(seeds=[0, 1, 2, 3], methods=methods))
    return first_jobs(config, StudyStore(tmp_path))


@pytest.mark.parametrize("executor", [ThisProcess(), LocalProcesses(2)])
def test_every_job_gets_its_answer(executor: Executor, jobs: list[Job]) -> None:
    found = list(executor.run(says_its_process, jobs))
    assert sorted(answer.job.seed for answer in found) == [0, 1, 2, 3]
    here = str(os.getpid())
    processes = {answer.versions["process"] for answer in found}
    assert processes == {here} if isinstance(executor, ThisProcess) else here not in processes
    assert len(processes) <= 2


def test_a_lost_process_takes_only_its_own_job_with_it(jobs: list[Job]) -> None:
    found = {a.job.seed: a for a in LocalProcesses(2).run(dies_on_seed_one, jobs)}
    assert sorted(found) == [0, 1, 2, 3]
    assert [seed for seed, answer in found.items() if answer.failures] == [1]
    (failure,) = found[1].failures
    assert "its process ended" in failure.message
    assert (failure.setting, failure.method, failure.seed) == ("digits", "lth", 1)


def test_closing_ends_what_is_under_way(jobs: list[Job]) -> None:
    arriving = LocalProcesses(2).run(waits_unless_seed_zero, jobs)
    assert next(arriving).job.seed == 0
    arriving.close()  # the others would wait for an hour


def test_no_jobs_need_no_process() -> None:
    assert list(LocalProcesses(2).run(says_its_process, [])) == []


def test_one_worker_is_this_process() -> None:
    assert isinstance(local_executor(1), ThisProcess)
    assert isinstance(local_executor(2), LocalProcesses)


def test_an_answer_survives_a_round_trip(jobs: list[Job]) -> None:
    answer = says_its_process(jobs[0])
    assert Finished.model_validate_json(answer.model_dump_json()) == answer
