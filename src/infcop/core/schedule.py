"""How much every level removes, as settings of a method."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from infcop.core.values import Value, named

__all__ = ["Adaptive", "Cubic", "Fraction", "Linear", "Listed", "OneShot", "Schedule"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Levels = Annotated[int, Field(ge=1)]


class Fraction(Value):
    """Remove the same fraction of the surviving entries at every level."""

    kind: Literal["fraction"] = "fraction"
    remove: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Adaptive(Value):
    """Remove what the PQ index of the surviving entries allows (SAP, arXiv 2302.05601)."""

    kind: Literal["sap"] = "sap"
    p: Positive = 0.5
    q: Positive = 1.0
    eta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    gamma: Positive = 1.0
    beta: Annotated[float, Field(gt=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _p_below_q(self) -> Adaptive:
        if self.p >= self.q:
            raise ValueError(f"expected 0 < p < q, got p={self.p:g}, q={self.q:g}")
        return self


class Linear(Value):
    """Remove the same number of entries at each of so many levels."""

    kind: Literal["linear"] = "linear"
    levels: Levels = 10


class Cubic(Value):
    """Remove much at first and ever less, in a fixed number of levels (arXiv 1710.01878)."""

    kind: Literal["cubic"] = "cubic"
    levels: Levels = 20


class OneShot(Value):
    """Go to the target in a single level."""

    kind: Literal["one-shot"] = "one-shot"


class Listed(Value):
    """Go through densities given one by one, and end at the target."""

    kind: Literal["list"] = "list"
    densities: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    """In falling order; those at and below the target of the search are passed over."""

    @field_validator("densities")
    @classmethod
    def _fall(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("expected at least one density, got none")
        if any(here <= after for here, after in pairwise(value)):
            raise ValueError(
                f"expected densities that fall, got {', '.join(f'{d:g}' for d in value)}; sort "
                "them, the largest first"
            )
        return value


Schedule = Annotated[
    Annotated[Fraction | Adaptive | Linear | Cubic | OneShot | Listed, Field(discriminator="kind")],
    BeforeValidator(named),
]
