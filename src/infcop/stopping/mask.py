"""Stop when the mask that would be drawn next no longer changes."""

from __future__ import annotations

from dataclasses import dataclass

from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.rule import State, StopContext

__all__ = ["MaskRule"]


@dataclass(frozen=True)
class MaskRule:
    """Stop with reason ``mask`` after enough readings at which the next mask hardly changed.

    Stop if and only if at the last ``readings`` readings ``mask_change < epsilon``: entries in
    which the mask drawn from the present weights differs from the one drawn at the reading
    before, over the entries it keeps. After Early-Bird tickets (You et al., arXiv 1909.11957,
    section 3), which compare channel masks one epoch apart, normalised to [0, 1], below 0.1 over
    five epochs, and stop the training of the dense network by it.

    The change between two readings grows with the distance between them, so ``epsilon`` belongs
    to a unit of reading. A reading without a mask to compare with goes on.

    Args:
        epsilon: In (0, 2].
        readings: At least 1.

    Raises:
        ConfigError: A setting is out of range.

    Example:
        >>> rule = MaskRule(epsilon=0.1)
        >>> reading = Reading(phase="level", level=1, passes=2, mask_change=0.05)
        >>> _, decision = rule.update(rule.init(StopContext(max_passes=8)), reading)
        >>> decision.stop, decision.reason.value
        (True, 'mask')
    """

    epsilon: float = 0.1
    readings: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.epsilon <= 2 and self.readings >= 1):
            raise ConfigError(
                "MaskRule: expected an epsilon in (0, 2] and at least one reading, got "
                f"epsilon={self.epsilon} and readings={self.readings}"
            )

    def init(self, context: StopContext) -> State:
        """Return that nothing has been seen."""
        return {"below": 0}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Count the readings in a row at which the mask kept still."""
        change = reading.mask_change
        if change is None:
            return {"below": 0}, StopDecision(stop=False, reason=StopReason.NOT_YET)
        below = state["below"] + 1 if change < self.epsilon else 0
        stop = below >= self.readings
        decision = StopDecision(
            stop=stop,
            reason=StopReason.MASK if stop else StopReason.NOT_YET,
            evidence={"mask_change": change, "threshold": self.epsilon},
        )
        return {"below": below}, decision
