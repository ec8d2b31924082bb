"""Movement pruning (Sanh et al., arXiv 2005.07683)."""

from __future__ import annotations

from infcop.core.method import MethodConfig
from infcop.core.score import Movement
from infcop.methods.gmp import gmp

__all__ = ["movement"]


def movement() -> MethodConfig:
    """Prune gradually, as ``gmp``, the weights that training has moved towards zero."""
    return gmp().model_copy(update={"name": "movement", "score": Movement()})
