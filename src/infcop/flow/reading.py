"""What a measurement of flow gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from infcop.core.records import Flow
from infcop.flow.moments import CoMoments

__all__ = ["FlowReading", "Source"]

Source = Literal["probe", "training"]


@dataclass(frozen=True)
class FlowReading:
    """One measurement of flow.

    Attributes:
        source: ``"probe"``: on fixed examples in evaluation mode; ``"training"``: on what training
            computed anyway.
        flows: Vectors by name: one entry per edge for information, one per parameter for
            gradient. Not finite where an activation or the loss was not.
        dead_units: Per layer of the edges, the channels that did not vary over the examples.
        examples: Examples measured, over all processes.
        forward_examples: Those of them that took a forward pass of their own, and nothing more.
        gradient_examples: Those of them that took a forward and a backward pass of their own.
        standard_errors: Of the information vectors, where asked for.
        moments: What correlation matrices and effective ranks are made of, where asked for.
        non_finite: The layers and parameters with a non-finite value, each with the number of the
            first batch in this process that had one (None where it is not known).
    """

    source: Source
    flows: dict[Flow, tuple[float, ...]]
    dead_units: dict[str, int]
    examples: int
    forward_examples: int
    gradient_examples: int
    standard_errors: dict[Flow, tuple[float, ...]] = field(default_factory=dict)
    moments: CoMoments | None = None
    non_finite: dict[str, int | None] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether all entries of all vectors are."""
        return all(math.isfinite(value) for vector in self.flows.values() for value in vector)
