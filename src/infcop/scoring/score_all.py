"""Scoring the weights of all layers together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.core.score import Score, Snip
from infcop.errors import PruningError
from infcop.scoring import SCORES

__all__ = ["score_all"]

_ALL_ZERO = {
    "gradient": "the loss does not depend on any prunable weight that survives",
    "hessian-gradient": "the loss has no curvature along its gradient",
    "squared-gradient": "the loss does not depend on any prunable weight that survives",
    "synaptic-flow": "no flow runs through any weight that survives",
    "input-norm": "no weight that survives has an input other than zero",
    "input-correlation": "no weight that survives connects units that vary together",
    "movement": "nothing has been trained yet, or training has moved no weight",
}


def score_all(
    score: Score,
    weights: Mapping[str, Tensor],
    evidence: Mapping[str, Tensor],
    masks: Masks,
) -> dict[str, Tensor]:
    """Score the weights of all layers.

    SNIP's scores are divided by their sum over all surviving entries, so that they sum to 1.

    Args:
        score: Which score.
        weights: The weights by name.
        evidence: The ``values`` of :func:`~infcop.scoring.gather.gather` for the same names.
        masks: What survives.

    Returns:
        Scores of the names, shapes and devices of the weights: floating point, outside of autograd
        and in memory of their own. The higher, the more the weight matters.

    Raises:
        PruningError: Evidence or a mask is missing or does not fit, or says nothing: every entry
            that survives scores 0.

    Example:
        >>> weights = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([4.0])}
        >>> gradients = {"a": torch.tensor([1.0, 0.5]), "b": torch.tensor([0.5])}
        >>> score_all(Snip(), weights, gradients, Masks.full({"a": (2,), "b": (1,)}))
        {'a': tensor([0.2500, 0.2500]), 'b': tensor([0.5000])}
    """
    named = SCORES[score.kind]
    scores = {}
    # A size or a noise of 0 is an answer like any other.
    alive = named.evidence in ("none", "noise")
    for name, weight in weights.items():
        _check_fit(score.kind, name, weight, evidence, masks)
        mask = masks[name].to(weight.device)
        scores[name] = named.fn(weight, evidence.get(name), mask)
        if not alive:
            alive = bool(((scores[name] != 0) & mask).any())
    if scores and not alive:
        raise PruningError(
            f"score '{score.kind}': every surviving weight scores 0, so there is nothing to choose "
            f"by: {_ALL_ZERO[named.evidence]}. Look for layers that are dead or not used, or use "
            "another score"
        )
    if isinstance(score, Snip):
        _divide_by_sum(scores, masks)
    return scores


def _divide_by_sum(scores: Mapping[str, Tensor], masks: Masks) -> None:
    totals = {name: _sum(values, masks[name].to(values.device)) for name, values in scores.items()}
    for name, total in totals.items():
        if not math.isfinite(total):
            raise PruningError(
                f"score 'snip': expected finite scores, got NaN or infinity in '{name}'; look "
                "for weights that are not finite"
            )
    whole = math.fsum(totals.values())
    for values in scores.values():
        values.div_(whole)


def _check_fit(
    kind: str, name: str, weight: Tensor, evidence: Mapping[str, Tensor], masks: Masks
) -> None:
    wanted = tuple(weight.shape)
    if name not in masks or masks[name].shape != weight.shape:
        got = f"shape {tuple(masks[name].shape)}" if name in masks else "none"
        raise PruningError(
            f"score_all: expected a mask of shape {wanted} for '{name}', got {got}; "
            f"{did_you_mean(name, masks)}"
        )
    if SCORES[kind].evidence == "none":
        return
    if name not in evidence or not _broadcasts(evidence[name], wanted):
        got = f"shape {tuple(evidence[name].shape)}" if name in evidence else "none"
        raise PruningError(
            f"score_all: expected evidence for '{name}' that can be broadcast to {wanted}, got "
            f"{got}; gather it for this score and these names ({did_you_mean(name, evidence)})"
        )


def _broadcasts(evidence: Tensor, shape: tuple[int, ...]) -> bool:
    try:
        evidence.expand(shape)
    except RuntimeError:
        return False
    return True


def _sum(scores: Tensor, mask: Tensor) -> float:
    """Return the sum of what survives, of scores that are not negative."""
    # In float64, which Apple's devices have not.
    dtype = None if scores.device.type == "mps" else torch.float64
    return float(torch.linalg.vector_norm(scores.masked_fill(~mask, 0), 1, dtype=dtype))
