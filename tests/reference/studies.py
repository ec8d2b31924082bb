"""Results of comparisons made up for tests: plausible numbers, without any run."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from infcop.core.study import StudyCost, StudyFailure, StudyResults, StudyRow
from infcop.study.configure import resolve_comparison
from infcop.study.jobs import Job, count_runs
from infcop.study.summary import summarise
from infcop.study.work import Finished

__all__ = [
    "comparison",
    "dies_on_seed_one",
    "make_row",
    "make_study",
    "says_its_process",
    "waits_unless_seed_zero",
]

TRAIN = 9000
DENSE_PASSES = 8

_LEVEL_PASSES = {"lth": 8.0, "fixed": 1.0, "shock": 0.4}
"""Per level; further methods take as many as the position of their label says."""


def comparison(**changes: Any) -> dict[str, Any]:
    """Return the settings of a small comparison as YAML would hold them, with changes."""
    return {
        "seeds": [0, 1, 2],
        "baseline": "lth",
        "densities": [0.2, 0.05],
        "settings": {"digits": {"data": {"name": "digits"}}},
        "methods": {
            "lth": {"method": {"name": "lth"}},
            "shock": {
                "method": {"name": "lth", "stop": {"rule": "plateau"}},
                "levels": {"unit": 0.25, "min_passes": 0},
            },
        },
        **changes,
    }


def make_row(setting: str, method: str, seed: int, density: float, **changes: Any) -> StudyRow:
    """Return a row whose accuracy falls with density and rises with training."""
    noise = random.Random(f"{setting} {seed}")
    dense = 0.86 + noise.gauss(0, 0.003)
    own = random.Random(f"{setting} {method} {seed} {density}").gauss(0, 0.002)
    passes = _LEVEL_PASSES.get(method, 0.3 + 0.5 * (len(method) % 5))
    levels = round(3 / density**0.5)
    held_out = 1000
    cost = StudyCost(
        dense=3 * TRAIN * DENSE_PASSES + held_out * DENSE_PASSES,
        levels_training=round(3 * TRAIN * passes * levels),
        levels_measuring=0 if method == "lth" else 2048 * levels,
        levels_evaluating=held_out * levels,
        final=3 * TRAIN * 12,
        total=0,
    )
    total = cost.dense + cost.levels + cost.final
    accuracy = dense - 0.0004 / density + 0.004 * (passes / 8) ** 0.3 + own
    row = StudyRow(
        setting=setting,
        method=method,
        seed=seed,
        density=density,
        kept=round(density * 60_000),
        prunable=60_000,
        main_metric="accuracy",
        higher_is_better=True,
        measured_on="test",
        sparse={"accuracy": accuracy, "loss": 1 - accuracy},
        dense={"accuracy": dense, "loss": 1 - dense},
        train_examples=TRAIN,
        cost=cost.model_copy(update={"total": total}),
        cost_vs_dense=total / (3 * TRAIN * DENSE_PASSES),
        training_passes=DENSE_PASSES + passes * levels + 12,
        measuring_passes=cost.levels_measuring / TRAIN,
        evaluating_passes=cost.levels_evaluating / TRAIN,
        levels=levels,
        untrained=0 if method == "lth" else levels // 2,
        at_minimum=0,
        at_cap=levels if method == "lth" else 1,
        passes_per_level=(passes,) * levels,
        stop_reasons={"budget": levels} if method == "lth" else {"budget": 1, "flow": levels - 1},
        seconds=total / 10_000 * (1 + 0.1 * own),
        run=f"runs/{setting}/{method}/{seed}",
    )
    return row.model_copy(update=changes)


def make_study(failures: tuple[StudyFailure, ...] = (), **changes: Any) -> StudyResults:
    """Return the results of a comparison in which every run is finished but those that failed."""
    config = resolve_comparison(comparison(**changes))
    failed = {(failure.setting, failure.method, failure.seed) for failure in failures}
    rows = tuple(
        make_row(setting, method, seed, density)
        for setting in config.settings
        for method in config.methods
        for seed in config.seeds
        for density in config.densities
        if (setting, method, seed) not in failed
    )
    return StudyResults(
        config=config,
        versions={"infcop": "0.1.0", "torch": "2.13.0"},
        hardware={"device": "cpu (x86_64)", "threads": "1"},
        runs=count_runs(config),
        finished=count_runs(config) - len(failed),
        rows=rows,
        cells=summarise(config, rows),
        failures=failures,
    )


def says_its_process(job: Job) -> Finished:
    """Stand for a run: say where it was made."""
    return Finished(job=job, versions={"process": str(os.getpid())})


def dies_on_seed_one(job: Job) -> Finished:
    """Stand for a run whose process is killed."""
    if job.seed == 1:
        os._exit(9)
    return Finished(job=job)


def waits_unless_seed_zero(job: Job) -> Finished:
    """Stand for long runs."""
    if job.seed != 0:
        time.sleep(3600)
    return Finished(job=job)
