"""The default: each level trains as long as the shock of its pruning to the flow asks for.

Constants and rewinding were chosen by the study in docs/results.md, once for everything.
"""

from __future__ import annotations

from infcop.core.method import Fraction, MethodConfig, Rewind, ShockBudget
from infcop.core.rate import ConstantRate

__all__ = ["infcop", "infcop_rewind"]


def infcop() -> MethodConfig:
    """Keep the trained weights; train by the shock; end with the final training."""
    return MethodConfig(
        name="infcop",
        scope="global",
        schedule=Fraction(remove=0.2),
        rewind=Rewind(to="none"),
        rate=ConstantRate(fraction=1.0),
        stop=ShockBudget(),
    )


def infcop_rewind() -> MethodConfig:
    """Search as ``infcop``; go back to an early pass and recover before the final training."""
    return infcop().model_copy(
        update={"name": "infcop-rewind", "rewind": Rewind(to="epoch", when="end")}
    )
