"""How many entries survive the next level, over all layers together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.pattern import NofM, Pattern
from infcop.core.schedule import Adaptive, Cubic, Fraction, Linear, Listed, OneShot, Schedule
from infcop.errors import PruningError
from infcop.masking.adaptive import pq_index, sap_fraction
from infcop.masking.exact import as_written
from infcop.masking.n_of_m import n_of_m_kept

__all__ = [
    "cubic_kept",
    "level_count",
    "linear_kept",
    "listed_kept",
    "next_kept",
    "possible_kept",
    "without_remainder",
]

Counting = Fraction | Linear | Cubic | OneShot | Listed
"""The schedules that look at counts only."""


def next_kept(
    schedule: Schedule,
    weights: Mapping[str, Tensor],
    masks: Masks,
    *,
    level: int,
    target_kept: int,
    stop_kept: int | None = None,
    alive: int | None = None,
) -> int:
    """Return how many entries survive a level, never fewer than ``stop_kept``.

    With ``d`` entries alive, ``Fraction`` removes ``floor(remove * d)``, and at least one, so that
    the target is always reached; ``Adaptive`` removes ``floor(c * d)`` with ``c`` of
    :func:`~infcop.masking.adaptive.sap_fraction`, which may be none; ``Linear``, ``Cubic`` and
    ``Listed`` keep what the functions of their names say, and ``OneShot`` the target. Products are
    taken with the decimal value of the setting (0.29 of 100 is 29, although the nearest binary
    number lies below 0.29). A level that would pass ``stop_kept`` removes less than the schedule
    asks for, so that exactly so many survive.

    Args:
        schedule: The schedule of the method.
        weights: The trained weights, of the names and shapes of ``masks``.
        masks: What is alive: true entries, whatever the value of the weight.
        level: Number of the level, from 1; ``Linear`` and ``Cubic`` depend on it.
        target_kept: Entries to survive at the end of the search, at least 1; what the
            schedules with a known number of levels aim at.
        stop_kept: Entries that this level must not go below, at least 1; by default the target.
        alive: What the entries that are alive count as; by default their number.

    Returns:
        The count, in ``[stop_kept, d]``; ``d`` itself if nothing is left to remove or, with
        ``Adaptive``, if all magnitudes are equal.

    Raises:
        PruningError: A count is below 1, or ``Adaptive`` meets non-finite weights.

    Example:
        >>> import torch
        >>> weights = {"fc": torch.arange(1.0, 11.0)}
        >>> masks = Masks.full({"fc": (10,)})
        >>> next_kept(Fraction(remove=0.2), weights, masks, level=1, target_kept=3)
        8
        >>> next_kept(Fraction(remove=0.2), weights, masks, level=1, target_kept=3, stop_kept=9)
        9
    """
    stop_kept = target_kept if stop_kept is None else stop_kept
    if min(target_kept, stop_kept) < 1:
        raise PruningError(
            f"next_kept: expected target_kept and stop_kept of at least 1, got {target_kept} and "
            f"{stop_kept}; ask for a higher density"
        )
    alive = masks.kept if alive is None else alive
    if alive <= stop_kept:
        return alive
    if isinstance(schedule, Adaptive):
        values = [_alive(weights[name], mask) for name, mask in masks.items()]
        index = pq_index(values, schedule.p, schedule.q)
        kept = alive - math.floor(sap_fraction(index, alive, schedule) * alive)
    else:
        kept = _planned(schedule, alive, masks.total, level, target_kept)
    return max(kept, stop_kept)


def cubic_kept(total: int, target_kept: int, level: int, levels: int) -> int:
    r"""Return the entries that a cubic schedule keeps after a level, exactly.

    .. math:: s_t = s_f \left(1 - \left(1 - \frac{t}{n}\right)^3\right)

    (Zhu and Gupta, arXiv 1710.01878, eq. 1, from a dense network and with :math:`t_0 = 0`: level
    ``t`` of ``n``, counted from 1.) The removed entries ``total * s_t`` are rounded down.

    Args:
        total: Entries of the dense network.
        target_kept: Entries after the last level.
        level: Number of the level, from 1; past the last one the target is kept.
        levels: Levels of the schedule.

    Example:
        >>> [cubic_kept(1000, 200, level, levels=4) for level in (1, 2, 3, 4)]
        [538, 300, 213, 200]
    """
    left = max(levels - level, 0) ** 3
    return total - (total - target_kept) * (levels**3 - left) // levels**3


def linear_kept(total: int, target_kept: int, level: int, levels: int) -> int:
    """Return the entries that a linear schedule keeps after a level, exactly.

    The removed entries ``(total - target_kept) t / n`` are rounded down, at level ``t`` of ``n``,
    counted from 1.

    Args:
        total: Entries of the dense network.
        target_kept: Entries after the last level.
        level: Number of the level, from 1; past the last one the target is kept.
        levels: Levels of the schedule.

    Example:
        >>> [linear_kept(1000, 200, level, levels=3) for level in (1, 2, 3)]
        [734, 467, 200]
    """
    return total - (total - target_kept) * min(level, levels) // levels


def listed_kept(densities: Sequence[float], total: int, alive: int, target_kept: int) -> int:
    """Return the entries that the next of the listed densities keeps.

    That is the first that keeps fewer than are alive, whatever has stopped the levels before.
    Densities that keep no more than the target are passed over; after the last one comes the
    target. They are rounded to the nearest number of entries, of two the even one, and at least 1.

    Args:
        densities: In falling order.
        total: Entries of the dense network.
        alive: Entries before the level.
        target_kept: Entries to survive at the end of the search.

    Example:
        >>> [listed_kept((0.5, 0.25, 0.1), 1000, alive, 200) for alive in (1000, 500, 250)]
        [500, 250, 200]
    """
    planned = (max(round(as_written(density) * total), 1) for density in densities)
    return next((kept for kept in planned if target_kept < kept < alive), target_kept)


def level_count(
    schedule: Counting,
    total: int,
    target_kept: int,
    most: int,
    pattern: Pattern | None = None,
) -> int:
    """Return how many levels bring a dense network to its target, without any stop on the way.

    Args:
        schedule: One that looks at counts only.
        total: Entries of the dense network.
        target_kept: Entries to survive at the end of the search.
        most: The largest number of levels that is looked at, and returned.
        pattern: With n of m, every level goes down to the next density that it can have. Whole
            groups are counted as single entries, of which a search may need a level less.

    Example:
        >>> level_count(Fraction(remove=0.2), 1000, 512, most=100)
        3
        >>> level_count(Cubic(levels=4), 1000, 200, most=100)
        4
    """
    alive, level = total, 0
    while alive > target_kept and level < most:
        level += 1
        kept = max(_planned(schedule, alive, total, level, target_kept), target_kept)
        alive = possible_kept(schedule, pattern, total, alive, kept, target_kept)
    return level


def possible_kept(
    schedule: Schedule, pattern: Pattern | None, total: int, alive: int, kept: int, stop_kept: int
) -> int:
    """Return what a level keeps of what its schedule asks for.

    What is not worth a level of its own is left out, and with n of m only some counts are possible.

    Args:
        schedule: The schedule of the method.
        pattern: Its pattern.
        total: Entries of the dense network.
        alive: Entries before the level.
        kept: Entries that the schedule asks for.
        stop_kept: Entries that the level must not go below.

    Raises:
        PruningError: No count of n of m is between what is alive and where the level must stop.

    Example:
        >>> possible_kept(Fraction(), NofM(), 1000, alive=1000, kept=800, stop_kept=500)
        750
    """
    kept = without_remainder(schedule, alive, kept, stop_kept)
    if isinstance(pattern, NofM):
        return n_of_m_kept(pattern, total, alive, kept, stop_kept)
    return kept


def without_remainder(schedule: Schedule, alive: int, kept: int, stop_kept: int) -> int:
    """Return ``stop_kept`` instead of ``kept`` if hardly anything would be left to remove.

    A last level that removes less than a tenth of what the one before it removed is not worth its
    training; rounding alone would often leave one. Densities that were listed one by one are all
    wanted.

    Example:
        >>> without_remainder(Fraction(), alive=100, kept=80, stop_kept=79)
        79
        >>> without_remainder(Fraction(), alive=100, kept=80, stop_kept=70)
        80
    """
    if isinstance(schedule, Listed):
        return kept
    return stop_kept if 10 * (kept - stop_kept) < alive - kept else kept


def _planned(schedule: Counting, alive: int, total: int, level: int, target_kept: int) -> int:
    """Return what survives a level of a schedule that counts only, at least one entry fewer."""
    if isinstance(schedule, Fraction):
        kept = alive - math.floor(as_written(schedule.remove) * alive)
    elif isinstance(schedule, Linear):
        kept = linear_kept(total, target_kept, level, schedule.levels)
    elif isinstance(schedule, Cubic):
        kept = cubic_kept(total, target_kept, level, schedule.levels)
    elif isinstance(schedule, Listed):
        kept = listed_kept(schedule.densities, total, alive, target_kept)
    else:
        kept = target_kept
    return min(kept, alive - 1)


def _alive(weight: Tensor, mask: Tensor) -> Tensor:
    return weight.detach()[mask.to(weight.device)]
