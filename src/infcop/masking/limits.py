"""How many entries each layer keeps, by the scope of a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from infcop.core.scope import Budgets
from infcop.masking.allocate import allocate_kept, allocate_removed
from infcop.masking.densities import budget_weights, erk_weights, size_weights

__all__ = ["LayerScope", "layer_limits"]

LayerScope = Literal["layerwise", "uniform", "erk"] | Budgets

Counts = Mapping[str, int]


def layer_limits(
    scope: LayerScope,
    shapes: Mapping[str, tuple[int, ...]],
    units: Mapping[str, tuple[str, ...]],
    *,
    alive: Counts,
    least: Counts,
    kept: int,
    target_kept: int,
) -> dict[str, int]:
    """Return how many entries each unit keeps; they sum to ``kept``.

    Args:
        scope: One that looks at counts only.
        shapes: The shapes of the layers.
        units: The layers of each unit, by its name; most often a layer is a unit of its own.
        alive: Surviving entries of each unit.
        least: Entries that each unit keeps at least.
        kept: Entries of all units to survive now.
        target_kept: Entries of all units to survive at the end of the search.

    Raises:
        LayerCollapseError: ``kept`` is too small for what the units keep at least.
        PruningError: ``kept`` is more than is alive, or given densities don't fit.

    Example:
        >>> shapes, units = {"a": (10,), "b": (30,)}, {"a": ("a",), "b": ("b",)}
        >>> alive, least = {"a": 10, "b": 20}, {"a": 1, "b": 1}
        >>> counts = {"alive": alive, "least": least, "kept": 20, "target_kept": 20}
        >>> layer_limits("layerwise", shapes, units, **counts)
        {'a': 7, 'b': 13}
        >>> layer_limits("uniform", shapes, units, **counts)
        {'a': 5, 'b': 15}
    """

    def together(counts: Mapping[str, int]) -> dict[str, int]:
        return {unit: sum(counts[name] for name in names) for unit, names in units.items()}

    if scope == "layerwise":
        return allocate_removed(alive, alive, least, kept)
    if isinstance(scope, Budgets):
        weights = budget_weights(scope, shapes, target_kept)
        own = {unit: sum(weights[name] for name in names) for unit, names in units.items()}
        return allocate_removed(own, alive, least, kept, total=together(size_weights(shapes)))
    rule = erk_weights if scope == "erk" else size_weights
    return allocate_kept(together(rule(shapes)), alive, least, kept)
