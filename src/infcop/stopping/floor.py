"""The noise floor: how far the flow of the reference itself moves without any pruning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from infcop.core.comparison import HALVES, Combine, Measure, Units, comparison_name, distance
from infcop.core.records import Comparison, Reading
from infcop.errors import FlowError

__all__ = ["FEWEST_CHANGES", "Floor", "drift", "noise_floor", "sampling"]

Floor = Literal["drift", "halves", "larger"]

FEWEST_CHANGES = 2
"""Of a drift: one change alone says nothing about how much it varies."""


def noise_floor(
    dense: Sequence[Reading],
    floor: Floor,
    *,
    readings: int | None,
    measure: Measure = "frobenius",
    combine: Combine = "together",
    units: Units = "all",
) -> float:
    """Return the noise floor of a distance, > 0.

    Args:
        dense: The readings of the dense training, in order.
        floor: ``drift``, ``halves``, or the ``larger`` of both.
        readings: The most changes that the drift is averaged over, the last ones; None for all.
        measure: Of the distance.
        combine: Of the distance.
        units: Of the distance.

    Raises:
        FlowError: There are too few readings, or the floor is zero or not finite.
    """
    parts: list[float] = []
    if floor in ("drift", "larger"):
        parts.append(drift(dense, readings, measure=measure, combine=combine, units=units))
    if floor in ("halves", "larger"):
        parts.append(sampling(dense, measure=measure, combine=combine, units=units))
    found = max(parts)
    if not (found > 0 and all(map(math.isfinite, parts))):
        raise FlowError(
            f"noise floor: expected a finite number above 0, got {parts}; the flow of the dense "
            "network does not vary or is not finite, so give a fixed epsilon instead of kappa"
        )
    return found


def drift(
    dense: Sequence[Reading],
    readings: int | None,
    *,
    measure: Measure = "frobenius",
    combine: Combine = "together",
    units: Units = "all",
) -> float:
    """Return the mean distance between successive readings of the dense training.

    Raises:
        FlowError: Fewer than two readings have been compared with the one before.
    """
    found = [
        distance(comparison, measure, combine)
        for reading in dense
        if (comparison := _comparison(reading, comparison_name("last", units))) is not None
    ]
    if readings is not None:
        found = found[-readings:]
    if len(found) < FEWEST_CHANGES:
        raise FlowError(
            f"noise floor: expected at least {FEWEST_CHANGES + 1} readings of flow in the dense "
            f"training, one per pass, so that there are {FEWEST_CHANGES} changes between them, "
            f"got {len(found)} {'change' if len(found) == 1 else 'changes'}; train the dense "
            f"network for at least {FEWEST_CHANGES + 1} passes, or give a fixed epsilon"
        )
    return sum(found) / len(found)


def sampling(
    dense: Sequence[Reading],
    *,
    measure: Measure = "frobenius",
    combine: Combine = "together",
    units: Units = "all",
) -> float:
    r"""Return what sampling a probe does to the distance between two states.

    Two halves of a probe lie :math:`d` apart, each with twice the variance of the whole; two
    independent probes of the whole size would lie :math:`d / \sqrt 2` apart (half of it for the
    cosine, which is quadratic). All readings share one probe, so this is an upper bound.

    Raises:
        FlowError: No dense reading compares two halves of its probe.
    """
    name = HALVES if units == "all" else f"{HALVES}, alive units"
    found = [c for reading in dense if (c := _comparison(reading, name)) is not None]
    if not found:
        raise FlowError(
            "noise floor: expected a dense reading with both halves of its probe compared, got "
            "none; read flow from a probe, or choose the floor 'drift'"
        )
    return distance(found[-1], measure, combine) / (2 if measure == "cosine" else math.sqrt(2))


def _comparison(reading: Reading, name: str) -> Comparison | None:
    return reading.comparisons.get(name)
