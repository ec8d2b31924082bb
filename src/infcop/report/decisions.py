"""Why levels stopped, in words: one level, the numbers it compared, and all levels counted."""

from __future__ import annotations

import math
from collections import Counter

from infcop.core.records import LevelRecord, RunRecord, StopDecision, StopReason
from infcop.report import words

__all__ = ["compared_distance", "decision_line", "evidence_text", "reasons_text", "stop_counts"]

_LIMITS = {
    "distance": "threshold",
    "metric": "threshold",
    "change_per_pass": "threshold",
    "mask_change": "threshold",
    "passes": "budget",
    "passes_without_improvement": "patience",
}
"""What the numbers of a decision's evidence are compared with."""


def decision_line(level: LevelRecord) -> str:
    """Say how long a level trained, and why it stopped.

    Example:
        >>> from infcop.core.records import Reading, StopReason
        >>> level = LevelRecord(
        ...     level=3, kept=512, density=0.512, kept_per_layer={"fc.weight": 512}, removed=128,
        ...     rewound_to="epoch", readings=(Reading(phase="level", level=3, passes=1.25),),
        ...     stopped_by=StopDecision(
        ...         stop=True, reason=StopReason.FLOW,
        ...         evidence={"distance": 0.04, "threshold": 0.11},
        ...     ),
        ... )
        >>> decision_line(level)
        'level 3, density 51.2 %: stopped after 1.25 passes, the flow has come back to that of
         the reference (distance 0.040 < 0.110)'
    """
    start = f"level {level.level}, density {words.percent(level.density)}"
    if level.stopped_by is None:
        return f"{start}: still training, {words.plural(level.passes, 'pass')} so far"
    spent = f"after {words.plural(level.passes, 'pass')}" if level.passes else "without training"
    evidence = evidence_text(level.stopped_by)
    because = level.stopped_by.reason.sentence + (f" ({evidence})" if evidence else "")
    return f"{start}: stopped {spent}, {because}"


def evidence_text(decision: StopDecision) -> str:
    """Return the numbers that a decision compared.

    Example:
        >>> from infcop.core.records import StopReason
        >>> evidence = {"distance": 0.117, "threshold": 0.11, "passes": 8.0, "budget": 8.0}
        >>> evidence_text(StopDecision(stop=True, reason=StopReason.BUDGET, evidence=evidence))
        'distance 0.117 >= 0.110, passes 8 of 8'
    """
    left = dict(decision.evidence)
    parts = []
    while left:
        name = next(iter(left))
        value = left.pop(name)
        base, _, suffix = name.partition(" ")
        limit = left.pop(" ".join(filter(None, (_LIMITS.get(base), suffix))), None)
        parts.append(_part(base, value, limit))
    return ", ".join(parts)


def compared_distance(decision: StopDecision) -> tuple[float, float] | None:
    """Return the distance and the threshold that a flow rule compared, if one took part.

    Of several rules the first counts. The distance is NaN where the flow was not finite.

    Example:
        >>> from infcop.core.records import StopReason
        >>> evidence = {"passes": 1.0, "budget": 2.0, "distance (2)": 0.2, "threshold (2)": 0.1}
        >>> decision = StopDecision(stop=False, reason=StopReason.NOT_YET, evidence=evidence)
        >>> compared_distance(decision)
        (0.2, 0.1)
    """
    for name, value in decision.evidence.items():
        base, space, suffix = name.partition(" ")
        threshold = decision.evidence.get(f"threshold{space}{suffix}")
        if base in ("distance", "non_finite_entries") and threshold is not None:
            return (value if base == "distance" else math.nan), threshold
    return None


def _part(name: str, value: float, limit: float | None) -> str:
    words_of_name = name.replace("_", " ")
    if limit is None or not math.isfinite(value):
        beside = "" if limit is None else f", {_LIMITS[name]} {_number(limit)}"
        return f"{words_of_name} {_number(value)}{beside}"
    if name == "passes":
        return f"passes {_number(value)} of {_number(limit)}"
    left, right = _number(value), _number(limit)
    if left == right and value != limit:
        digits = next((n for n in range(4, 12) if abs(value - limit) > 10**-n), 12)
        left, right = f"{value:.{digits}f}", f"{limit:.{digits}f}"
    return f"{words_of_name} {left} {'<' if value < limit else '>='} {right}"


def _number(value: float) -> str:
    return words.passes(value) if float(value).is_integer() else words.number(value)


def stop_counts(record: RunRecord) -> dict[str, int]:
    """Return how many levels each reason stopped, the most frequent first."""
    reasons = Counter(x.stopped_by.reason.value for x in record.levels if x.stopped_by)
    return dict(reasons.most_common())


def reasons_text(record: RunRecord) -> str:
    """Return why levels stopped, counted: ``"flow has come back (4), budget used up (2)"``."""
    parts = [
        f"{words.SHORT_REASONS[StopReason(name)]} ({amount})"
        for name, amount in stop_counts(record).items()
    ]
    unfinished = sum(level.stopped_by is None for level in record.levels)
    parts += [f"unfinished ({unfinished})"] if unfinished else []
    return ", ".join(parts)
