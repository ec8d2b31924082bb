"""The recipe: optimiser, and learning rate as a pure function of the place in training."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from infcop.core.config import TrainingConfig
from infcop.core.rate import LrSchedule

__all__ = ["build_optimizer", "learning_rate"]

_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_PEAK = 0.3


def build_optimizer(
    parameters: Iterable[nn.Parameter], recipe: TrainingConfig
) -> torch.optim.Optimizer:
    """Return a fresh optimiser over the parameters that require gradients."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            trainable, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(
        trainable, lr=recipe.lr, betas=(recipe.momentum, 0.999), weight_decay=recipe.weight_decay
    )


def learning_rate(
    recipe: TrainingConfig,
    place: float,
    horizon: float,
    *,
    schedule: LrSchedule | None = None,
    peak: float | None = None,
) -> float:
    """Return the learning rate at a place of a schedule that is ``horizon`` passes long.

    Beyond its horizon a schedule stays at its last value. With ``u = place / horizon``, ``L`` the
    peak and ``e`` the end fraction: constant ``L``; step ``L * factor^(milestones passed)``; cosine
    ``L * (e + (1 - e) * (1 + cos(pi u)) / 2)`` (Loshchilov and Hutter, arXiv 1608.03983, eq. 5);
    one-cycle rises from ``L / 25`` to ``L`` over the first 30 % and falls to ``e L``, both along a
    half cosine (Smith and Topin, arXiv 1708.07120). The linear warm-up multiplies all of them.

    Args:
        recipe: The training recipe.
        place: Passes since the start of the schedule, at least 0.
        horizon: Passes of the whole schedule, above 0.
        schedule: Instead of the recipe's.
        peak: Instead of the recipe's ``lr``.

    Example:
        >>> recipe = TrainingConfig(lr=0.1, schedule="step", milestones=(0.5,))
        >>> round(learning_rate(recipe, 4, 10), 4), round(learning_rate(recipe, 5, 10), 4)
        (0.1, 0.01)
    """
    progress = min(place / horizon, 1.0)
    kind = recipe.schedule if schedule is None else schedule
    value = recipe.lr if peak is None else peak
    if kind == "step":
        # The slack keeps a milestone at its step where place is a sum of rounded fractions.
        passed = sum(progress >= milestone - 1e-9 for milestone in recipe.milestones)
        value *= recipe.step_factor**passed
    elif kind == "cosine":
        value *= _half_cosine(1.0, recipe.lr_end_fraction, progress)
    elif kind == "one-cycle":
        value *= _one_cycle(recipe.lr_end_fraction, progress)
    if place < recipe.lr_warmup_passes:
        # A hundredth at the very first step: a rate of exactly zero would waste it.
        value *= max(place / recipe.lr_warmup_passes, 0.01)
    return value


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(end: float, progress: float) -> float:
    if progress < _ONE_CYCLE_PEAK:
        return _half_cosine(_ONE_CYCLE_START, 1.0, progress / _ONE_CYCLE_PEAK)
    return _half_cosine(1.0, end, (progress - _ONE_CYCLE_PEAK) / (1 - _ONE_CYCLE_PEAK))
