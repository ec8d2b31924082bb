"""Helping a reader who misspelt a name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean"]


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a half sentence with the nearest known name, or with all of them.

    Args:
        name: What the user wrote.
        known: The names that would have been accepted.

    Returns:
        ``"did you mean 'lth'? known: lth, sap"``, or ``"known: lth, sap"`` where nothing is near.

    Example:
        >>> did_you_mean("lht", ["sap", "lth"])
        "did you mean 'lth'? known: lth, sap"
    """
    names = sorted(known)
    lowered = {known_name.lower(): known_name for known_name in names}
    written = name.lower() if isinstance(name, str) else ""
    near = get_close_matches(written, lowered, n=1, cutoff=0.5)
    listing = f"known: {', '.join(names)}" if names else "nothing is known here"
    return f"did you mean '{lowered[near[0]]}'? {listing}" if near else listing
