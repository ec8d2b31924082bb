"""How the surviving entries are shared out among the layers, as settings of a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from infcop.core.values import Value

__all__ = ["Budgets", "Scope"]


class Budgets(Value):
    """A density for every layer, or the same for all that a name with ``*`` matches."""

    kind: Literal["budgets"] = "budgets"
    densities: dict[str, Annotated[float, Field(gt=0, le=1)]]
    """By the names of weights, with ``*`` for any characters; the first that matches counts. They
    are those of the end of the search, and must come to its density together; on the way, all
    layers are less sparse in proportion."""

    @field_validator("densities")
    @classmethod
    def _not_empty(cls, value: dict[str, float]) -> dict[str, float]:
        if not value:
            raise ValueError("expected a density for every layer, got none; '*' names them all")
        return value


Scope = Literal["global", "layerwise", "uniform", "erk", "lamp"] | Budgets
"""Where removal may take from: all layers together by score; of each layer the same fraction of
what it has left; each layer to the same density; densities by the Erdos-Renyi kernel rule (arXiv
1911.11134); all together by scores relative to those of the layer's larger weights (LAMP, arXiv
2010.07611); or given densities."""
