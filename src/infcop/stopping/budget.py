"""Stop after a fixed number of passes."""

from __future__ import annotations

from dataclasses import dataclass

from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.rule import State, StopContext, reached

__all__ = ["BudgetRule"]


@dataclass(frozen=True)
class BudgetRule:
    """Stop with reason ``budget`` if and only if ``reading.passes >= passes``.

    Args:
        passes: Training passes of the level, at least 0; ``None`` means the level's whole budget.

    Raises:
        ConfigError: ``passes`` is below 0.

    Example:
        >>> rule = BudgetRule(passes=None)
        >>> state = rule.init(StopContext(max_passes=2))
        >>> _, decision = rule.update(state, Reading(phase="level", level=1, passes=2))
        >>> decision.stop, decision.reason.value
        (True, 'budget')
    """

    passes: float | None = None

    def __post_init__(self) -> None:
        if self.passes is not None and not self.passes >= 0:
            raise ConfigError(
                f"BudgetRule: expected passes of at least 0, got {self.passes}; "
                "leave it out for the level's whole budget"
            )

    def init(self, context: StopContext) -> State:
        """Return the budget."""
        return {"budget": context.max_passes if self.passes is None else self.passes}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Compare the passes of a reading with the budget."""
        stop = reached(reading.passes, state["budget"])
        decision = StopDecision(
            stop=stop,
            reason=StopReason.BUDGET if stop else StopReason.NOT_YET,
            evidence={"passes": reading.passes, "budget": state["budget"]},
        )
        return state, decision
