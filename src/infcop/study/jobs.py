"""The runs that a comparison consists of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from infcop.core.compare import CompareConfig, StudySetting
from infcop.core.config import RunConfig
from infcop.core.method import FixedBudget
from infcop.core.study import StudyFailure, StudyRow
from infcop.core.validation import validated
from infcop.core.values import Value
from infcop.study.equal_cost import equal_budget
from infcop.study.store import StudyStore

__all__ = ["Job", "check_runs", "count_runs", "equal_cost_jobs", "first_jobs", "never_begun"]


class Job(Value):
    """One run of a comparison: everything that a worker has to know."""

    setting: str
    method: str
    seed: int
    config: RunConfig
    run_dir: Path
    dense_dir: Path
    run: str
    """``run_dir`` within the study."""
    budget: float | None = None
    """Passes per level, where they were chosen for equal cost."""

    @property
    def densities(self) -> tuple[float, ...]:
        """The densities that this run gives a network for, falling."""
        return (*self.config.milestones, self.config.density)

    @property
    def name(self) -> str:
        """Setting, method and seed, and the density of a run that has only one of them."""
        parts = [self.setting, self.method, f"seed {self.seed}"]
        return ", ".join(parts if self.config.milestones else [*parts, f"{self.config.density:g}"])

    def failed(self, message: str, density: float | None = None) -> StudyFailure:
        """Return what is told about a density that this run did not give, or about all of them."""
        whole = None if self.config.milestones else self.config.density
        return StudyFailure(
            setting=self.setting,
            method=self.method,
            seed=self.seed,
            density=whole if density is None else density,
            message=message,
        )


def first_jobs(config: CompareConfig, store: StudyStore) -> list[Job]:
    """Return the runs that depend on no other.

    Seeds come first: what a killed study leaves can be compared, and runs that go side by side
    rarely wait for, or repeat, the same dense training.
    """
    return [
        _job(config, store, setting, method, seed, densities)
        for seed in config.seeds
        for method, entry in config.methods.items()
        if entry.equal_cost_to is None
        for densities in _parts(config, entry.splits)
        for setting in config.settings
    ]


def equal_cost_jobs(
    config: CompareConfig, store: StudyStore, rows: Iterable[StudyRow]
) -> list[Job]:
    """Return the runs whose budget follows from finished ones, as far as those are all there."""
    rows = list(rows)
    return [
        _job(config, store, setting, method, seed, (density,), budget)
        for setting, method, density in _equal_cost_places(config)
        if (budget := _budget(config, rows, setting, method, density)) is not None
        for seed in config.seeds
    ]


def never_begun(config: CompareConfig, rows: Iterable[StudyRow]) -> Iterator[StudyFailure]:
    """Yield the equal-cost runs whose target did not finish with all seeds."""
    rows = list(rows)
    for setting, method, density in _equal_cost_places(config):
        if _budget(config, rows, setting, method, density) is None:
            target = config.methods[method].equal_cost_to
            message = f"not run: its budget follows from '{target}', of which a seed is missing"
            for seed in config.seeds:
                yield StudyFailure(
                    setting=setting, method=method, seed=seed, density=density, message=message
                )


def count_runs(config: CompareConfig) -> int:
    """Return how many runs there are in all."""
    parts = sum(len(_parts(config, entry.splits)) for entry in config.methods.values())
    return parts * len(config.settings) * len(config.seeds)


def check_runs(config: CompareConfig) -> None:
    """Make sure that every method gives the settings of a run on every setting.

    Raises:
        ConfigError: Names the method, the setting and the key.
    """
    for setting in config.settings:
        for method, entry in config.methods.items():
            budget = None if entry.equal_cost_to is None else 1.0
            for densities in _parts(config, entry.splits):
                _run_config(config, setting, method, config.seeds[0], densities, budget)


def _parts(config: CompareConfig, splits: bool) -> list[tuple[float, ...]]:
    return [(density,) for density in config.densities] if splits else [config.densities]


def _equal_cost_places(config: CompareConfig) -> Iterator[tuple[str, str, float]]:
    for setting in config.settings:
        for method, entry in config.methods.items():
            if entry.equal_cost_to is not None:
                yield from ((setting, method, density) for density in config.densities)


def _budget(
    config: CompareConfig, rows: list[StudyRow], setting: str, method: str, density: float
) -> float | None:
    """Return the passes per level of an equal-cost run, once all seeds of its target are there."""
    entry = config.methods[method]
    target = [
        row
        for row in rows
        if (row.setting, row.method, row.density) == (setting, entry.equal_cost_to, density)
    ]
    if len(target) < len(config.seeds):
        return None
    most = config.settings[setting].levels.max_levels
    return equal_budget(target, entry.method, most)


def _job(
    config: CompareConfig,
    store: StudyStore,
    setting: str,
    method: str,
    seed: int,
    densities: Sequence[float],
    budget: float | None = None,
) -> Job:
    splits = config.methods[method].splits
    part = f"{densities[0]:g}" if splits else ""
    # With more seeds the mean cost changes, and with it the budget: that is another run.
    part += "" if budget is None else f"-{budget:g}-passes"
    run_dir = store.run(setting, method, seed, part)
    return Job(
        setting=setting,
        method=method,
        seed=seed,
        config=_run_config(config, setting, method, seed, densities, budget),
        run_dir=run_dir,
        dense_dir=store.dense(setting, seed),
        run=run_dir.relative_to(store.root).as_posix(),
        budget=budget,
    )


def _run_config(
    config: CompareConfig,
    setting: str,
    method: str,
    seed: int,
    densities: Sequence[float],
    budget: float | None,
) -> RunConfig:
    problem, entry = config.settings[setting], config.methods[method]
    axes = entry.method
    levels = {**problem.levels.model_dump(), **entry.levels.model_dump(exclude_none=True)}
    if budget is not None:
        axes = axes.model_copy(update={"stop": FixedBudget(passes=budget)})
        # A reading at every pass at most: with another unit below, the dense training would be
        # read elsewhere, and no longer be shared with the other methods.
        unit = max(levels["unit"], 1.0)
        levels |= {"unit": unit, "min_passes": budget, "max_passes": budget}
    recipe = {name: getattr(problem, name) for name in StudySetting.model_fields}
    *milestones, density = densities
    return validated(
        RunConfig,
        {
            **recipe,
            "levels": levels,
            "method": axes,
            "seed": seed,
            "milestones": milestones,
            "density": density,
        },
        at=f"methods.{method} with settings.{setting}",
    )
