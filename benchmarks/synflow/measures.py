"""What is measured: where layers are emptied, what is conserved, how much a round removes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.synflow.networks import IMAGE, built, examples
from benchmarks.synflow.rounds import Untrained, kept_at, prune_in_rounds, prune_once
from infcop.core.mask import Masks
from infcop.core.score import Grasp, Magnitude, RandomScore, Score, Snip, SynFlow
from infcop.masking.prune import emptied
from infcop.methods.synflow import synflow
from infcop.scoring import needs_data

__all__ = ["GRID", "SCORES", "Scored", "conservation", "in_rounds", "one_shot", "sizes"]

GRID = tuple(step / 4 for step in range(25))
"""Exponents of the compressions tried."""


@dataclass(frozen=True)
class Scored:
    """A score, the images per class that it looks at, and whether the smallest are kept."""

    score: Score
    per_class: int = 10
    smallest: bool = False


SCORES = {
    "magnitude": Scored(Magnitude()),
    "random": Scored(RandomScore()),
    "snip, eval": Scored(Snip(mode="eval")),
    "snip, eval, 1,000 images": Scored(Snip(mode="eval"), per_class=100),
    "snip, train": Scored(Snip(mode="train")),
    "grasp, eval": Scored(Grasp(mode="eval")),
    "grasp, eval, first code": Scored(Grasp(mode="eval", temperature=1), smallest=True),
    "grasp, train": Scored(Grasp(mode="train")),
}
"""Scores of a single round by the mode that the model is in. The first public code of arXiv
2006.05467 kept the other end of GraSP's scores and had no temperature."""
CLASSES = 100
CLASSES_OF_DATA = 10

_METHOD = synflow()


def sizes(network: str, width: float = 1.0) -> dict[str, dict[str, float]]:
    """Return prunable entries N, tensors L and the exponent of N / L, with and without data."""
    found = {}
    for what, classes in (("no data", CLASSES), ("data", CLASSES_OF_DATA)):
        dense = _untrained(network, seed=0, width=width, classes=classes).dense
        exponent = math.log10(dense.total / len(dense))
        found[what] = {"entries": dense.total, "layers": len(dense), "exponent": exponent}
    return found


def one_shot(network: str, score: str, seed: int, width: float = 1.0) -> dict[str, Any]:
    """Return the largest exponents at which no layer is empty, and at which a path is left."""
    chosen = SCORES[score]
    per_class = chosen.per_class if needs_data(chosen.score) else 0
    untrained = _untrained(network, seed=seed, width=width, per_class=per_class)
    scores = untrained.scores(chosen.score, untrained.dense, seed=seed)
    if chosen.smallest:
        scores = {name: -score for name, score in scores.items()}

    @cache
    def masks(exponent: float) -> Masks:
        kept = kept_at(untrained.dense.total, exponent)
        return prune_once(scores, untrained.dense, _METHOD, kept)

    def is_broken(exponent: float) -> bool:
        return bool(emptied(untrained.dense, masks(exponent)))

    def is_cut(exponent: float) -> bool:
        return untrained.flow(masks(exponent)) == 0

    # What a higher exponent keeps is part of what a lower one keeps, so each changes once.
    whole = bisect_left(GRID, True, key=is_broken) - 1
    path = bisect_left(GRID, True, key=is_cut) - 1
    beyond = masks(GRID[min(whole + 1, len(GRID) - 1)])
    return {
        "without_empty": GRID[whole],
        "with_path": GRID[path],
        "empty_beyond": list(emptied(untrained.dense, beyond)),
    }


def in_rounds(
    network: str,
    exponent: float,
    seed: int,
    *,
    spacing: Literal["exponential", "linear"] = "exponential",
    rounds: int = 100,
    width: float = 1.0,
) -> dict[str, Any]:
    """Return what SynFlow leaves of a network; of a chain also the largest part of a layer removed
    by a round."""
    untrained = _untrained(network, seed=seed, width=width)
    method = _METHOD.model_copy(update={"rounds": rounds, "spacing": spacing})
    kept = kept_at(untrained.dense.total, exponent)
    pruned = prune_in_rounds(untrained, method, kept)
    found = {
        "target": kept,
        "kept": pruned.masks.kept,
        "rounds": len(pruned.counts),
        "empty": list(emptied(untrained.dense, pruned.masks)),
        "flow": untrained.flow(pruned.masks),
    }
    # Layers beside each other don't hold the same score, so that none of them is a cut.
    return found if network == "resnet-18" else {**found, "largest_ratio": pruned.largest_ratio}


def conservation(network: str, width: float = 1.0) -> dict[str, dict[str, float]]:
    """Return how far sums that should be equal differ, relative to the largest of them.

    ``layers`` are the sums of all cuts through the network, ``units`` those of what enters and
    what leaves a hidden unit, in the worst unit; the latter for VGG-16 only, where both are slices
    of successive weights.
    """
    found = {}
    for label, dtype, density in (
        ("float64", torch.float64, 1.0),
        ("float64, 10 % kept", torch.float64, 0.1),
        ("float32", torch.float32, 1.0),
    ):
        untrained = _untrained(network, seed=0, width=width, dtype=dtype)
        masks = untrained.dense
        if density < 1:
            noise = untrained.scores(RandomScore(), masks)
            masks = prune_once(noise, masks, _METHOD, round(density * masks.total))
        scores = {n: s.double() for n, s in untrained.scores(SynFlow(), masks).items()}
        found[label] = {"layers": _spread(_cuts(network, scores))}
        if network == "vgg-16":
            found[label]["units"] = _units(list(scores.values()))
    return found


def _cuts(network: str, scores: Mapping[str, Tensor]) -> list[float]:
    """Return the total score of every cut: a layer, or what runs beside each other in a block."""
    totals = {name: float(score.sum()) for name, score in scores.items()}
    if network == "vgg-16":
        return list(totals.values())
    cuts = [totals["conv1.weight"], totals["fc.weight"]]
    for name, total in totals.items():
        block, shortcut, _ = name.partition("shortcut")
        if shortcut:
            cuts += [totals[f"{block}conv{number}.weight"] + total for number in (1, 2)]
    return cuts


def _units(scores: list[Tensor]) -> float:
    worst = 0.0
    for before, after in pairwise(scores):
        entering = before.flatten(1).sum(dim=1)
        leaving = after.transpose(0, 1).flatten(1).sum(dim=1)
        larger = torch.maximum(entering, leaving)
        apart = (entering - leaving).abs()[larger > 0] / larger[larger > 0]
        worst = max(worst, float(apart.max()))
    return worst


def _spread(values: Iterable[float]) -> float:
    values = list(values)
    return (max(values) - min(values)) / max(values)


def _untrained(
    network: str,
    *,
    seed: int,
    width: float,
    classes: int = CLASSES,
    per_class: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Untrained:
    if per_class:
        model = built(network, num_classes=CLASSES_OF_DATA, seed=seed, width=width)
        return Untrained(model, examples(seed, per_class))
    model = built(network, num_classes=classes, seed=seed, width=width).to(dtype)
    shape = torch.zeros(1, *IMAGE, dtype=dtype)
    return Untrained(model, [(shape, torch.zeros(1, dtype=torch.int64))])
