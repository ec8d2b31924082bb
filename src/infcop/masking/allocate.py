"""How many of the surviving entries each layer may keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction as Rational

from infcop.errors import LayerCollapseError, PruningError

__all__ = ["allocate_kept", "allocate_removed", "layer_floors", "share"]

Counts = Mapping[str, int]
Weights = Mapping[str, int | Rational]


def layer_floors(
    alive: Counts, kept: int, keep_per_layer: int, *, may_empty: bool
) -> dict[str, int]:
    """Return how many entries each layer keeps at least: ``min(alive, max(1, keep_per_layer))``.

    Where layers may be emptied, the one entry of each is given up if there are not enough for all.

    Example:
        >>> layer_floors({"a": 5, "b": 0}, kept=3, keep_per_layer=0, may_empty=False)
        {'a': 1, 'b': 0}
    """
    floors = {name: min(count, max(1, keep_per_layer)) for name, count in alive.items()}
    if may_empty and kept < sum(floors.values()):
        return {name: min(count, keep_per_layer) for name, count in alive.items()}
    return floors


def allocate_removed(
    weights: Weights, alive: Counts, least: Counts, kept: int, total: Counts | None = None
) -> dict[str, int]:
    """Share a removal among the layers in proportion to weights.

    With ``d`` entries alive and ``r = d - kept`` to remove, layer ``l`` of weight ``w_l`` owes
    ``r w_l / sum(w)``. It removes the floor of that; the entries still missing from ``r`` are
    taken one each from the layers with the largest remainders, the earlier layer first where they
    are equal. So the total is exact. A layer whose share would cross its floor stops at it, and
    the others make up for it in proportion.

    Args:
        weights: Proportions of the removal, 0 for a layer that is left as it is. With the entries
            alive, all layers lose the same fraction of them.
        alive: Surviving entries of each layer.
        least: Entries that each layer keeps at least, at most those alive.
        kept: Entries to survive in all layers together.
        total: Entries of the dense layers: the proportions are then those of everything that is
            removed from them, before and now. By default those of what is alive.

    Returns:
        Entries to keep in each layer, in the order of ``alive``; they sum to ``kept``.

    Raises:
        LayerCollapseError: ``kept`` is too small for the floors.
        PruningError: ``kept`` is more than is alive.

    Example:
        >>> sizes = {"conv": 10, "fc": 1000}
        >>> allocate_removed(sizes, sizes, {"conv": 1, "fc": 1}, kept=505)
        {'conv': 5, 'fc': 500}
        >>> allocate_removed(sizes, sizes, {"conv": 8, "fc": 8}, kept=505)
        {'conv': 8, 'fc': 497}
    """
    _check("allocate_removed", alive, least, kept)
    whole = alive if total is None else total
    low = {name: whole[name] - alive[name] for name in alive}
    # What can't be shared by weights is what layers of weight 0 have.
    high = {name: whole[name] - least[name] if weights[name] else low[name] for name in alive}
    removal = sum(whole.values()) - kept
    if removal > sum(high.values()):
        raise LayerCollapseError(
            f"allocate_removed: only {kept} entries may survive, but layers that lose nothing "
            f"keep {sum(whole.values()) - sum(high.values())} with the floors of the others; ask "
            "for a higher density"
        )
    removed = share(weights, low, high, removal)
    return {name: whole[name] - removed[name] for name in alive}


def allocate_kept(weights: Weights, alive: Counts, least: Counts, kept: int) -> dict[str, int]:
    """Share what survives among the layers in proportion to weights.

    As :func:`allocate_removed`, but the proportions are those of the entries that are kept: with
    the sizes of the layers, all get the same density. None gets more than it has alive; the others
    then get more in proportion.

    Example:
        >>> alive = {"conv": 10, "fc": 1000}
        >>> allocate_kept({"conv": 1, "fc": 4}, alive, {"conv": 1, "fc": 1}, kept=505)
        {'conv': 10, 'fc': 495}
    """
    _check("allocate_kept", alive, least, kept)
    return share(weights, least, alive, kept)


def share(weights: Weights, low: Counts, high: Counts, total: int) -> dict[str, int]:
    """Return whole numbers that sum to a total: ``x w_l`` held between ``low_l`` and ``high_l``.

    ``x`` is found exactly. What rounding down leaves over goes, one each, to the largest
    remainders, the earlier first where they are equal.

    Args:
        weights: At least 0, of each name.
        low: Least that each gets; ``total`` is at least their sum.
        high: Most that each gets; ``total`` is at most their sum.
        total: What is shared.

    Example:
        >>> share({"a": 1, "b": 1, "c": 2}, {"a": 0, "b": 0, "c": 0}, {"a": 9, "b": 1, "c": 9}, 7)
        {'a': 2, 'b': 1, 'c': 4}
    """
    rate = _rate(weights, low, high, total)
    shares = {
        name: min(max(rate * weights[name], Rational(low[name])), Rational(high[name]))
        for name in weights
    }
    whole = {name: math.floor(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: whole[name] - shares[name])
    for name in by_remainder[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


def _rate(weights: Weights, low: Counts, high: Counts, total: int) -> Rational:
    """Return an ``x`` at which the held ``x w_l`` sum to the total."""
    # The sum grows along straight lines between the places where one leaves low or reaches high.
    turns = sorted(
        (Rational(bounds[name]) / weights[name], sign * weights[name])
        for name in weights
        if weights[name] > 0
        for bounds, sign in ((low, 1), (high, -1))
    )
    place, slope, missing = Rational(0), Rational(0), Rational(total - sum(low.values()))
    if missing == 0:
        return place
    for turn, change in turns:
        step = slope * (turn - place)
        if step >= missing:
            return place + missing / slope
        place, missing, slope = turn, missing - step, slope + change
    return place


def _check(caller: str, alive: Counts, least: Counts, kept: int) -> None:
    if kept > sum(alive.values()):
        raise PruningError(
            f"{caller}: expected to keep at most the {sum(alive.values())} entries that are "
            f"alive, got kept={kept}; masks only shrink"
        )
    if kept < sum(least.values()):
        largest = max(least, key=lambda name: least[name])
        raise LayerCollapseError(
            f"{caller}: {len(alive)} layers must keep {sum(least.values())} entries together, "
            f"most of them '{largest}' with {least[largest]}, but only {kept} may survive; ask for "
            "a higher density, or let each layer keep fewer (keep_per_layer)"
        )
