"""Pruning all at once, then one more training."""

from __future__ import annotations

from infcop.core.method import FixedBudget, MethodConfig, OneShot, Rewind

__all__ = ["one_shot"]


def one_shot() -> MethodConfig:
    """Remove everything from the trained network in one level; the final training follows."""
    return MethodConfig(
        name="one-shot",
        scope="global",
        schedule=OneShot(),
        rewind=Rewind(to="none"),
        stop=FixedBudget(passes=0),
    )
