"""Where a search begins to prune, as settings of a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from infcop.core.values import Value, named

__all__ = ["EarlyBird", "Initialisation", "Start", "Trained"]


class Trained(Value):
    """Prune the trained dense network."""

    kind: Literal["trained"] = "trained"


class Initialisation(Value):
    """Prune the network as it is given, and train only the sparse one."""

    kind: Literal["initialisation"] = "initialisation"


class EarlyBird(Value):
    """Stop the dense training once the mask that would be drawn has settled (arXiv 1909.11957)."""

    kind: Literal["early-bird"] = "early-bird"
    distance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Largest part of the prunable entries in which two of the last masks may differ."""
    window: Annotated[int, Field(ge=2)] = 5
    """Masks that are compared, one after each pass."""


Start = Annotated[
    Annotated[Trained | Initialisation | EarlyBird, Field(discriminator="kind")],
    BeforeValidator(named),
]
