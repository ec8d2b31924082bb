"""Pruning at the initialisation: one score, and then a single training."""

from __future__ import annotations

from infcop.core.method import FixedBudget, MethodConfig, OneShot, Rewind
from infcop.core.score import Grasp, RandomScore, Score, Snip
from infcop.core.start import Initialisation

__all__ = ["at_initialisation", "grasp", "random", "snip"]


def snip() -> MethodConfig:
    """Keep the connections that the loss depends on most (arXiv 1810.02340)."""
    return at_initialisation("snip", Snip())


def grasp() -> MethodConfig:
    """Keep the weights without which the gradient flow would fall (arXiv 2002.07376)."""
    return at_initialisation("grasp", Grasp())


def random() -> MethodConfig:
    """Keep weights at random, the same part of each layer."""
    return at_initialisation("random", RandomScore()).model_copy(update={"scope": "uniform"})


def at_initialisation(name: str, score: Score) -> MethodConfig:
    """Prune the network as it is given, at once; the final training is the only one."""
    return MethodConfig(
        name=name,
        start=Initialisation(),
        score=score,
        scope="global",
        schedule=OneShot(),
        rewind=Rewind(to="none"),
        stop=FixedBudget(passes=0),
    )
