"""Stop when the flow has come back to that of the dense network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infcop.core.names import did_you_mean
from infcop.core.records import Flow, Reading, StopDecision, StopReason
from infcop.errors import ConfigError, FlowError
from infcop.stopping.rule import State, StopContext

__all__ = ["FlowRule", "flow_distance", "relative_flow_distance"]


def flow_distance(present: Sequence[float], reference: Sequence[float]) -> float:
    r"""Return :math:`\| v - v^* \|_2`, as in the public code of arXiv 2501.15592.

    Args:
        present: :math:`v`, a flow vector.
        reference: :math:`v^*`, of the same length.

    Returns:
        A number >= 0; at most :math:`2 \sqrt{L - 1}` for the information flow of L - 1 edges.

    Raises:
        FlowError: The vectors are empty or differ in length.

    Example:
        >>> flow_distance([0.5, 0.0], [0.1, 0.3])
        0.5
    """
    _check_lengths(present, reference)
    return math.dist(present, reference)


def relative_flow_distance(present: Sequence[float], reference: Sequence[float]) -> float:
    r"""Return :math:`\| v - v^* \|_2 / \| v^* \|_2`, which does not depend on the flow's scale.

    Raises:
        FlowError: The vectors are empty, differ in length, or the reference is zero.

    Example:
        >>> relative_flow_distance([5.0, 0.0], [3.0, 4.0])
        0.894427190999...
    """
    _check_lengths(present, reference)
    scale = math.hypot(*reference)
    if scale == 0:
        raise FlowError(
            "relative_flow_distance: expected a reference that is not zero, got zeros only; "
            "the dense network passes no signal, so use the absolute rule or another reference"
        )
    return math.dist(present, reference) / scale


@dataclass(frozen=True)
class FlowRule:
    """Stop with reason ``flow`` if and only if ``distance(v, v*) < epsilon`` (strictly).

    A present flow that is not finite goes on with reason ``non-finite``; a reference that is not
    finite could never be met and is refused at once.

    Args:
        flow: Which of a reading's vectors is compared.
        epsilon: Threshold > 0. It does not transfer from one kind of flow to another.
        distance: :func:`flow_distance` or :func:`relative_flow_distance`.
        reference_flow: Which of the reference's vectors it is compared with; by default the same.

    Raises:
        ConfigError: ``epsilon`` is not a finite number above 0.

    Example:
        >>> def reading(*flow):
        ...     flows = {"information.signed": flow}
        ...     return Reading(phase="level", level=1, passes=1, flows=flows)
        >>> rule = FlowRule("information.signed", epsilon=0.11)
        >>> state = rule.init(StopContext(reference=reading(0.1, 0.2), max_passes=8))
        >>> _, decision = rule.update(state, reading(0.1, 0.3))
        >>> decision.stop, decision.reason.value
        (True, 'flow')
    """

    flow: Flow
    epsilon: float
    distance: Callable[[Sequence[float], Sequence[float]], float] = flow_distance
    reference_flow: Flow | None = None

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ConfigError(
                f"FlowRule: expected a finite epsilon above 0, got {self.epsilon}; "
                "for signed information flow values from 0.08 to 0.15 are usual"
            )

    def init(self, context: StopContext) -> State:
        """Return the reference vector."""
        flow = self.flow if self.reference_flow is None else self.reference_flow
        if context.reference is None:
            raise FlowError(
                f"FlowRule: expected a reference reading with '{flow}', got none; "
                "read the flow of the dense network before the first level"
            )
        reference = _vector(context.reference, flow, "the reference")
        if not all(map(math.isfinite, reference)):
            raise FlowError(
                f"FlowRule: expected a finite reference '{flow}', got {list(reference)}; no "
                "level could ever stop, so look for exploding activations in the dense network"
            )
        self.distance(reference, reference)  # Refuses a reference that nothing can be compared to.
        return {"reference": list(reference), "pruned": context.reference.phase == "pruned"}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Compare the flow of a reading with the reference."""
        present = _vector(reading, self.flow, "a reading")
        if state["pruned"] and reading.passes == 0:
            # The reference itself: its distance of 0 would end every level before any training.
            return state, StopDecision(stop=False, reason=StopReason.NOT_YET)
        broken = sum(not math.isfinite(entry) for entry in present)
        distance = self.distance(present, state["reference"])
        evidence = {"distance": distance, "threshold": self.epsilon}
        reason = StopReason.FLOW if distance < self.epsilon else StopReason.NOT_YET
        if broken:
            # The distance is NaN or infinite too, and NaN would make equal decisions unequal.
            evidence = {"non_finite_entries": float(broken), "threshold": self.epsilon}
            reason = StopReason.NON_FINITE
        decision = StopDecision(stop=reason is StopReason.FLOW, reason=reason, evidence=evidence)
        return state, decision


def _vector(reading: Reading, flow: Flow, whose: str) -> tuple[float, ...]:
    if flow not in reading.flows:
        raise FlowError(
            f"FlowRule: expected {whose} to hold '{flow}'; "
            f"{did_you_mean(flow, reading.flows)}; measure every flow that a rule needs"
        )
    return reading.flows[flow]


def _check_lengths(present: Sequence[float], reference: Sequence[float]) -> None:
    if len(present) != len(reference) or not reference:
        raise FlowError(
            f"flow distance: expected two vectors of the same length, at least 1, got lengths "
            f"{len(present)} and {len(reference)}; measure both over the same edges or parameters"
        )
