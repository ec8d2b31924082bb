"""How much an adaptive schedule removes, by how unequal the surviving weights are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction as Rational

import torch
from torch import Tensor

from infcop.core.schedule import Adaptive
from infcop.errors import PruningError
from infcop.masking.exact import as_written

__all__ = ["pq_index", "sap_fraction"]

_CHUNK = 2**20
"""Entries turned into float64 at a time, so that the copies stay small. They are on the CPU, since
not every device has float64."""

_NOISE = Rational(1, 10**12)
"""Relative error granted to a product of float64 powers before it is rounded up to a count."""


def pq_index(weights: Sequence[Tensor], p: float, q: float) -> float:
    r"""Return the PQ index of some weights: 0 for equal magnitudes, near 1 for a very sparse one.

    .. math:: I = 1 - \frac{(\frac1d \sum_i |w_i|^p)^{1/p}}{(\frac1d \sum_i |w_i|^q)^{1/q}}

    (Diao et al. 2023, arXiv 2302.05601, definition 1.) Evaluated in float64 on ``w / max |w|``,
    so scaling neither changes it nor makes it overflow.

    Args:
        weights: Tensors with at least one value together, all finite, of any shape, dtype and
            device.
        p: Smaller exponent, above 0.
        q: Larger exponent.

    Returns:
        The index in [0, 1]. All zeros count as equal magnitudes.

    Raises:
        PruningError: The exponents are out of order, or the weights empty or not finite.

    Example:
        >>> pq_index([torch.tensor([2.0, -2.0]), torch.tensor([2.0])], 0.5, 1.0)
        0.0
        >>> round(pq_index([torch.tensor([1.0, 0.0, 0.0, 0.0])], 1.0, 2.0), 6)
        0.5
    """
    if not 0 < p < q:
        raise PruningError(f"pq_index: expected 0 < p < q, got p={p}, q={q}")
    parts = [weight.detach().flatten() for weight in weights if weight.numel()]
    if not parts:
        raise PruningError("pq_index: expected at least one weight, got none")
    # The largest of a tensor is NaN where one of its values is.
    sizes = [float(part.abs().max()) for part in parts]
    largest = math.nan if any(map(math.isnan, sizes)) else max(sizes)
    if not math.isfinite(largest):
        raise PruningError(
            "pq_index: expected finite weights, got NaN or infinity; training has diverged: "
            "lower the learning rate or clip the gradients"
        )
    if largest == 0.0:
        return 0.0
    log_ratio = _log_power_mean(parts, largest, p) - _log_power_mean(parts, largest, q)
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
    wanted = as_written(schedule.gamma) * (1 - Rational(retained, alive))
    return min(max(wanted, Rational(0)), as_written(schedule.beta))


def _log_power_mean(parts: Sequence[Tensor], scale: float, exponent: float) -> float:
    """Return ``log((mean |w / scale|^exponent)^(1/exponent))``, accumulated in float64."""
    chunks = (chunk for part in parts for chunk in torch.split(part, _CHUNK))
    sums = [float(chunk.cpu().double().abs().div_(scale).pow_(exponent).sum()) for chunk in chunks]
    return math.log(math.fsum(sums) / sum(map(len, parts))) / exponent
