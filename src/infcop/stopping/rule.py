"""What a stop rule is: a state passed in and returned, and a decision with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Protocol

from pydantic import Field

from infcop.core.records import Reading, StopDecision
from infcop.core.values import Value

__all__ = ["PASSES_SLACK", "State", "StopContext", "StopRule", "reached", "replay"]

PASSES_SLACK = 1e-9
"""Passes are sums of fractions of a pass; differences below this are rounding."""

State = Mapping[str, Any]
"""What a rule remembers of a level: dicts, lists, strings, booleans, finite floats and None only,
so it survives JSON unchanged. Never written to: ``update`` returns a new one."""


class StopContext(Value):
    """What a rule may know before a level begins."""

    reference: Reading | None = None
    """The reading that flow vectors are compared with, of the dense network or another state."""
    dense_passes: float | None = None
    """Training passes of the dense network: the natural unit of how long this network learns."""
    dense: tuple[Reading, ...] = ()
    """All readings of the dense training, in order: what the reference itself varies by."""
    warmup_best: float | None = None
    """The best main metric on the held-out split during the warm-up of the dense network."""
    higher_is_better: bool = True
    """The direction of the main metric."""
    max_passes: Annotated[float, Field(gt=0)]
    """The level's whole budget."""


class StopRule(Protocol):
    """Decides at every reading of a level whether to stop it.

    Rules are pure: what they return depends on their arguments only, so a stored record, replayed,
    gives the same decisions (:func:`replay`).
    """

    def init(self, context: StopContext) -> State:
        """Return the state before a level's first reading.

        Raises:
            FlowError: The rule compares with a reference that is missing or not finite.
            ConfigError: The rule needs a target that was neither given nor seen.
        """
        ...

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Return the next state and the decision at a reading.

        Raises:
            FlowError: The reading lacks the flow that the rule compares, or has another length.
            ConfigError: The reading lacks the metric that the rule compares.
        """
        ...


def replay(rule: StopRule, context: StopContext, readings: Iterable[Reading]) -> list[StopDecision]:
    """Return a rule's decisions over the recorded readings of one level, in order.

    It goes on after a decision to stop, so a record can be asked what another rule would have
    done with it.

    Example:
        >>> from infcop.stopping.budget import BudgetRule
        >>> readings = [Reading(phase="level", level=1, passes=p) for p in (1.0, 2.0, 3.0)]
        >>> decisions = replay(BudgetRule(passes=2), StopContext(max_passes=8), readings)
        >>> [decision.stop for decision in decisions]
        [False, True, True]
    """
    state = rule.init(context)
    decisions = []
    for reading in readings:
        state, decision = rule.update(state, reading)
        decisions.append(decision)
    return decisions


def reached(passes: float, threshold: float) -> bool:
    """Return whether so many passes are at least the threshold, up to rounding.

    Example:
        >>> 0.1 + 0.7 >= 0.8, reached(0.1 + 0.7, 0.8)
        (False, True)
    """
    return passes >= threshold - PASSES_SLACK
