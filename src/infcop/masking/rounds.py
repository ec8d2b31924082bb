"""How many entries survive each round of a level that scores several times."""

from __future__ import annotations

import math
from typing import Literal

from infcop.errors import PruningError

__all__ = ["round_counts"]


def round_counts(
    alive: int, kept: int, rounds: int, spacing: Literal["exponential", "linear"]
) -> tuple[int, ...]:
    r"""Return how many entries are left after each round, exactly.

    .. math::
        \rho_k = (m / d)^{k / n} \quad\text{or}\quad \rho_k = 1 - (1 - m / d)\, k / n

    of ``d`` entries alive, of which ``m`` are kept in the end, after round ``k`` of ``n``
    (exponential and linear; Tanaka et al., arXiv 2006.05467, algorithm 1). The removed entries
    ``d (1 - rho_k)`` are rounded down.

    Args:
        alive: Entries before the first round, at least ``kept``.
        kept: Entries after the last, at least 1.
        rounds: Number of rounds, at least 1.
        spacing: Whether by a constant factor or by a constant difference.

    Returns:
        As many counts as rounds, falling or equal; the last is ``kept``.

    Raises:
        PruningError: The counts are out of range.

    Example:
        >>> round_counts(1000, 1, 3, "exponential")
        (100, 10, 1)
        >>> round_counts(1000, 100, 3, "linear")
        (700, 400, 100)
    """
    if not (1 <= kept <= alive and rounds >= 1):
        raise PruningError(
            f"round_counts: expected 1 <= kept <= alive and at least one round, got kept={kept}, "
            f"alive={alive}, rounds={rounds}"
        )
    if spacing == "linear":
        return tuple(alive - (alive - kept) * k // rounds for k in range(1, rounds + 1))
    return tuple(
        _root_up(alive ** (rounds - k) * kept**k, rounds, alive * (kept / alive) ** (k / rounds))
        for k in range(1, rounds + 1)
    )


def _root_up(power: int, exponent: int, guess: float) -> int:
    """Return the smallest whole number whose power is at least this one, from near to it."""
    root = math.ceil(guess)
    while root**exponent < power:
        root += 1
    while root > 0 and (root - 1) ** exponent >= power:
        root -= 1
    return root
