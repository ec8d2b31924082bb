"""Numbers as people read them, the same on the terminal and on the page."""

from __future__ import annotations

import math

from infcop.core.records import DataFacts, StopReason
from infcop.core.study import StudyCell

__all__ = [
    "SHORT_REASONS",
    "change",
    "count",
    "duration",
    "is_share",
    "metric",
    "number",
    "passes",
    "percent",
    "plural",
]

SHORT_REASONS = {
    StopReason.FLOW: "flow has come back",
    StopReason.UNDISTURBED: "flow undisturbed",
    StopReason.SHOCK: "shock worked off",
    StopReason.SETTLED: "flow has settled",
    StopReason.MASK: "mask has settled",
    StopReason.ACCURACY: "target reached",
    StopReason.PLATEAU: "no more improvement",
    StopReason.LOSS: "loss no longer falls",
    StopReason.BUDGET: "budget used up",
    StopReason.UNTRAINED: "never begun",
    StopReason.NOT_YET: "not yet",
    StopReason.MINIMUM: "minimum not reached",
    StopReason.NON_FINITE: "reading not finite",
}
"""A few words for each reason, where a sentence is too long."""


def percent(fraction: float) -> str:
    """Return a fraction as a percentage: one decimal, below 1 % two significant digits.

    Example:
        >>> percent(0.972), percent(0.0043), percent(1.0), percent(float("nan"))
        ('97.2 %', '0.43 %', '100.0 %', 'not a number')
    """
    if not math.isfinite(fraction):
        return _not_finite(fraction)
    value = 100 * fraction
    return f"{value:.2g} %" if 0 < abs(value) < 0.95 else f"{value:.1f} %"


def passes(value: float) -> str:
    """Return a number of passes with as many decimals as say something.

    Example:
        >>> passes(42.0), passes(1.25), passes(1 / 3), passes(0.004), passes(121.04)
        ('42', '1.25', '0.33', '0.004', '121')
    """
    if not math.isfinite(value):
        return _not_finite(value)
    if 0 < abs(value) < 0.01:
        return f"{value:.1g}"
    text = f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".")


def count(value: int) -> str:
    """Return a whole number with thousands apart.

    Example:
        >>> count(50200)
        '50,200'
    """
    return f"{value:,}"


def number(value: float | None) -> str:
    """Return a measured value with three decimals, or in powers of ten where that hides it.

    Example:
        >>> number(0.04), number(-12.3456), number(0.00012), number(None)
        ('0.040', '-12.346', '1.2e-04', 'none')
    """
    if value is None:
        return "none"
    if not math.isfinite(value):
        return _not_finite(value)
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.3f}"
    return f"{value:.1e}"


def plural(value: float, noun: str) -> str:
    """Return a quantity with its noun, in the plural where English asks for it.

    Example:
        >>> plural(1, "pass"), plural(1.25, "pass"), plural(0, "level")
        ('1 pass', '1.25 passes', '0 levels')
    """
    ending = "" if value == 1 else "es" if noun.endswith("s") else "s"
    return f"{passes(value)} {noun}{ending}"


def duration(seconds: float) -> str:
    """Return a time span in the two units that matter.

    Example:
        >>> duration(0.42), duration(134), duration(7380)
        ('0.42 s', '2 min 14 s', '2 h 3 min')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def metric(data: DataFacts, value: float | None) -> str:
    """Return a value of the main metric: an accuracy as a percentage, anything else as a number."""
    if value is None:
        return "not measured"
    return percent(value) if is_share(data) else number(value)


def change(data: DataFacts, before: float | None, after: float | None) -> str:
    """Return how far the main metric moved, in points where it is an accuracy.

    Other metrics say whether the move is for better or worse, as their direction isn't obvious.
    """
    if before is None or after is None or not math.isfinite(after - before):
        return "change unknown"
    moved = after - before
    if is_share(data):
        points = f"{100 * moved:+.1f}"
        return f"{'0.0' if points in ('+0.0', '-0.0') else points} points"
    if moved == 0:
        return "unchanged"
    sign = "+" if moved > 0 else ""
    return f"{sign}{number(moved)}, {'better' if (moved > 0) == data.higher_is_better else 'worse'}"


def is_share(data: DataFacts | StudyCell) -> bool:
    """Return whether the main metric is an accuracy, a share of examples in [0, 1]."""
    return data.main_metric.endswith("accuracy")


def _not_finite(value: float) -> str:
    return "not a number" if math.isnan(value) else "infinite" if value > 0 else "minus infinite"
