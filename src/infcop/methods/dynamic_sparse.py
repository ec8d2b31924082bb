"""Training a sparse network whose mask moves: RigL (arXiv 1911.11134), SET (arXiv 1707.04780)."""

from __future__ import annotations

from infcop.core.method import FixedBudget, MethodConfig, OneShot, Rewind
from infcop.core.regrow import Regrow
from infcop.core.score import RandomScore
from infcop.core.start import Initialisation

__all__ = ["rigl", "set_"]


def rigl() -> MethodConfig:
    """Begin with a random mask; grow where the gradient is largest."""
    return MethodConfig(
        name="rigl",
        start=Initialisation(),
        score=RandomScore(),
        scope="erk",
        schedule=OneShot(),
        rewind=Rewind(to="none"),
        stop=FixedBudget(passes=0),
        regrow=Regrow(by="gradient"),
    )


def set_() -> MethodConfig:
    """Begin with a random mask; after every pass, grow anywhere."""
    regrow = Regrow(by="random", decay="none", until=1)
    return rigl().model_copy(update={"name": "set", "regrow": regrow})
