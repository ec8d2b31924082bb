"""What a comparison finds: a row per search and density, and what they say together."""

from __future__ import annotations

from typing import Literal

from infcop.core.compare import CompareConfig
from infcop.core.values import Value

__all__ = [
    "STUDY_VERSION",
    "Estimate",
    "StudyCell",
    "StudyCost",
    "StudyFailure",
    "StudyResults",
    "StudyRow",
]

STUDY_VERSION = 1
"""Raised whenever results written by older code can no longer be read as they are."""


class StudyCost(Value):
    """What a search cost, by part, in forward passes of one example.

    A training example counts three, and so does one whose gradient was measured.
    """

    dense: int
    levels_training: int
    levels_measuring: int
    levels_evaluating: int
    final: int
    total: int

    @property
    def levels(self) -> int:
        """Training, measuring and evaluating of all levels."""
        return self.levels_training + self.levels_measuring + self.levels_evaluating


class StudyRow(Value):
    """One sparse network: a setting, a method, a seed and a density."""

    setting: str
    method: str
    seed: int
    density: float
    """As asked for."""
    kept: int
    prunable: int
    main_metric: str
    higher_is_better: bool
    measured_on: Literal["test", "held-out"]
    sparse: dict[str, float]
    dense: dict[str, float]
    """Empty where the method trained no dense network."""
    train_examples: int
    budget: float | None = None
    """Passes per level, where they were chosen for equal cost."""
    cost: StudyCost
    cost_vs_dense: float
    """``cost.total`` over the dense training."""
    training_passes: float
    measuring_passes: float
    evaluating_passes: float
    levels: int
    untrained: int
    """Levels that stopped before any training."""
    at_minimum: int
    """Levels that trained, but no longer than the minimum."""
    at_cap: int
    """Levels that used up their whole budget."""
    passes_per_level: tuple[float, ...]
    stop_reasons: dict[str, int]
    seconds: float
    run: str
    """Where the run's folder lies in that of the study."""
    warnings: tuple[str, ...] = ()

    @property
    def main(self) -> float:
        """The main metric of the sparse network."""
        return self.sparse[self.main_metric]


class StudyFailure(Value):
    """A run that did not give what it was asked for."""

    setting: str
    method: str
    seed: int
    density: float | None = None
    """``None`` where all densities of the run are missing."""
    message: str


class Estimate(Value):
    """A mean over seeds with its 95 % interval from Student's t."""

    mean: float
    low: float | None = None
    """``None`` for a single seed, which has no interval."""
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval."""
        if self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2


class StudyCell(Value):
    """A method at a density of a setting, over the seeds."""

    setting: str
    density: float
    method: str
    seeds: int
    main_metric: str
    higher_is_better: bool
    measured_on: Literal["test", "held-out"]
    main: Estimate
    dense: Estimate | None
    """The main metric of the dense network; ``None`` where no method trained one."""
    difference: Estimate | None = None
    """Main metric minus that of the baseline, paired by seed; ``None`` for the baseline itself."""
    bootstrap: tuple[float, float] | None = None
    """95 % percentile interval of the same difference, from resampled seeds."""
    cost_vs_dense: Estimate
    cost_vs_baseline: Estimate | None = None
    """Mean of the ratios seed by seed."""
    levels_cost_vs_target: Estimate | None = None
    """Cost of the levels over that of the method that it should equal, of its mean."""
    seconds_vs_baseline: Estimate | None = None
    training_passes: float
    measuring_passes: float
    evaluating_passes: float
    levels: float
    untrained: float
    at_minimum: float
    at_cap: float
    stop_reasons: dict[str, int]
    """Over all seeds."""
    pareto: bool
    """No other method is at least as good at no higher cost, and better in one of them. Methods
    that lack seeds which others have are left out."""


class StudyResults(Value):
    """Everything a comparison knows; written to ``results.json`` after each run."""

    schema_version: int = STUDY_VERSION
    config: CompareConfig
    versions: dict[str, str] = {}
    hardware: dict[str, str] = {}
    runs: int
    """How many there are to make in all."""
    finished: int = 0
    rows: tuple[StudyRow, ...] = ()
    cells: tuple[StudyCell, ...] = ()
    failures: tuple[StudyFailure, ...] = ()
