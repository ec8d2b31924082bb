"""How many of the surviving entries each layer may keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction as Rational

from infcop.errors import LayerCollapseError, PruningError

__all__ = ["allocate_layerwise"]


def allocate_layerwise(
    alive: Mapping[str, int], kept: int, keep_per_layer: int = 0
) -> dict[str, int]:
    """Share a removal among the layers in proportion to what each has alive.

    With ``d_l`` entries alive in layer ``l``, ``d`` in all and ``r = d - kept`` to remove, layer
    ``l`` owes ``r d_l / d``. It removes the floor of that; the entries still missing from ``r`` are
    taken one each from the layers with the largest remainders, the earlier layer first where they
    are equal. So every layer is within one entry of the same fraction, and the total is exact.

    No layer falls below ``min(d_l, max(1, keep_per_layer))``: a layer whose share would cross that
    floor stops at it, and the others make up for it in proportion.

    Args:
        alive: Surviving entries of each layer.
        kept: Entries to survive in all layers together.
        keep_per_layer: Entries that each layer keeps at least, where it has them.

    Returns:
        Entries to keep in each layer, in the order of ``alive``; they sum to ``kept``.

    Raises:
        LayerCollapseError: ``kept`` is too small for the floors.
        PruningError: ``kept`` is more than is alive.

    Example:
        >>> allocate_layerwise({"conv": 10, "fc": 1000}, kept=505)
        {'conv': 5, 'fc': 500}
        >>> allocate_layerwise({"conv": 10, "fc": 1000}, kept=505, keep_per_layer=8)
        {'conv': 8, 'fc': 497}
    """
    least = {name: min(count, max(1, keep_per_layer)) for name, count in alive.items()}
    removal = sum(alive.values()) - kept
    if removal < 0:
        raise PruningError(
            f"allocate_layerwise: expected to keep at most the {sum(alive.values())} entries that "
            f"are alive, got kept={kept}; masks only shrink"
        )
    if kept < sum(least.values()):
        raise LayerCollapseError(
            f"allocate_layerwise: {len(alive)} layers must keep {sum(least.values())} entries "
            f"together (at least max(1, keep_per_layer={keep_per_layer}) each), but only {kept} "
            "may survive; ask for a higher density or lower keep_per_layer"
        )
    room = {name: alive[name] - least[name] for name in alive}
    shares = _proportional(alive, room, removal)
    removed = _whole(shares, removal)
    return {name: alive[name] - removed[name] for name in alive}


def _proportional(
    alive: Mapping[str, int], room: Mapping[str, int], removal: int
) -> dict[str, Rational]:
    """Split ``removal`` in proportion to ``alive``, no share above its ``room``."""
    shares = dict.fromkeys(alive, Rational(0))
    free = list(alive)
    while free:
        rate = Rational(removal, max(1, sum(alive[name] for name in free)))
        full = {name for name in free if rate * alive[name] > room[name]}
        if not full:
            shares.update({name: rate * alive[name] for name in free})
            break
        # Capping a layer raises the rate of the others, so a capped one never needs to be freed.
        shares.update({name: Rational(room[name]) for name in full})
        removal -= sum(room[name] for name in full)
        free = [name for name in free if name not in full]
    return shares


def _whole(shares: Mapping[str, Rational], total: int) -> dict[str, int]:
    """Round shares that sum to ``total`` to integers that do, by largest remainder."""
    whole = {name: math.floor(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: whole[name] - shares[name])
    for name in by_remainder[: total - sum(whole.values())]:
        whole[name] += 1
    return whole
