"""Stop when the correlation matrices have come close to those of another state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infcop.core.comparison import (
    Anchor,
    Combine,
    Measure,
    Units,
    comparison_name,
    distance,
)
from infcop.core.names import did_you_mean
from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError, FlowError
from infcop.stopping.floor import Floor, noise_floor
from infcop.stopping.rule import State, StopContext

__all__ = ["MatrixRule", "compared_distance"]


@dataclass(frozen=True)
class MatrixRule:
    r"""Stop if and only if ``distance < threshold`` (strictly).

    The distance is that of ``core.comparison.distance`` between the present correlation matrices
    and those of the reference. The threshold is ``epsilon``, or ``kappa`` times the noise floor
    (``stopping.floor``), so that it has the unit of what the dense network itself varies by. At
    the reading right after pruning, after 0 passes, the distance is always that from the network
    as it was last trained: the shock of pruning. There ``untrained`` takes the place of
    ``epsilon`` or ``kappa``, and the reason to stop is ``undisturbed``.

    A distance that is not finite goes on with reason ``non-finite``. With reference ``last`` the
    first reading of a level, which has none before it, goes on too.

    Args:
        reference: The state compared with.
        measure: Frobenius distance or cosine.
        combine: Edges together, their mean, or the worst.
        units: All, or those alive in both states.
        epsilon: Threshold > 0; or
        kappa: multiple of the noise floor, > 0.
        floor: Which noise floor.
        floor_readings: Changes that its drift is averaged over.
        untrained: Threshold or multiple for the reading right after pruning.

    Raises:
        ConfigError: Not exactly one of ``epsilon`` and ``kappa``, or one is out of range.

    Example:
        >>> from infcop.core.records import Comparison
        >>> near = Comparison(difference=(0.04,), present=(1.0,), reference=(1.0,))
        >>> rule = MatrixRule(epsilon=0.3)
        >>> reading = Reading(phase="level", level=1, passes=1, comparisons={"trained": near})
        >>> _, decision = rule.update(rule.init(StopContext(max_passes=8)), reading)
        >>> decision.stop, decision.evidence
        (True, {'distance': 0.2, 'threshold': 0.3})
    """

    reference: Anchor = "trained"
    measure: Measure = "frobenius"
    combine: Combine = "together"
    units: Units = "all"
    epsilon: float | None = None
    kappa: float | None = None
    floor: Floor = "drift"
    floor_readings: int | None = None
    untrained: float | None = None

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.kappa is None):
            raise ConfigError(
                f"MatrixRule: expected either epsilon or kappa, got epsilon={self.epsilon} and "
                f"kappa={self.kappa}; epsilon is a distance, kappa a multiple of the noise floor"
            )
        for name in ("epsilon", "kappa", "untrained"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"MatrixRule: expected a finite {name} above 0, got {value}")

    def init(self, context: StopContext) -> State:
        """Return both thresholds."""
        unit = 1.0 if self.kappa is None else self._floor(context)
        multiple = self.epsilon if self.kappa is None else self.kappa
        assert multiple is not None
        first = multiple if self.untrained is None else self.untrained
        return {"threshold": multiple * unit, "untrained": first * unit}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Compare the matrices of a reading with the reference."""
        untrained = reading.passes == 0
        threshold = state["untrained" if untrained else "threshold"]
        anchor: Anchor = "trained" if untrained else self.reference
        if anchor == "last" and comparison_name(anchor, self.units) not in reading.comparisons:
            return state, StopDecision(stop=False, reason=StopReason.NOT_YET)
        found = compared_distance(
            reading, anchor, self.measure, self.combine, self.units, "MatrixRule"
        )
        if not math.isfinite(found):
            evidence = {"non_finite_entries": 1.0, "threshold": threshold}
            return state, StopDecision(stop=False, reason=StopReason.NON_FINITE, evidence=evidence)
        stop = found < threshold
        reached = StopReason.UNDISTURBED if untrained else StopReason.FLOW
        decision = StopDecision(
            stop=stop,
            reason=reached if stop else StopReason.NOT_YET,
            evidence={"distance": found, "threshold": threshold},
        )
        return state, decision

    def _floor(self, context: StopContext) -> float:
        return noise_floor(
            context.dense,
            self.floor,
            readings=self.floor_readings,
            measure=self.measure,
            combine=self.combine,
            units=self.units,
        )


def compared_distance(
    reading: Reading,
    anchor: Anchor,
    measure: Measure,
    combine: Combine,
    units: Units,
    rule: str,
) -> float:
    """Return the distance of a reading from another state; the rule's name is for the error.

    Raises:
        FlowError: The reading was not compared with that state.
    """
    name = comparison_name(anchor, units)
    if name not in reading.comparisons:
        raise FlowError(
            f"{rule}: expected a reading compared with '{name}', got none after "
            f"{reading.passes:g} passes of level {reading.level}; "
            f"{did_you_mean(name, reading.comparisons)}. Measure every comparison that a rule needs"
        )
    return distance(reading.comparisons[name], measure, combine)
