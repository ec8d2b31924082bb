"""Networks with whole channels removed: how much faster they run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.compact.networks import Network
from benchmarks.compact.searches import dense_of, searched
from benchmarks.compact.turns import latencies
from infcop.collapse import compact
from infcop.core.channels import ChannelGroups
from infcop.core.config import SearchConfig
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import CoupledChannels
from infcop.masking.coupled import channel_scores
from infcop.masking.prune import shrink
from infcop.models.flops import multiply_adds
from infcop.models.prunable import find_prunable
from infcop.pipeline.sizing import groups_for

__all__ = ["BATCH", "by_search", "by_width"]

BATCH = 64
_FEW = 2


def by_search(
    name: str,
    scope: Literal["uniform", "global"],
    *,
    flops: float,
    work: Path,
    repeats: int,
    quick: bool,
) -> dict[str, Any]:
    """Prune a trained network to a part of its FLOPs by magnitude, and train it again."""
    channels = {"kind": "coupled-channels", "multiple": 8}
    method = {"name": "one-shot", "pattern": channels, "scope": scope}
    run = searched(name, method, flops, work, density_in="flops", quick=quick)
    small, outcome = run.result.compact().model, run.result.outcome
    return {
        "data": run.data,
        "dense_accuracy": outcome.dense["accuracy"],
        "accuracy": outcome.sparse["accuracy"],
        **_measured(dense_of(run), small, (run.images(BATCH),), repeats),
    }


def by_width(
    network: Network,
    *,
    repeats: int,
    multiple: int = 1,
    flops: float | None = None,
    channels: float | None = None,
) -> dict[str, Any]:
    """Keep the same part of every class of channels of an untrained network.

    Args:
        network: The network.
        repeats: Pairs of times.
        multiple: Of what the numbers of channels are multiples.
        flops: The part of the multiply-adds that is left at most; scope "uniform" then prunes.
        channels: The part of the channels that is left; one of both is given.
    """
    model, inputs = network.build(), network.inputs(_FEW)
    prunable = find_prunable(model)
    method = MethodConfig(
        name="by-width", pattern=CoupledChannels(multiple=multiple), scope="uniform"
    )
    config = SearchConfig(method=method, density_in="flops")
    groups = groups_for(model, prunable, config, inputs, _FEW)
    full = Masks.full(prunable.shapes)
    scores = {name: model.get_parameter(name).detach().abs() for name in prunable.names}
    if flops is not None:
        kept = math.ceil(flops * full.total)
        masks = shrink(scores, full, method, kept, groups=groups, target_kept=kept)
    else:
        assert groups.channels is not None
        assert channels is not None
        order = torch.from_numpy(channel_scores(groups.channels, "mean", scores, full))
        masks = _narrowed(groups.channels, order, channels, multiple, full)
    small = compact(model, masks, inputs).model
    return {"multiple": multiple, **_measured(model, small, network.inputs(BATCH), repeats)}


def _narrowed(
    groups: ChannelGroups, scores: Tensor, part: float, multiple: int, full: Masks
) -> Masks:
    """Keep the best channels of every class."""
    removed = torch.zeros(groups.count, dtype=torch.bool)
    for label in range(int(groups.classes.max()) + 1):
        own = (groups.classes == label).nonzero()[:, 0]
        kept = min(max(round(part * len(own) / multiple) * multiple, multiple), len(own))
        removed[own[scores[own].argsort()[: len(own) - kept]]] = True
    return groups.without(removed, full)


def _measured(dense: nn.Module, small: nn.Module, inputs: Any, repeats: int) -> dict[str, Any]:
    """Compare sizes and times of a dense network and of a smaller one."""
    found: dict[str, Any] = {
        "parameters": _ratio(dense, small),
        "multiply_adds": multiply_adds(small, inputs).total / multiply_adds(dense, inputs).total,
        "widths": [len(p) for p in small.parameters() if p.ndim == 4],
        "batch": BATCH,
    }
    return found | latencies(small, dense, inputs, repeats=repeats)


def _ratio(dense: nn.Module, small: nn.Module) -> float:
    before, after = (sum(p.numel() for p in model.parameters()) for model in (dense, small))
    return after / before
