"""Iterative magnitude pruning with early rewinding (Frankle et al., arXiv 1912.05671)."""

from __future__ import annotations

from infcop.core.method import FixedBudget, Fraction, MethodConfig, Rewind

__all__ = ["lth_rewind"]


def lth_rewind() -> MethodConfig:
    """Remove 20 % over all layers per level, go back to the first pass, train the full budget."""
    return MethodConfig(
        name="lth-rewind",
        scope="global",
        schedule=Fraction(remove=0.2),
        rewind=Rewind(to="epoch", passes=1),
        stop=FixedBudget(),
    )
