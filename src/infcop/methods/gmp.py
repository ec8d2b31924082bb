"""Gradual magnitude pruning (Zhu and Gupta, arXiv 1710.01878)."""

from __future__ import annotations

from infcop.core.method import Cubic, FixedBudget, MethodConfig, Rewind
from infcop.core.rate import OneRunRate

__all__ = ["gmp"]


def gmp() -> MethodConfig:
    """Remove less and less in twenty levels of a pass each, all in one training."""
    return MethodConfig(
        name="gmp",
        scope="global",
        schedule=Cubic(levels=20),
        rewind=Rewind(to="none"),
        rate=OneRunRate(),
        stop=FixedBudget(passes=1),
    )
