"""Iterative magnitude pruning with rewinding (Frankle and Carbin, arXiv 1803.03635)."""

from __future__ import annotations

from infcop.core.method import FixedBudget, Fraction, MethodConfig, Rewind

__all__ = ["lth"]


def lth() -> MethodConfig:
    """Remove 20 % of every layer per level, go back to initialisation, train the full budget."""
    return MethodConfig(
        name="lth",
        scope="layerwise",
        schedule=Fraction(remove=0.2),
        rewind=Rewind(to="initialisation"),
        stop=FixedBudget(),
    )
