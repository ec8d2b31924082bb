"""The learning rate of levels and final training, as pure functions of the place in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infcop.core.config import SearchConfig
from infcop.core.rate import ConstantRate, LinearRate, OneRunRate, RestartRate
from infcop.training.recipe import learning_rate

__all__ = ["LevelFacts", "adaptive_start", "final_rate", "level_rate", "linear_rate"]


@dataclass(frozen=True)
class LevelFacts:
    """What the learning rate of a level depends on, besides the settings."""

    start: float = 0.0
    """Passes of the dense schedule at the place that the rewind restores."""
    pruned_norm: float = 0.0
    """Norm of what the level removed, over the norm of the weights before."""
    pruned_fraction: float = 1.0
    """Entries that the level removed, over those that were alive before, in (0, 1]."""
    before: float = 0.0
    """Passes of all levels before this one."""
    run_passes: float = 0.0
    """Passes of all levels and the final training; with ``one-run`` only."""


def level_rate(config: SearchConfig, facts: LevelFacts, passes: float) -> float:
    """Return the learning rate after so many passes of a level.

    ==========  ===================================================================
    ``kind``    rate
    ==========  ===================================================================
    schedule    the dense schedule at ``start + passes``
    constant    ``fraction * lr``
    restart     a schedule of ``dense.passes``, shrunk to the budget of the level
    linear      :func:`linear_rate` from ``lr`` or from :func:`adaptive_start`
    one-run     the final schedule at ``before + passes``, ``run_passes`` long
    ==========  ===================================================================

    Example:
        >>> from infcop.core.method import MethodConfig
        >>> method = MethodConfig(name="mine", rate=ConstantRate(fraction=0.1))
        >>> config = SearchConfig(method=method, training={"lr": 0.5})
        >>> level_rate(config, LevelFacts(), passes=3)
        0.05
    """
    rate, recipe, budget = config.method.rate, config.training, config.level_passes
    if isinstance(rate, ConstantRate):
        return rate.fraction * recipe.lr
    if isinstance(rate, RestartRate):
        place = passes * config.dense.passes / budget
        return learning_rate(recipe, place, config.dense.passes, schedule=rate.schedule)
    if isinstance(rate, LinearRate):
        start = recipe.lr
        if rate.start == "adaptive":
            start *= adaptive_start(
                facts.pruned_norm, facts.pruned_fraction, budget / config.dense.passes
            )
        return linear_rate(start, passes / budget, rate.warmup)
    if isinstance(rate, OneRunRate):
        return _final_schedule(config, facts.before + passes, facts.run_passes)
    return learning_rate(recipe, facts.start + passes, config.dense.passes)


def final_rate(config: SearchConfig, passes: float, facts: LevelFacts | None = None) -> float:
    """Return the learning rate after so many passes of the final training.

    Args:
        config: The settings.
        passes: Passes since the final training began.
        facts: With ``one-run``, the passes of all levels and of the whole run.

    Example:
        >>> from infcop.core.method import MethodConfig
        >>> config = SearchConfig(
        ...     method=MethodConfig(name="mine"), training={"lr": 0.5}, final={"passes": 2})
        >>> final_rate(config, passes=0), round(final_rate(config, passes=2), 6)
        (0.5, 0.005)
    """
    if isinstance(config.method.rate, OneRunRate) and facts is not None:
        return _final_schedule(config, facts.before + passes, facts.run_passes)
    return _final_schedule(config, passes, config.final_passes)


def adaptive_start(pruned_norm: float, pruned_fraction: float, length: float) -> float:
    r"""Return the fraction of the peak rate at which a level should start to train.

    .. math:: \min(1, \max(d_1, d_2)), \qquad
        d_1 = \frac{\|W - W'\|_2}{\|W\|_2 \sqrt s}, \qquad d_2 = \frac{T'}{T}

    (ALLR of Zimmer, Spiegel and Pokutta, arXiv 2111.00843.) Removing the fraction ``s`` of the
    weights by magnitude takes away at most the square root of ``s`` of their norm, so the first
    number is 1 where the level did the most damage that it could, and small where it took only
    weights near zero. A long retraining can afford a large rate in any case.

    Args:
        pruned_norm: The ratio of norms, in [0, 1]. The authors' code takes it over all weights and
            biases, normalisation included; here it runs over the prunable weights.
        pruned_fraction: ``s``, of the weights alive before, in (0, 1].
        length: Passes ``T'`` of the level over those of the dense training, ``T``.

    Example:
        >>> round(adaptive_start(0.1, 0.25, length=0.125), 6)
        0.2
        >>> round(adaptive_start(0.1, 0.25, length=0.5), 6)
        0.5
    """
    return min(max(pruned_norm / math.sqrt(pruned_fraction), length), 1.0)


def linear_rate(start: float, progress: float, warmup: float = 0.0) -> float:
    r"""Return the rate on a straight line from ``start`` to 0, after a warm-up.

    For a progress ``u`` past the warm-up ``w``: :math:`start (1 - u) / (1 - w)` (LLR of arXiv
    2111.00843, after Li et al., arXiv 1905.04753); before that the rate rises along a half cosine,
    as the authors' code does it: :math:`start (1 - \cos(\pi u / w)) / 2`.

    Args:
        start: The largest rate.
        progress: Passes over the passes of the whole line, in [0, 1). The last step lies before 1,
            so no step has a rate of 0.
        warmup: Fraction of the line, in [0, 1).

    Example:
        >>> linear_rate(0.4, 0.5), round(linear_rate(0.4, 0.1, warmup=0.2), 6)
        (0.2, 0.2)
    """
    if progress < warmup:
        # A hundredth at the very first step: a rate of exactly zero would waste it.
        return start * max((1 - math.cos(math.pi * progress / warmup)) / 2, 0.01)
    # The fraction first: it is at most 1 after rounding too, so no rate lies above the start.
    return start * ((1 - progress) / (1 - warmup))


def _final_schedule(config: SearchConfig, place: float, horizon: float) -> float:
    return learning_rate(
        config.training, place, horizon, schedule=config.final.schedule, peak=config.final.lr
    )
