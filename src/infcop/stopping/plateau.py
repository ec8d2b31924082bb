"""Stop when the held-out main metric, or the training loss, has stopped improving."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.accuracy import main_metric
from infcop.stopping.rule import State, StopContext, reached

__all__ = ["LossRule", "PlateauRule"]


@dataclass(frozen=True)
class PlateauRule:
    """Stop with reason ``plateau`` after a number of passes without an improvement.

    With ``a`` the main metric of a reading and ``best`` the best before it, ``a`` is an
    improvement if and only if it is finite and

    ``a > best + improvement * abs(best)`` (higher is better) or
    ``a < best - improvement * abs(best)`` (lower is better),

    or no finite metric came before. The level stops if and only if

    ``passes - passes_of_best >= patience``

    where ``passes_of_best`` is the place of the last improvement, 0 before the first. A metric
    that is not finite never improves, so a level whose metric stays broken ends too.

    Args:
        patience: Passes without an improvement, > 0.
        improvement: Fraction of the best's size, >= 0.

    Raises:
        ConfigError: A setting is out of range.

    Example:
        >>> rule = PlateauRule(patience=1)
        >>> state = rule.init(StopContext(max_passes=8))
        >>> for passes, metric in [(1, 0.8), (2, 0.8)]:
        ...     reading = Reading(phase="level", level=1, passes=passes, main=metric)
        ...     state, decision = rule.update(state, reading)
        >>> decision.stop, decision.reason.value
        (True, 'plateau')
    """

    patience: float = 2.0
    improvement: float = 0.0

    def __post_init__(self) -> None:
        if not self.patience > 0:
            raise ConfigError(
                f"PlateauRule: expected a patience above 0 passes, got {self.patience}"
            )
        if not (self.improvement >= 0 and math.isfinite(self.improvement)):
            raise ConfigError(
                "PlateauRule: expected an improvement that is a finite fraction of at least 0, "
                f"got {self.improvement}"
            )

    def init(self, context: StopContext) -> State:
        """Return that nothing has been seen, and the direction."""
        return {
            "best": None,
            "passes_of_best": 0.0,
            "higher_is_better": context.higher_is_better,
        }

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Keep the best and count the passes since it came."""
        return self.after(state, main_metric(reading, "PlateauRule"), reading.passes)

    def after(
        self,
        state: State,
        metric: float,
        passes: float,
        reason: StopReason = StopReason.PLATEAU,
    ) -> tuple[State, StopDecision]:
        """Return state and decision after a value at a place."""
        if self._improves(metric, state):
            state = {**state, "best": metric, "passes_of_best": passes}
        waited = passes - state["passes_of_best"]
        stop = reached(waited, self.patience)
        evidence = {"passes_without_improvement": waited, "patience": self.patience}
        if state["best"] is not None:
            evidence["best"] = state["best"]
        decision = StopDecision(
            stop=stop, reason=reason if stop else StopReason.NOT_YET, evidence=evidence
        )
        return state, decision

    def _improves(self, metric: float, state: State) -> bool:
        best = state["best"]
        if not math.isfinite(metric) or best is None:
            return math.isfinite(metric)
        margin = self.improvement * abs(best)
        if state["higher_is_better"]:
            return bool(metric > best + margin)
        return bool(metric < best - margin)


@dataclass(frozen=True)
class LossRule:
    """Stop with reason ``loss`` after a number of passes without a fall of the training loss.

    :class:`PlateauRule` on the mean training loss since the reading before; lower is better. A
    reading without training has no loss and goes on.

    Args:
        patience: Passes without a fall, > 0.
        improvement: Fraction of the lowest loss's size, >= 0.

    Raises:
        ConfigError: A setting is out of range.

    Example:
        >>> rule = LossRule(patience=1)
        >>> state = rule.init(StopContext(max_passes=8))
        >>> for passes, loss in [(1, 0.5), (2, 0.499)]:
        ...     reading = Reading(phase="level", level=1, passes=passes, train_loss=loss)
        ...     state, decision = rule.update(state, reading)
        >>> decision.stop, decision.reason.value
        (True, 'loss')
    """

    patience: float = 2.0
    improvement: float = 0.01

    def __post_init__(self) -> None:
        self._plateau()

    def init(self, context: StopContext) -> State:
        """Return that nothing has been seen."""
        return {**self._plateau().init(context), "higher_is_better": False}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Keep the lowest loss and count the passes since it came."""
        if reading.train_loss is None:
            return state, StopDecision(stop=False, reason=StopReason.NOT_YET)
        return self._plateau().after(state, reading.train_loss, reading.passes, StopReason.LOSS)

    def _plateau(self) -> PlateauRule:
        return PlateauRule(self.patience, self.improvement)
