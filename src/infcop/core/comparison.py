"""Distances between two states of a network, from what a reading keeps of the comparison."""

from __future__ import annotations

import math
from typing import Literal

from infcop.core.records import Comparison

__all__ = [
    "ANCHORS",
    "HALVES",
    "Anchor",
    "Combine",
    "Measure",
    "Units",
    "comparison_name",
    "distance",
    "edge_distances",
]

Anchor = Literal["warm-up", "dense", "trained", "pruned", "last"]
"""Another state of the network: the dense one after its warm-up or at its end; the network as it
was last trained, which is the end of the last level that trained; the trained network under the
new mask, before any rewinding; the state at the reading before."""

ANCHORS: tuple[Anchor, ...] = ("warm-up", "dense", "trained", "pruned", "last")

Units = Literal["all", "alive"]
"""All units, or only those that vary in both states."""

Measure = Literal["frobenius", "cosine"]
Combine = Literal["together", "mean", "worst"]

HALVES = "halves"
"""The comparison of the two halves of a probe with each other: what sampling alone does."""


def comparison_name(anchor: Anchor, units: Units = "all") -> str:
    """Return the key of a reading's comparison.

    Example:
        >>> comparison_name("trained"), comparison_name("dense", "alive")
        ('trained', 'dense, alive units')
    """
    return anchor if units == "all" else f"{anchor}, alive units"


def distance(
    comparison: Comparison, measure: Measure = "frobenius", combine: Combine = "together"
) -> float:
    r"""Return one number for how far two states of a network lie apart.

    ``frobenius``: :math:`\sqrt{\sum_e \|A_e - B_e\|^2 / \sum_e \|B_e\|^2}` over all edges
    together; ``cosine``: :math:`1 - \sum_e \langle A_e, B_e\rangle / \sqrt{\sum_e \|A_e\|^2 \sum_e
    \|B_e\|^2}`. ``mean`` and ``worst`` take them of each edge alone first. An edge without any
    correlation in the reference is left out of these two.

    Returns:
        At least 0; at most 2 for ``cosine``; NaN where a matrix is not finite or nothing can be
        compared.

    Example:
        >>> moved = Comparison(difference=(1.0, 0.0), present=(4.0, 2.0), reference=(2.0, 2.0))
        >>> distance(moved), round(distance(moved, combine="worst"), 4)
        (0.5, 0.7071)
    """
    if combine == "together":
        return _distance(
            sum(comparison.difference), sum(comparison.present), sum(comparison.reference), measure
        )
    found = [d for d in edge_distances(comparison, measure) if d is not None]
    if not found or any(map(math.isnan, found)):
        return math.nan
    return max(found) if combine == "worst" else sum(found) / len(found)


def edge_distances(
    comparison: Comparison, measure: Measure = "frobenius"
) -> tuple[float | None, ...]:
    """Return the distance of every edge, None where the reference has no correlation.

    Example:
        >>> edge_distances(Comparison(difference=(1.0,), present=(4.0,), reference=(4.0,)))
        (0.5,)
    """
    parts = zip(comparison.difference, comparison.present, comparison.reference, strict=True)
    return tuple(None if r == 0 else _distance(d, p, r, measure) for d, p, r in parts)


def _distance(difference: float, present: float, reference: float, measure: Measure) -> float:
    if not (reference > 0 and math.isfinite(difference)):
        return math.nan
    if measure == "frobenius":
        return math.sqrt(difference / reference)
    if present == 0:
        return 1.0
    # Rounding may leave the cosine of two equal matrices a little above 1.
    product = (present + reference - difference) / 2
    return max(0.0, 1 - product / math.sqrt(present * reference))
