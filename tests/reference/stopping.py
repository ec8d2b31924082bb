"""Slow twins of stop rules: each decides from the whole history, without any state."""

from __future__ import annotations

import math


def slow_plateau(history, patience, improvement, higher):
    """Decide after ``[(passes, metric), ...]``: how long is the last improvement ago?"""
    last = 0.0
    for place, (passes, metric) in enumerate(history):
        before = [m for _, m in history[:place] if math.isfinite(m)]
        if math.isfinite(metric) and not before:
            last = passes
        elif math.isfinite(metric):
            best = _best_so_far(before, improvement, higher)
            if _better(metric, best, improvement, higher):
                last = passes
    return history[-1][0] - last >= patience - 1e-9


def _best_so_far(metrics, improvement, higher):
    best = metrics[0]
    for metric in metrics[1:]:
        if _better(metric, best, improvement, higher):
            best = metric
    return best


def _better(metric, best, improvement, higher):
    margin = improvement * abs(best)
    return metric > best + margin if higher else metric < best - margin


def slow_flow_stop(present, reference, epsilon):
    """Decide one reading: sum of squares, by hand."""
    if not all(map(math.isfinite, present)):
        return False
    return slow_distance(present, reference) < epsilon


def slow_distance(present, reference):
    """Sum squares, by hand."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(present, reference, strict=True)))
