"""Iterative pruning and fine-tuning (Han et al., arXiv 1506.02626)."""

from __future__ import annotations

from infcop.core.method import FixedBudget, Fraction, MethodConfig, Rewind
from infcop.core.rate import ScheduleRate

__all__ = ["fine_tune"]


def fine_tune() -> MethodConfig:
    """Remove 20 % over all layers per level, train on for a pass at the last learning rate."""
    return MethodConfig(
        name="fine-tune",
        scope="global",
        schedule=Fraction(remove=0.2),
        rewind=Rewind(to="none"),
        rate=ScheduleRate(),
        stop=FixedBudget(passes=1),
    )
