"""Exact numbers, where a count depends on a setting."""

from __future__ import annotations

from fractions import Fraction as Rational

__all__ = ["as_written"]


def as_written(value: float) -> Rational:
    """Return the decimal number that was written, not the binary one next to it.

    Example:
        >>> as_written(0.29) * 100
        Fraction(29, 1)
    """
    return Rational(str(value))
