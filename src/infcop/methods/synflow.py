"""Pruning before training and without data (Tanaka et al., arXiv 2006.05467)."""

from __future__ import annotations

from infcop.core.method import MethodConfig
from infcop.core.score import SynFlow
from infcop.methods.before_training import at_initialisation

__all__ = ["synflow"]


def synflow() -> MethodConfig:
    """Keep the weights with most synaptic flow, scored a hundred times.

    A shortcut that loses all its weights leaves a way beside it, so it is no reason to give up.
    """
    update = {"rounds": 100, "empty_layers": "report"}
    return at_initialisation("synflow", SynFlow()).model_copy(update=update)
