"""Regrowth: exchanging entries while the sparse network trains, as settings of a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infcop.core.values import Value

__all__ = ["Regrow"]


class Regrow(Value):
    """Every so often, drop the smallest weights of each layer and grow as many others.

    The density of every layer stays as it is. Grown weights begin at zero.
    """

    by: Literal["gradient", "random"] = "gradient"
    """Grow where the gradient is largest (RigL, arXiv 1911.11134), or anywhere (SET, arXiv
    1707.04780)."""
    every: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Passes of training between two exchanges."""
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Of the surviving entries of a layer, exchanged at once."""
    decay: Literal["cosine", "none"] = "cosine"
    """Let the fraction fall to 0 along a half cosine, or keep it."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Part of the training after which the mask stays as it is."""
