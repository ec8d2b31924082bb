"""Pruning at the initialisation: one score each, and then a single training."""

from __future__ import annotations

from infcop.core.method import FixedBudget, MethodConfig, OneShot, Rewind
from infcop.core.score import Grasp, RandomScore, Score, Snip, SynFlow
from infcop.core.start import Initialisation

__all__ = ["grasp", "random", "snip", "synflow"]


def snip() -> MethodConfig:
    """Keep the connections that the loss depends on most (arXiv 1810.02340)."""
    return _at_initialisation("snip", Snip())


def grasp() -> MethodConfig:
    """Keep the weights without which the gradient flow would fall (arXiv 2002.07376)."""
    return _at_initialisation("grasp", Grasp())


def synflow() -> MethodConfig:
    """Keep the weights with most synaptic flow, scored a hundred times (arXiv 2006.05467)."""
    return _at_initialisation("synflow", SynFlow()).model_copy(update={"rounds": 100})


def random() -> MethodConfig:
    """Keep weights at random, the same part of each layer."""
    return _at_initialisation("random", RandomScore()).model_copy(update={"scope": "uniform"})


def _at_initialisation(name: str, score: Score) -> MethodConfig:
    return MethodConfig(
        name=name,
        start=Initialisation(),
        score=score,
        scope="global",
        schedule=OneShot(),
        rewind=Rewind(to="none"),
        stop=FixedBudget(passes=0),
    )
