"""Stop when the held-out main metric is as good as a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.rule import State, StopContext

__all__ = ["AccuracyRule", "main_metric"]


@dataclass(frozen=True)
class AccuracyRule:
    """Stop with reason ``accuracy`` once the main metric reaches a target.

    With :math:`a` the main metric on the held-out split, stop if and only if

    ``a >= target - margin`` (higher is better) or ``a <= target + margin`` (lower is better).

    A metric that is not finite goes on with reason ``non-finite``.

    Args:
        target: ``None`` means the best value seen in the warm-up of the dense network.
        margin: How far short of the target is good enough, >= 0, in the metric's units.

    Raises:
        ConfigError: ``margin`` is negative or not finite.

    Example:
        >>> rule = AccuracyRule(margin=0.01)
        >>> state = rule.init(StopContext(warmup_best=0.90, max_passes=8))
        >>> _, decision = rule.update(state, Reading(phase="level", level=1, passes=1, main=0.895))
        >>> decision.stop, decision.reason.value
        (True, 'accuracy')
    """

    target: float | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not (self.margin >= 0 and math.isfinite(self.margin)):
            raise ConfigError(
                f"AccuracyRule: expected a finite margin of at least 0, got {self.margin}; "
                "it says how far short of the target is good enough"
            )

    def init(self, context: StopContext) -> State:
        """Return the threshold and the direction."""
        target = context.warmup_best if self.target is None else self.target
        if target is None or not math.isfinite(target):
            raise ConfigError(
                f"AccuracyRule: expected a finite target, got {target}; give a target, or "
                "evaluate the dense network on held-out data at least once in its warm-up"
            )
        margin = -self.margin if context.higher_is_better else self.margin
        return {"threshold": target + margin, "higher_is_better": context.higher_is_better}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Compare the main metric of a reading with the threshold."""
        metric, threshold = main_metric(reading, "AccuracyRule"), state["threshold"]
        if not math.isfinite(metric):
            evidence = {"threshold": threshold}
            return state, StopDecision(stop=False, reason=StopReason.NON_FINITE, evidence=evidence)
        stop = metric >= threshold if state["higher_is_better"] else metric <= threshold
        decision = StopDecision(
            stop=stop,
            reason=StopReason.ACCURACY if stop else StopReason.NOT_YET,
            evidence={"metric": metric, "threshold": threshold},
        )
        return state, decision


def main_metric(reading: Reading, rule: str) -> float:
    """Return the main metric of a reading; the rule's name is for the error.

    Raises:
        ConfigError: The model was not evaluated at this reading.

    Example:
        >>> main_metric(Reading(phase="level", level=1, passes=1, main=0.5), "AccuracyRule")
        0.5
    """
    if reading.main is None:
        raise ConfigError(
            f"{rule}: expected a main metric in every reading, got none after "
            f"{reading.passes:g} passes of level {reading.level}; evaluate the model on held-out "
            "data at every reading"
        )
    return reading.main
