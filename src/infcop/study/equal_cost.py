"""How long a level may train so that its whole search costs what another method's costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from infcop.core.method import Adaptive, MethodConfig
from infcop.core.study import StudyRow

__all__ = ["equal_budget"]

_LEAST = 1e-6
"""Passes; the training loop makes at least one step of them."""


def equal_budget(target: Sequence[StudyRow], method: MethodConfig, most: int) -> float:
    """Return the passes per level that cost what the levels of other runs cost on average.

    Their training and measuring count. Evaluations don't: a level with a fixed budget is evaluated
    too, at its end. Six significant digits are kept, since the training loop rounds to whole steps
    anyway.

    Args:
        target: The other runs at one density of one setting, a row for each seed.
        method: The method whose budget is sought, with any schedule but an adaptive one, whose
            number of levels nobody knows beforehand.
        most: The largest number of levels of a search.
    """
    # Only now: it brings PyTorch, which the process that leads a study does without.
    from infcop.masking.schedule import level_count

    schedule = method.schedule
    if isinstance(schedule, Adaptive):
        raise AssertionError("the settings refuse an adaptive schedule of equal cost")
    first = target[0]
    levels = level_count(schedule, first.prunable, first.kept, most, method.pattern)
    cost = fmean(row.cost.levels_training + row.cost.levels_measuring for row in target)
    budget = cost / (3 * first.train_examples * max(levels, 1))
    return max(float(f"{budget:.6g}"), _LEAST)
