"""Train a level for as long as the shock of its pruning asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infcop.core.comparison import Combine, Measure, Units
from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.matrix import compared_distance
from infcop.stopping.rule import State, StopContext, reached

__all__ = ["ShockRule"]


@dataclass(frozen=True)
class ShockRule:
    r"""Stop with reason ``shock`` once a level has trained as long as its shock asks for.

    .. math:: b = p\, T\, \min(s, 1)^k

    passes, with :math:`T` the passes of the dense training and :math:`s` the *shock*: the distance
    of the correlation matrices right after pruning from those of the network as it was last
    trained, relative to the size of the latter. Where :math:`b <` ``least`` :math:`T`, the level
    stops at once with reason ``undisturbed``; the next level's shock is then measured from the
    same trained network, so what small prunings do adds up until it counts.

    The reading right after pruning is all that the rule looks at: training need not be measured.
    A shock that is not finite counts as 1.

    Args:
        fraction: :math:`p` > 0, of the dense training, for a level whose shock is 1 or more.
        power: :math:`k` > 0.
        least: Part of the dense training below which a level is not trained, in [0, 1).
        measure: Of the distance.
        combine: Of the distance.
        units: Of the distance.

    Raises:
        ConfigError: A setting is out of range.

    Example:
        >>> from infcop.core.records import Comparison
        >>> moved = Comparison(difference=(0.25,), present=(1.0,), reference=(1.0,))
        >>> pruned = Reading(phase="level", level=1, passes=0, comparisons={"trained": moved})
        >>> rule = ShockRule(fraction=0.2)
        >>> state = rule.init(StopContext(dense_passes=10, max_passes=8))
        >>> state, decision = rule.update(state, pruned)
        >>> decision.evidence["distance"], decision.until
        (0.5, 0.25)
    """

    fraction: float = 0.35
    power: float = 3.0
    least: float = 0.005
    measure: Measure = "frobenius"
    combine: Combine = "together"
    units: Units = "all"

    def __post_init__(self) -> None:
        for name in ("fraction", "power"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"ShockRule: expected a finite {name} above 0, got {value}")
        if not 0 <= self.least < 1:
            raise ConfigError(
                f"ShockRule: expected least, a part of the dense training, in [0, 1), got "
                f"{self.least}"
            )

    def init(self, context: StopContext) -> State:
        """Return the length of the dense training; the shock is not known yet."""
        if context.dense_passes is None:
            raise ConfigError(
                "ShockRule: expected the passes of the dense training, got none; the budget of a "
                "level is a part of them"
            )
        return {"dense": context.dense_passes, "budget": context.max_passes}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Take the shock from the reading right after pruning, and count passes from then on."""
        if reading.passes == 0:
            return self._measure(state, reading)
        stop = reached(reading.passes, state["budget"])
        return state, StopDecision(
            stop=stop,
            reason=StopReason.SHOCK if stop else StopReason.NOT_YET,
            evidence={"passes": reading.passes, "budget": state["budget"]},
        )

    def _measure(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        shock = compared_distance(
            reading, "trained", self.measure, self.combine, self.units, "ShockRule"
        )
        finite = math.isfinite(shock)
        size = min(shock, 1.0) if finite else 1.0
        part = self.fraction * size**self.power
        budget = part * state["dense"]
        stop = part < self.least
        going = StopReason.NOT_YET if finite else StopReason.NON_FINITE
        threshold = (self.least / self.fraction) ** (1 / self.power)
        found = {"distance": shock} if finite else {"non_finite_entries": 1.0}
        decision = StopDecision(
            stop=stop,
            reason=StopReason.UNDISTURBED if stop else going,
            evidence={**found, "threshold": threshold, "passes": 0.0, "budget": budget},
            until=None if stop else budget,
        )
        return {**state, "budget": budget}, decision
