"""How many entries survive the next level, over all layers together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction as Rational

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import Adaptive, Cubic, Fraction, OneShot, Schedule
from infcop.errors import PruningError

__all__ = [
    "cubic_kept",
    "level_count",
    "next_kept",
    "pq_index",
    "sap_fraction",
    "without_remainder",
]

_CHUNK = 2**20
"""Entries turned into float64 at a time, so that the copies stay small."""

_NOISE = Rational(1, 10**12)
"""Relative error granted to a product of float64 powers before it is rounded up to a count."""


def next_kept(
    schedule: Schedule,
    weights: Mapping[str, Tensor],
    masks: Masks,
    *,
    level: int,
    target_kept: int,
    stop_kept: int | None = None,
) -> int:
    """Return how many entries survive a level, never fewer than ``stop_kept``.

    With ``d`` entries alive, ``Fraction`` removes ``floor(remove * d)``, and at least one, so that
    the target is always reached; ``Adaptive`` removes ``floor(c * d)`` with ``c`` of
    :func:`sap_fraction`, which may be none; ``Cubic`` keeps what :func:`cubic_kept` says, and
    ``OneShot`` the target. Products are taken with the decimal value of the setting (0.29 of 100
    is 29, although the nearest binary number lies below 0.29). A level that would pass
    ``stop_kept`` removes less than the schedule asks for, so that exactly so many survive.

    Args:
        schedule: The schedule of the method.
        weights: The trained weights, of the names and shapes of ``masks``.
        masks: What is alive: true entries, whatever the value of the weight.
        level: Number of the level, from 1; ``Cubic`` depends on it.
        target_kept: Entries to survive at the end of the search, at least 1; what ``Cubic`` and
            ``OneShot`` aim at.
        stop_kept: Entries that this level must not go below, at least 1; by default the target.

    Returns:
        The count, in ``[stop_kept, d]``; ``d`` itself if nothing is left to remove or, with
        ``Adaptive``, if all magnitudes are equal.

    Raises:
        PruningError: A count is below 1, or ``Adaptive`` meets non-finite weights.

    Example:
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
    alive = masks.kept
    if alive <= stop_kept:
        return alive
    if isinstance(schedule, Adaptive):
        values = torch.cat([_alive(weights[name], mask) for name, mask in masks.items()])
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


def level_count(
    schedule: Fraction | Cubic | OneShot, total: int, target_kept: int, most: int
) -> int:
    """Return how many levels bring a dense network to its target, without any stop on the way.

    Args:
        schedule: One that looks at counts only.
        total: Entries of the dense network.
        target_kept: Entries to survive at the end of the search.
        most: The largest number of levels that is looked at, and returned.

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
        alive = without_remainder(alive, kept, target_kept)
    return level


def without_remainder(alive: int, kept: int, stop_kept: int) -> int:
    """Return ``stop_kept`` instead of ``kept`` if hardly anything would be left to remove.

    A last level that removes less than a tenth of what the one before it removed is not worth its
    training; rounding alone would often leave one.

    Example:
        >>> without_remainder(alive=100, kept=80, stop_kept=79)
        79
        >>> without_remainder(alive=100, kept=80, stop_kept=70)
        80
    """
    return stop_kept if 10 * (kept - stop_kept) < alive - kept else kept


def pq_index(weights: Tensor, p: float, q: float) -> float:
    r"""Return the PQ index of a vector: 0 for equal magnitudes, near 1 for a very sparse one.

    .. math:: I = 1 - \frac{(\frac1d \sum_i |w_i|^p)^{1/p}}{(\frac1d \sum_i |w_i|^q)^{1/q}}

    (Diao et al. 2023, arXiv 2302.05601, definition 1.) Evaluated in float64 on ``w / max |w|``,
    so scaling neither changes it nor makes it overflow.

    Args:
        weights: At least one finite value, of any shape and dtype.
        p: Smaller exponent, above 0.
        q: Larger exponent.

    Returns:
        The index in [0, 1]. All zeros count as equal magnitudes.

    Raises:
        PruningError: The exponents are out of order, or the weights empty or not finite.

    Example:
        >>> pq_index(torch.tensor([2.0, -2.0, 2.0]), 0.5, 1.0)
        0.0
        >>> round(pq_index(torch.tensor([1.0, 0.0, 0.0, 0.0]), 1.0, 2.0), 6)
        0.5
    """
    if not 0 < p < q:
        raise PruningError(f"pq_index: expected 0 < p < q, got p={p}, q={q}")
    if weights.numel() == 0:
        raise PruningError("pq_index: expected at least one weight, got none")
    largest = float(weights.detach().abs().max())
    if not math.isfinite(largest):
        raise PruningError(
            "pq_index: expected finite weights, got NaN or infinity; training has diverged: "
            "lower the learning rate or clip the gradients"
        )
    if largest == 0.0:
        return 0.0
    log_ratio = _log_power_mean(weights, largest, p) - _log_power_mean(weights, largest, q)
    return abs(math.expm1(min(0.0, log_ratio)))


def sap_fraction(index: float, alive: int, schedule: Adaptive) -> Rational:
    r"""Return the fraction ``c`` of the alive entries that SAP removes, exactly.

    .. math::
        m = \lceil d (1+\eta)^{-q/(q-p)} (1-I)^{pq/(q-p)} \rceil, \qquad
        c = \min(\max(\gamma (1 - m/d), 0), \beta)

    (Diao et al. 2023, arXiv 2302.05601, algorithm 1.) ``m`` entries are worth keeping. The product
    is computed in float64 and rounded up after taking off a relative ``1e-12``: of ``d`` entries
    of which ``r`` are equal and the others zero, exactly ``m = r`` are worth keeping at
    ``eta = 0``, and rounding errors must not make that ``r + 1``.

    Args:
        index: PQ index ``I`` of the alive entries, in [0, 1].
        alive: Their number ``d``, at least 1.
        schedule: ``p``, ``q``, ``eta``, ``gamma`` and ``beta``.

    Example:
        >>> sap_fraction(0.5, 10, Adaptive(p=0.5, q=1.0))
        Fraction(1, 2)
        >>> sap_fraction(0.99, 10, Adaptive(p=0.5, q=1.0, beta=0.6))
        Fraction(3, 5)
    """
    p, q = schedule.p, schedule.q
    worth = (1 + schedule.eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p))
    retained = math.ceil(alive * Rational(worth) * (1 - _NOISE))
    wanted = _decimal(schedule.gamma) * (1 - Rational(retained, alive))
    return min(max(wanted, Rational(0)), _decimal(schedule.beta))


def _planned(
    schedule: Fraction | Cubic | OneShot, alive: int, total: int, level: int, target_kept: int
) -> int:
    """Return what survives a level of a schedule that counts only, at least one entry fewer."""
    if isinstance(schedule, Fraction):
        kept = alive - math.floor(_decimal(schedule.remove) * alive)
    elif isinstance(schedule, Cubic):
        kept = cubic_kept(total, target_kept, level, schedule.levels)
    else:
        kept = target_kept
    return min(kept, alive - 1)


def _alive(weight: Tensor, mask: Tensor) -> Tensor:
    return weight.detach()[mask.to(weight.device)]


def _log_power_mean(weights: Tensor, scale: float, exponent: float) -> float:
    """Return ``log((mean |w / scale|^exponent)^(1/exponent))``, accumulated in float64."""
    chunks = torch.split(weights.detach().flatten(), _CHUNK)
    sums = [float(chunk.double().abs().div_(scale).pow_(exponent).sum()) for chunk in chunks]
    return math.log(math.fsum(sums) / weights.numel()) / exponent


def _decimal(value: float) -> Rational:
    """Return the number that was written, not the binary one next to it."""
    return Rational(str(value))
