"""Methods side by side on the same problems, paired by seed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from infcop.core.compare import CompareConfig
from infcop.core.study import StudyFailure, StudyResults, StudyRow
from infcop.pipeline.progress import LoggedProgress, Progress
from infcop.report.compare_page import write_comparison
from infcop.study.configure import check_data, load_comparison, resolve_comparison
from infcop.study.executor import Executor, local_executor
from infcop.study.jobs import (
    Job,
    check_runs,
    count_runs,
    equal_cost_jobs,
    first_jobs,
    never_begun,
)
from infcop.study.store import StudyStore
from infcop.study.summary import summarise
from infcop.study.work import Finished, already_finished, run_job

__all__ = ["compare", "default_folder", "report_again"]


def compare(
    config: str | os.PathLike[str] | Mapping[str, Any] | CompareConfig,
    *,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> StudyResults:
    """Run every method with every seed on every setting, and say how they compare.

    All methods of a setting share the recipe, the dense network of each seed, the densities and
    the final training. Runs that are finished in ``out`` are not made again, interrupted ones go
    on, and ``results.json`` there is written anew after each run.

    With more than one worker, other processes import the script that calls this: keep the call
    under ``if __name__ == "__main__":``.

    Args:
        config: A YAML file, its content, or the settings themselves.
        out: Folder of the study; by default ``studies/`` with the file's name.
        workers: Processes side by side; by default as many as there are CPUs. With 1, everything
            happens in this process.
        executor: Who carries out the runs, instead of local processes.
        progress: Who watches; by default the logger ``infcop``.

    Returns:
        A row for each sparse network, and the means, differences and intervals they give. A run
        that failed is among the ``failures``; the others are there all the same.

    Raises:
        ConfigError: A setting is unknown or out of range, or methods don't share a recipe.
        DataError: A data set is not there.
        RunFolderError: The folder is in use, unwritable, or holds runs with other settings.

    Example:
        >>> import tempfile, infcop
        >>> settings = {
        ...     "seeds": [0], "baseline": "lth", "densities": [0.5, 0.25],
        ...     "settings": {"digits": {
        ...         "data": {"name": "digits", "train_examples": 100}, "dense": {"passes": 1},
        ...         "levels": {"max_passes": 1}, "final": {"passes": 1}}},
        ...     "methods": {"lth": {"method": {"name": "lth", "schedule": {"remove": 0.5}}}},
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = infcop.compare(settings, out=folder, workers=1)
        >>> [(row.density, row.levels) for row in results.rows]
        [(0.5, 1), (0.25, 2)]
    """
    settings = _resolved(config)
    check_runs(settings)
    check_data(settings)
    store = StudyStore(out or default_folder(config))
    chosen = executor or local_executor(workers or os.cpu_count() or 1)
    with store.locked():
        study = _Study(settings, store, chosen, progress or LoggedProgress())
        study.carry_out(first_jobs(settings, store))
        study.carry_out(equal_cost_jobs(settings, store, study.rows))
        return study.conclude()


def report_again(store: StudyStore) -> StudyResults:
    """Write results and page of a study anew from its rows, without any run.

    Raises:
        RunFolderError: There are no results in the folder.
    """
    with store.locked():
        there = store.read_results()
        results = there.model_copy(update={"cells": summarise(there.config, there.rows)})
        store.write_results(results)
        write_comparison(results, store.page)
        return results


def default_folder(config: object) -> Path:
    """Return where a study lies unless it is told where to.

    Example:
        >>> default_folder("examples/compare.yaml").as_posix()
        'studies/compare'
    """
    name = Path(config).stem if isinstance(config, str | os.PathLike) else "comparison"
    return Path("studies") / name


def _resolved(config: str | os.PathLike[str] | Mapping[str, Any] | CompareConfig) -> CompareConfig:
    if isinstance(config, CompareConfig):
        return config
    if isinstance(config, Mapping):
        return resolve_comparison(config)
    return load_comparison(Path(config))


class _Study:
    """One study under way."""

    def __init__(
        self, config: CompareConfig, store: StudyStore, executor: Executor, progress: Progress
    ) -> None:
        self._config, self._store = config, store
        self._executor, self._progress = executor, progress
        self._done: list[Finished] = []
        self._total = count_runs(config)

    @property
    def rows(self) -> list[StudyRow]:
        """What is there so far, in the order of the settings, whatever the runs' own order was."""
        config = self._config
        settings, methods = list(config.settings), list(config.methods)
        return sorted(
            (row for finished in self._done for row in finished.rows),
            key=lambda row: (
                settings.index(row.setting),
                methods.index(row.method),
                config.seeds.index(row.seed),
                -row.density,
            ),
        )

    def carry_out(self, jobs: Iterable[Job]) -> None:
        """Make the runs that were not finished before."""
        missing = []
        for job in jobs:
            before = already_finished(job)
            if before is None:
                missing.append(job)
            else:
                self._done.append(before)
        if self._done:
            self._write()
        self._progress.begin("runs", self._total, len(self._done))
        with closing(self._executor.run(run_job, missing)) as arriving:
            for finished in arriving:
                self._take(finished)

    def _take(self, finished: Finished) -> None:
        self._done.append(finished)
        self._write()
        self._progress.step(len(self._done))
        place = f"{finished.job.name} ({len(self._done)} of {self._total} runs)"
        failed = [failure.message for failure in finished.failures]
        self._progress.say(f"{place}: {'failed: ' + failed[0] if failed else 'finished'}")

    def conclude(self) -> StudyResults:
        """Write the results and the page."""
        results = self._write(ended=True)
        write_comparison(results, self._store.page)
        return results

    def _write(self, *, ended: bool = False) -> StudyResults:
        failures = [failure for finished in self._done for failure in finished.failures]
        if ended:
            failures += never_begun(self._config, self.rows)
        results = StudyResults(
            config=self._config,
            versions=_joined([finished.versions for finished in self._done]),
            hardware=_joined([finished.hardware for finished in self._done]),
            runs=self._total,
            finished=sum(bool(finished.rows) for finished in self._done),
            rows=tuple(self.rows),
            cells=summarise(self._config, self.rows),
            failures=tuple(sorted(failures, key=_place)),
        )
        self._store.write_results(results)
        return results


def _place(failure: StudyFailure) -> tuple[str, str, int, float]:
    return failure.setting, failure.method, failure.seed, -(failure.density or 1.0)


def _joined(facts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what all runs say, with every value that differs."""
    found: dict[str, list[str]] = {}
    for fact in facts:
        for key, value in fact.items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return {key: " or ".join(values) for key, values in found.items()}
