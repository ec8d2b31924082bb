"""Masks of an untrained network, from one scoring or from many, and what flows under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.score import Score
from infcop.errors import PruningError
from infcop.masking.groups import Groups
from infcop.masking.prune import shrink
from infcop.masking.rounds import round_counts
from infcop.models.prunable import find_prunable, get_parameters
from infcop.scoring.evidence.positive import positive_copy
from infcop.scoring.gather import gather, score_all
from infcop.tasks.classification import Classification

__all__ = ["Pruned", "Untrained", "kept_at", "prune_in_rounds", "prune_once", "prune_to_cut"]


def kept_at(total: int, exponent: float) -> int:
    """Return how many entries a compression by ``10 ** exponent`` keeps, as the source counts."""
    return total - math.floor((1 - 10**-exponent) * total)


class Untrained:
    """A network at its initialisation, and the batches that its weights are scored on.

    Args:
        model: The network; its weights change while it is scored under masks.
        batches: Pairs of inputs and labels; for scores without data one with the right shape.
    """

    def __init__(self, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.model = model
        found = find_prunable(model)
        self.dense = Masks.full(found.shapes)
        self._batches = batches
        self._task = Classification(batches, batches)
        self._parameters = get_parameters(model, found.names)
        self._values = {name: p.detach().clone() for name, p in self._parameters.items()}

    def scores(self, score: Score, masks: Masks, *, seed: int = 0) -> dict[str, Tensor]:
        """Return the scores of all weights with masks in force."""
        self._apply(masks)
        names = tuple(self._parameters)
        found = gather(score, self.model, names, self._task, lambda: self._batches, seed=seed)
        weights = {name: p.detach() for name, p in self._parameters.items()}
        return score_all(score, weights, found.values, masks)

    @torch.no_grad()
    def flow(self, masks: Masks) -> float:
        """Return the synaptic flow through the masked network: 0 if no path is left."""
        self._apply(masks)
        ones = torch.ones_like(self._batches[0][0][:1], dtype=torch.float64)
        return float(positive_copy(self.model, torch.float64)(ones).sum())

    @torch.no_grad()
    def _apply(self, masks: Masks) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(self._values[name] * masks[name])


@dataclass(frozen=True)
class Pruned:
    """What rounds of pruning came to.

    Attributes:
        masks: After the last round.
        counts: Entries kept after each round; fewer than there are rounds if no path was left.
        largest_ratio: Of what a round removes over what a layer holds, in score.
    """

    masks: Masks
    counts: tuple[int, ...]
    largest_ratio: float


def prune_once(scores: dict[str, Tensor], masks: Masks, method: MethodConfig, kept: int) -> Masks:
    """Keep the entries with the largest scores."""
    return shrink(scores, masks, method, kept, groups=Groups(), target_kept=kept)


def prune_in_rounds(untrained: Untrained, method: MethodConfig, kept: int) -> Pruned:
    """Score and prune in turn, as many times as the method has rounds, or until no path is left."""
    masks, counts, ratios = untrained.dense, [], [0.0]
    for number, count in enumerate(
        round_counts(masks.kept, kept, method.rounds, method.spacing), start=1
    ):
        if count < masks.kept:
            try:
                scores = untrained.scores(method.score, masks, seed=number)
            except PruningError:
                if untrained.flow(masks) > 0:
                    raise
                break
            smaller = shrink(scores, masks, method, count, groups=Groups(), target_kept=kept)
            ratios.append(prune_to_cut(scores, masks, smaller))
            masks = smaller
        counts.append(masks.kept)
    return Pruned(masks, tuple(counts), max(ratios))


def prune_to_cut(scores: dict[str, Tensor], before: Masks, after: Masks) -> float:
    """Return the score of all that a round removes over that of the layer with the least.

    Below 1, a round can't empty a layer of a network whose layers all hold the same score.
    """
    removed = [scores[name][before[name] & ~after[name]].double().sum() for name in after]
    held = [scores[name][mask].double().sum() for name, mask in before.items() if mask.any()]
    return float(torch.stack(removed).sum() / torch.stack(held).min())
