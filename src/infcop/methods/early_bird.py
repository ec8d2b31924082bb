"""Early-Bird tickets (You et al., arXiv 1909.11957)."""

from __future__ import annotations

from infcop.core.method import MethodConfig
from infcop.core.start import EarlyBird
from infcop.methods.one_shot import one_shot

__all__ = ["early_bird"]


def early_bird() -> MethodConfig:
    """Stop the dense training once its mask has settled, prune at once, train that network."""
    return one_shot().model_copy(update={"name": "early-bird", "start": EarlyBird()})
