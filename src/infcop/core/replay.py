"""What replaying stop rules on stored records asks and finds. Pure values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infcop.core.method import StopConfig
from infcop.core.records import StopReason
from infcop.core.values import Value

__all__ = [
    "Correlation",
    "Course",
    "Curves",
    "Replay",
    "ReplayRule",
    "ReplayedLevel",
    "ReplayedRecord",
    "ReplayedRule",
]


class ReplayRule(Value):
    """A stop rule to try, with what else decides when it stops."""

    stop: StopConfig
    reference: Literal["warm-up", "dense", "pruned", "trained"] | None = None
    """What flow vectors are compared with; by default as in the record."""
    min_passes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Passes below which it may not stop; by default what a run with this rule has."""


class ReplayedRecord(Value):
    """A record that rules were replayed on."""

    name: str
    model: str
    data: str
    levels: int
    """Those that have stopped; a level under way is left out."""
    readings: int
    """Of these levels, while they trained."""
    budget: float
    """Passes of each level."""
    tolerance: float
    """How far short of its end a level's metric may lie and still count as recovered."""
    finished: bool
    not_finite: int
    """Readings whose held-out metric is not finite."""


class Course(Value):
    """How the held-out metric went in a level."""

    record: str
    level: int
    density: float
    end: float | None
    """Its mean over the last quarter of the readings; ``None`` where none is finite."""
    recovered: float | None
    """Passes of training from which on it stays within the tolerance of the end."""
    spared: bool
    """Whether it was there right after pruning, before any rewinding or training."""


class ReplayedLevel(Value):
    """What a rule would have done at a level."""

    record: str
    level: int
    passes: float
    """Where it stops."""
    reason: StopReason
    main: float | None
    """The held-out metric there; ``None`` where it is not finite."""
    lost: float | None
    """How much worse that is than at the end of the level, in the metric's units."""
    recovered: float | None
    """Passes at which the level had recovered; 0 also where it was spared and the rule may leave
    a level untrained."""
    at_minimum: bool
    """Whether it stops at the first reading at which it may."""
    at_budget: bool
    """Whether it uses up the budget."""
    not_finite: int = 0
    """Readings up to there from which it could decide nothing."""

    @property
    def wasted(self) -> float | None:
        """Passes from recovery to the stop; below zero where it stops too early."""
        return None if self.recovered is None else self.passes - self.recovered


class ReplayedRule(Value):
    """What a rule would have done, and the means over all levels of all records."""

    label: str
    rule: ReplayRule
    levels: tuple[ReplayedLevel, ...]
    refused: dict[str, int] = {}
    """Why the rule could not be asked at some levels, and at how many; they are in no mean."""
    passes: float
    main: float | None
    wasted: float | None
    lost: float | None
    lost_by_fixed: float | None
    """What a fixed budget of as many passes at every level loses; ``None`` below the first
    reading."""
    untrained: float
    """Share of the levels, as all that follow."""
    at_minimum: float
    at_budget: float
    not_finite: int = 0


class Correlation(Value):
    """How a distance goes with the deficit of the metric, within levels."""

    name: str
    mean: float | None
    """Spearman's coefficient averaged over levels: 1 where the one falls whenever the other does;
    ``None`` where no level has one."""
    lowest: float | None
    """Of all levels."""
    levels: int
    constant: int = 0
    """Levels left out because the distance or the metric is the same at all readings."""
    short: int = 0
    """Levels left out because they have fewer than three readings with both."""
    not_finite: int = 0
    """Readings left out because the distance is not finite."""


class Curves(Value):
    """Metric and distances along a level, for a drawing."""

    record: str
    level: int
    density: float
    recovered: float | None
    passes: tuple[float, ...]
    deficit: tuple[float | None, ...]
    """How far the metric lies short of the end of the level."""
    distances: dict[str, tuple[float | None, ...]]


class Replay(Value):
    """Rules and distances on stored records."""

    main_metric: str
    higher_is_better: bool
    records: tuple[ReplayedRecord, ...]
    courses: tuple[Course, ...]
    rules: tuple[ReplayedRule, ...]
    skipped: dict[str, str] = {}
    """Rules of the catalogue that these records can't answer, and why."""
    fixed: tuple[tuple[float, float], ...] = ()
    """Passes of a fixed budget, and what it loses on average over the levels."""
    correlations: tuple[Correlation, ...] = ()
    """The closest first."""
    curves: tuple[Curves, ...] = ()
    """Of a few levels and distances."""
