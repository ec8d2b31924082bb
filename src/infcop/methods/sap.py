"""Sparsity-informed adaptive pruning (Diao et al., arXiv 2302.05601)."""

from __future__ import annotations

from infcop.core.method import Adaptive, FixedBudget, MethodConfig, Rewind

__all__ = ["sap"]


def sap() -> MethodConfig:
    """Remove what the PQ index allows over all layers together, train the full budget."""
    return MethodConfig(
        name="sap",
        scope="global",
        schedule=Adaptive(p=0.5, q=1.0),
        rewind=Rewind(to="warm-up"),
        stop=FixedBudget(),
    )
