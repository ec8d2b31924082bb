"""Importance scores: pure functions of tensors. Add a function and a line here to add a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from infcop.core.score import Score
from infcop.scoring.correlation import correlation
from infcop.scoring.fisher import fisher
from infcop.scoring.magnitude import magnitude
from infcop.scoring.movement import movement
from infcop.scoring.noise import random_score
from infcop.scoring.saliency import grasp, snip, synflow, taylor
from infcop.scoring.wanda import wanda

__all__ = ["SCORES", "EvidenceKind", "NamedScore", "ScoreFn", "needs_data"]

ScoreFn = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""``score(weight, evidence, mask)`` has the shape of the weight, and so has the mask; the evidence
can be broadcast to it. The higher, the more the weight matters; what it says of pruned entries is
never looked at."""

EvidenceKind = Literal[
    "none",
    "noise",
    "gradient",
    "hessian-gradient",
    "synaptic-flow",
    "squared-gradient",
    "input-norm",
    "input-correlation",
    "movement",
]
"""What a score knows beside the weights."""

_FROM_DATA: tuple[EvidenceKind, ...] = (
    "gradient",
    "hessian-gradient",
    "squared-gradient",
    "input-norm",
    "input-correlation",
)


@dataclass(frozen=True)
class NamedScore:
    """A score, what it needs, and a line about it for listings.

    Attributes:
        fn: The pure function.
        evidence: What its second argument holds.
        summary: What it stands for, in one line.
    """

    fn: ScoreFn
    evidence: EvidenceKind
    summary: str


SCORES: dict[str, NamedScore] = {
    "magnitude": NamedScore(magnitude, "none", "size of the weight"),
    "random": NamedScore(random_score, "noise", "independent normal numbers"),
    "snip": NamedScore(snip, "gradient", "connection sensitivity: share of |weight x gradient|"),
    "grasp": NamedScore(grasp, "hessian-gradient", "part of the gradient flow that it carries"),
    "synflow": NamedScore(synflow, "synaptic-flow", "synaptic flow through it, without data"),
    "taylor": NamedScore(taylor, "gradient", "first-order change of the loss without it"),
    "fisher": NamedScore(fisher, "squared-gradient", "second-order change of the loss without it"),
    "wanda": NamedScore(wanda, "input-norm", "size of the weight times size of its input"),
    "correlation": NamedScore(
        correlation, "input-correlation", "size times correlation of the units that it connects"
    ),
    "movement": NamedScore(movement, "movement", "how far training moves it away from zero"),
}
"""Every score by the ``kind`` of its settings."""


def needs_data(score: Score) -> bool:
    """Return whether a score looks at examples.

    One that does not may still need a batch for the shape of the inputs: the synaptic flow does.

    Example:
        >>> from infcop.core.score import Magnitude, Snip
        >>> needs_data(Magnitude()), needs_data(Snip())
        (False, True)
    """
    return SCORES[score.kind].evidence in _FROM_DATA
