"""Stop when the flow has stopped changing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infcop.core.comparison import Combine, Measure, Units, comparison_name, distance
from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.rule import State, StopContext

__all__ = ["SettlingRule"]


@dataclass(frozen=True)
class SettlingRule:
    r"""Stop with reason ``settled`` once the flow changes little against how it changed at first.

    With :math:`c_k` the distance between the matrices of readings :math:`k - 1` and :math:`k` of
    the level, over the passes between them, and :math:`\bar c_k` the mean of the last ``readings``
    of them, stop if and only if as many have been seen after the first and
    :math:`\bar c_k <` ``fraction`` :math:`c_1`.

    It compares with nothing outside the level, so it also works where units have moved, as with
    another initialisation. The reading right after pruning and changes that are not finite are
    passed over.

    Args:
        fraction: In (0, 1).
        readings: How many changes are averaged, at least 1.
        measure: Of the distance.
        combine: Of the distance.
        units: Of the distance.

    Raises:
        ConfigError: A setting is out of range.

    Example:
        >>> from infcop.core.records import Comparison
        >>> rule = SettlingRule(fraction=0.5, readings=1)
        >>> state = rule.init(StopContext(max_passes=8))
        >>> for passes, change in [(1.0, None), (2.0, 0.64), (3.0, 0.09)]:
        ...     moved = Comparison(difference=(change or 0,), present=(1.0,), reference=(1.0,))
        ...     compared = {} if change is None else {"last": moved}
        ...     reading = Reading(phase="level", level=1, passes=passes, comparisons=compared)
        ...     state, decision = rule.update(state, reading)
        >>> decision.stop, decision.reason.value
        (True, 'settled')
    """

    fraction: float = 0.3
    readings: int = 2
    measure: Measure = "frobenius"
    combine: Combine = "together"
    units: Units = "all"

    def __post_init__(self) -> None:
        if not (0 < self.fraction < 1 and self.readings >= 1):
            raise ConfigError(
                "SettlingRule: expected a fraction in (0, 1) and at least one reading, got "
                f"fraction={self.fraction} and readings={self.readings}"
            )

    def init(self, context: StopContext) -> State:
        """Return that nothing has been seen."""
        return {"first": None, "recent": [], "passes": 0.0}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Take in how far the flow has moved since the reading before."""
        comparison = reading.comparisons.get(comparison_name("last", self.units))
        span = reading.passes - state["passes"]
        state = {**state, "passes": reading.passes}
        if reading.passes == 0 or comparison is None or span <= 0:
            return state, StopDecision(stop=False, reason=StopReason.NOT_YET)
        change = distance(comparison, self.measure, self.combine) / span
        if not math.isfinite(change):
            return state, StopDecision(stop=False, reason=StopReason.NON_FINITE)
        if state["first"] is None:
            return {**state, "first": change}, StopDecision(stop=False, reason=StopReason.NOT_YET)
        recent = [*state["recent"], change][-self.readings :]
        mean = sum(recent) / len(recent)
        threshold = self.fraction * state["first"]
        stop = len(recent) == self.readings and mean < threshold
        decision = StopDecision(
            stop=stop,
            reason=StopReason.SETTLED if stop else StopReason.NOT_YET,
            evidence={"change_per_pass": mean, "threshold": threshold},
        )
        return {**state, "recent": recent}, decision
