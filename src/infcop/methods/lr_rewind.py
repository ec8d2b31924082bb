"""Learning rate rewinding (Renda et al., arXiv 2003.02389)."""

from __future__ import annotations

from infcop.core.method import FixedBudget, Fraction, MethodConfig, OneShot, Rewind
from infcop.core.rate import RestartRate

__all__ = ["lr_rewind", "lr_rewind_one_shot"]


def lr_rewind() -> MethodConfig:
    """Remove 20 % over all layers per level, keep the weights, run the whole schedule again."""
    return MethodConfig(
        name="lr-rewind",
        scope="global",
        schedule=Fraction(remove=0.2),
        rewind=Rewind(to="learning-rate"),
        rate=RestartRate(),
        stop=FixedBudget(),
    )


def lr_rewind_one_shot() -> MethodConfig:
    """Remove everything at once, keep the weights, run the whole schedule again."""
    return lr_rewind().model_copy(update={"name": "lr-rewind-one-shot", "schedule": OneShot()})
