"""Budgeted iterative magnitude pruning (Zimmer et al., arXiv 2111.00843)."""

from __future__ import annotations

from infcop.core.method import FixedBudget, Fraction, MethodConfig, Rewind
from infcop.core.rate import LinearRate

__all__ = ["bimp"]


def bimp() -> MethodConfig:
    """Remove 20 % over all layers per level, train a pass at a rate that falls from what it did."""
    return MethodConfig(
        name="bimp",
        scope="global",
        schedule=Fraction(remove=0.2),
        rewind=Rewind(to="none"),
        rate=LinearRate(start="adaptive"),
        stop=FixedBudget(passes=1),
    )
