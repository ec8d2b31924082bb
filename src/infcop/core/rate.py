"""The learning rate of the levels, as one more axis of a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from infcop.core.values import Value, named

__all__ = [
    "ConstantRate",
    "LinearRate",
    "LrSchedule",
    "OneRunRate",
    "Rate",
    "RestartRate",
    "ScheduleRate",
    "contradiction",
]

LrSchedule = Literal["constant", "step", "cosine", "one-cycle"]


class ScheduleRate(Value):
    """Follow the schedule of the dense training from the place that the rewind restores."""

    kind: Literal["schedule"] = "schedule"


class ConstantRate(Value):
    """Train with the same fraction of ``training.lr`` throughout."""

    kind: Literal["constant"] = "constant"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1


class RestartRate(Value):
    """Run a whole schedule over every level, however short its budget.

    Learning rate rewinding to the very start (Renda et al., arXiv 2003.02389), with the schedule
    shortened to what a level may train.
    """

    kind: Literal["restart"] = "restart"
    schedule: LrSchedule | None = None
    """By default that of the training recipe."""


class LinearRate(Value):
    """Let the rate fall on a straight line to nothing over the budget of every level."""

    kind: Literal["linear"] = "linear"
    start: Literal["adaptive", "peak"] = "adaptive"
    """What it falls from: ``training.lr``, or less where pruning took little and the budget is
    short (ALLR, arXiv 2111.00843)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the budget over which the rate rises to its start first."""


class OneRunRate(Value):
    """Stretch the schedule of the final training over all levels and the final training together.

    Gradual pruning is then one training with falling rate, in the course of which weights go.
    """

    kind: Literal["one-run"] = "one-run"


Rate = Annotated[
    Annotated[
        ScheduleRate | ConstantRate | RestartRate | LinearRate | OneRunRate,
        Field(discriminator="kind"),
    ],
    BeforeValidator(named),
]


def contradiction(rate: Rate, *, rewind: str, when: str, schedule: str, rule: str) -> str | None:
    """Return what the other axes of a method make impossible or meaningless, or None.

    Args:
        rate: The learning rate of the levels.
        rewind: Where weights and learning rate go back to.
        when: Before every level, or at the end only.
        schedule: The kind of the pruning schedule.
        rule: The stop rule.

    Example:
        >>> axes = {"rewind": "none", "when": "every-level", "schedule": "cubic"}
        >>> contradiction(OneRunRate(), **axes, rule="fixed-budget")
        >>> contradiction(OneRunRate(), **axes, rule="plateau")
        "rate 'one-run' must know how long ...: it needs stop.rule 'fixed-budget', got 'plateau'"
    """
    if rewind == "learning-rate" and not isinstance(rate, ScheduleRate | RestartRate):
        return (
            "rewind.to 'learning-rate' starts a schedule over: it needs the rate 'schedule' or "
            f"'restart', got '{rate.kind}'; set rewind.to to 'none', which keeps the weights too"
        )
    adaptive = isinstance(rate, LinearRate) and rate.start == "adaptive"
    if adaptive and rewind != "none" and when == "every-level":
        return (
            "rate 'linear' starts at what pruning took from the trained weights: with start "
            f"'adaptive' it needs rewind.to 'none', got '{rewind}'; set rate.start to 'peak', or "
            "rewind.when to 'end'"
        )
    return _of_one_run(rewind, schedule, rule) if isinstance(rate, OneRunRate) else None


def _of_one_run(rewind: str, schedule: str, rule: str) -> str | None:
    if rule != "fixed-budget":
        return (
            "rate 'one-run' must know how long every level trains before the first one begins: it "
            f"needs stop.rule 'fixed-budget', got '{rule}'"
        )
    if schedule == "sap":
        return (
            "rate 'one-run' must know how many levels there are before the first one begins: it "
            "needs any other schedule, such as 'cubic', got 'sap'"
        )
    if rewind != "none":
        return (
            "rate 'one-run' goes on from level to level without a break: it needs rewind.to "
            f"'none', got '{rewind}'"
        )
    return None
