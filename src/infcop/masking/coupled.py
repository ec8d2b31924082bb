"""Pruning channels with all that is coupled to them, down to a size of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import CoupledChannels, Reduce
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.select import check_scores

__all__ = ["Prices", "channel_scores", "priced_kept", "shrink_channels"]

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Prices:
    """What makes up the size of a network.

    Attributes:
        entries: What an entry of each weight costs; of weights that are not named, nothing.
        elsewhere: What all else costs, whatever is pruned.
    """

    entries: Mapping[str, float]
    elsewhere: float = 0.0

    def of(self, counts: Mapping[str, int]) -> float:
        """Return what so many entries of each weight cost, and all else."""
        return self.elsewhere + sum(p * counts.get(name, 0) for name, p in self.entries.items())


def priced_kept(masks: Masks, prices: Prices) -> int:
    r"""Return what is left of a network, as a number of entries of the same part of the whole.

    .. math:: \left\lceil N \frac{e + \sum_l p_l k_l}{e + \sum_l p_l n_l}\right\rceil

    with :math:`k_l` of the :math:`n_l` entries of layer :math:`l` alive, :math:`N` of them in all,
    :math:`p_l` what one of them costs, and :math:`e` what all else costs.

    Args:
        masks: What is alive.
        prices: What entries and all else cost.

    Example:
        >>> masks = Masks({"a": torch.tensor([True, False]), "b": torch.ones(2).bool()})
        >>> priced_kept(masks, Prices({"a": 3.0, "b": 1.0})), priced_kept(masks, Prices({"b": 1.0}))
        (3, 4)
    """
    whole = prices.of({name: mask.numel() for name, mask in masks.items()})
    # What is a whole number but for rounding stays that number.
    return math.ceil(masks.total * prices.of(masks.kept_per_layer) / whole - 1e-6)


def channel_scores(
    groups: ChannelGroups, reduce: Reduce, scores: Mapping[str, Tensor], masks: Masks
) -> Numbers:
    """Return one score a group: what the scores of its surviving entries come to, in float64.

    An entry counts for the channel that it makes and for the one that it reads. A group without
    surviving entries gets NaN.

    Args:
        groups: The groups.
        reduce: Mean, sum, Euclidean norm or largest value.
        scores: Scores of the entries, on the CPU.
        masks: What is alive.

    Example:
        >>> groups = ChannelGroups({"fc": (torch.tensor([0, 1]), torch.tensor([-1, -1]))},
        ...                        torch.tensor([0, 0]))
        >>> scores = {"fc": torch.tensor([[3.0, 4.0], [1.0, 9.0]])}
        >>> channel_scores(groups, "mean", scores, Masks.full({"fc": (2, 2)})).tolist()
        [3.5, 5.0]
    """
    total = torch.zeros(groups.count + 1, dtype=torch.float64)
    largest = torch.full_like(total, -math.inf)
    sizes = torch.zeros_like(total)
    for name, dimensions in groups.places.items():
        mask, values = masks[name].cpu(), scores[name].double()
        values = values.square() if reduce == "norm" else values
        for dim, numbers in enumerate(dimensions):
            others = [other for other in range(mask.ndim) if other != dim]
            at = torch.where(numbers >= 0, numbers, groups.count)
            sizes.index_add_(0, at, mask.sum(dim=others).double())
            if reduce == "max":
                own = values.masked_fill(~mask, -math.inf).amax(dim=others)
                largest.scatter_reduce_(0, at, own, "amax")
            else:
                total.index_add_(0, at, values.masked_fill(~mask, 0.0).sum(dim=others))
    found = {"max": largest, "mean": total / sizes, "norm": total.sqrt(), "sum": total}[reduce]
    return found.masked_fill(sizes == 0, math.nan)[: groups.count].numpy()


def shrink_channels(
    scores: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    kept: int,
    target_kept: int,
    groups: ChannelGroups,
    prices: Prices,
) -> Masks:
    """Remove whole channels until the network is at most as large as asked for.

    They go in ascending order of score; with scope "uniform" or "layerwise" every class of
    channels loses the same part. The last ones to go come back where there is room for them. Every
    class keeps a channel, and as many as its weights need for ``keep_per_layer``.

    Args:
        scores: Importance of every entry.
        masks: What is alive.
        method: Pattern, scope, ``keep_per_layer`` are used.
        kept: The size, as :func:`priced_kept` counts it.
        target_kept: The size at the end of the search.
        groups: The channels.
        prices: What an entry costs.

    Raises:
        PruningError: The scope or the size can't be honoured, or scores are unusable.
        LayerCollapseError: The size can be had, but not before the end of the search.

    Example:
        >>> from infcop.core.pattern import CoupledChannels
        >>> groups = ChannelGroups(
        ...     {"in": (torch.arange(3), torch.tensor([-1])), "out": (torch.tensor([-1]),
        ...      torch.arange(3))}, torch.zeros(3, dtype=torch.int64))
        >>> scores = {"in": torch.tensor([[3.0], [1.0], [2.0]]), "out": torch.ones(1, 3)}
        >>> masks = Masks.full({"in": (3, 1), "out": (1, 3)})
        >>> method = MethodConfig(name="mine", pattern=CoupledChannels())
        >>> prices = Prices({"in": 1.0, "out": 1.0})
        >>> shrink_channels(scores, masks, method, 4, 2, groups, prices)["out"].tolist()
        [[True, False, True]]
    """
    pattern = method.pattern
    assert isinstance(pattern, CoupledChannels)
    own = channel_scores(groups, pattern.reduce, check_scores("channels", scores, masks), masks)
    if pattern.normalise:
        own = _normalised(own, groups)
    ledger = _Ledger(masks, groups, prices)
    blocks = _blocks(own, ledger, method)
    most = kept / masks.total * ledger.whole
    removed = _prefix(blocks, ledger, most)
    if removed is None:
        least = math.ceil(masks.total * ledger.costs(blocks)[-1] / ledger.whole)
        message = (
            f"pattern 'coupled-channels' leaves {least / masks.total:.6g} of the network at least, "
            f"in channels that can't go one by one and {max(1, method.keep_per_layer)} or more "
            f"entries of each layer, but only {kept / masks.total:.6g} may be left; ask for a "
            "higher density"
        )
        raise PruningError(message) if target_kept < least else LayerCollapseError(message)
    gone = _with_the_best_back(blocks[:removed], ledger, most)
    chosen = torch.zeros(groups.count, dtype=torch.bool)
    for block in gone:
        chosen[torch.from_numpy(block)] = True
    return groups.without(chosen, masks)


class _Ledger:
    """What the network costs with some channels gone.

    A weight whose channels are gone is a block: its entries are a product over its dimensions.
    """

    def __init__(self, masks: Masks, groups: ChannelGroups, prices: Prices) -> None:
        self.groups = groups
        self.prices = {name: prices.entries.get(name, 0.0) for name in masks}
        self.whole = prices.of({name: mask.numel() for name, mask in masks.items()})
        self.fixed = prices.elsewhere
        self.alive: dict[str, list[Tensor]] = {}
        for name, mask in masks.items():
            if name in groups.places:
                own = mask.cpu()
                axes = range(own.ndim)
                self.alive[name] = [own.any(dim=[o for o in axes if o != dim]) for dim in axes]
            else:
                self.fixed += self.prices[name] * int(mask.count_nonzero())

    def costs(self, blocks: Sequence[Counts]) -> Numbers:
        """Return the cost after none, one, two, ... of these blocks of groups are gone."""
        upto = len(blocks)
        rank = np.full(self.groups.count + 1, upto, dtype=np.int64)
        for place, block in enumerate(blocks):
            rank[block] = place
        total = np.full(upto + 1, self.fixed)
        for name, kept in self.alive.items():
            product = np.full(upto + 1, self.prices[name])
            for numbers, living in zip(self.groups.places[name], kept, strict=True):
                at = rank[numbers[living].numpy()]
                leaving = np.bincount(at[at < upto], minlength=upto)[:upto]
                product *= len(at) - np.concatenate([[0], np.cumsum(leaving)])
            total += product
        return total

    def counts(self, gone: Counts) -> dict[str, list[int]]:
        """Return how many positions every dimension of every weight has left."""
        dead = np.zeros(self.groups.count + 1, dtype=np.bool_)
        dead[gone] = True
        return {
            name: [
                int((~dead[numbers[living].numpy()]).sum())
                for numbers, living in zip(self.groups.places[name], kept, strict=True)
            ]
            for name, kept in self.alive.items()
        }

    def where(self, gone: Counts) -> dict[int, list[tuple[str, int, int]]]:
        """Return in which dimensions of which weights each group has how many positions."""
        wanted = np.zeros(self.groups.count + 1, dtype=np.bool_)
        wanted[gone] = True
        found: dict[int, list[tuple[str, int, int]]] = {int(group): [] for group in gone}
        for name, kept in self.alive.items():
            for dim, (numbers, living) in enumerate(
                zip(self.groups.places[name], kept, strict=True)
            ):
                own = numbers[living].numpy()
                groups, counts = np.unique(own[wanted[own]], return_counts=True)
                for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
                    found[group].append((name, dim, count))
        return found


def _normalised(scores: Numbers, groups: ChannelGroups) -> Numbers:
    """Divide by the mean size of the scores of each class; where all are zero, they stay so."""
    classes = torch.from_numpy(groups.classes.numpy())
    sizes = torch.from_numpy(np.abs(scores))
    alive = ~sizes.isnan()
    count = int(classes.max()) + 1 if groups.count else 0
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, classes, sizes.nan_to_num(0.0))
    number = torch.zeros(count, dtype=torch.float64).index_add_(0, classes, alive.double())
    mean = (total / number)[classes]
    return torch.where(mean > 0, torch.from_numpy(scores) / mean, torch.from_numpy(scores)).numpy()


def _blocks(scores: Numbers, ledger: _Ledger, method: MethodConfig) -> list[Counts]:
    """Return the groups that may go, in blocks that go at once, the first to go first."""
    pattern = method.pattern
    assert isinstance(pattern, CoupledChannels)
    if method.scope not in ("global", "uniform", "layerwise"):
        scope = method.scope if isinstance(method.scope, str) else method.scope.kind
        raise PruningError(
            f"scope '{scope}' gives every layer a number of entries, but coupled channels belong "
            "to several layers; use scope 'global', 'uniform' or 'layerwise'"
        )
    classes = ledger.groups.classes.numpy()
    alive = np.flatnonzero(~np.isnan(scores))
    if not len(alive):
        raise PruningError(
            "pattern 'coupled-channels' finds no channels that can be removed: they reach the "
            "input or the output, are mixed by a normalisation, or are read by weights that are "
            "excluded; use pattern 'unstructured', 'channel' or 'heads'"
        )
    ascending = alive[np.lexsort((alive, scores[alive]))]
    found: list[tuple[float, int, Counts]] = []
    for label in range(int(classes.max()) + 1):
        own = ascending[classes[ascending] == label]
        size = int((classes == label).sum())
        protected = max(_needed(ledger, own, method.keep_per_layer), pattern.multiple)
        start = 0
        end = len(own) % pattern.multiple or pattern.multiple
        while end <= len(own) - protected:
            block = own[start:end]
            part = (start - len(own)) / size
            key = float(scores[block].mean()) if method.scope == "global" else part
            found.append((key, int(block[0]), block))
            start, end = end, end + pattern.multiple
    return [block for _, _, block in sorted(found, key=lambda one: one[:2])]


def _needed(ledger: _Ledger, own: Counts, keep_per_layer: int) -> int:
    """Return how many channels of a class it takes so that each weight keeps enough entries."""
    if keep_per_layer <= 1 or not len(own):
        return 1
    needed = 1
    for name, dim, count in ledger.where(own[-1:])[int(own[-1])]:
        kept = ledger.alive[name]
        one = count * math.prod(int(x.sum()) for d, x in enumerate(kept) if d != dim)
        needed = max(needed, math.ceil(keep_per_layer / one))
    return needed


def _prefix(blocks: Sequence[Counts], ledger: _Ledger, most: float) -> int | None:
    """Return how many blocks have to go; None if all are too few."""
    fits = np.flatnonzero(ledger.costs(blocks) <= most * (1 + 1e-12))
    return int(fits[0]) if len(fits) else None


def _with_the_best_back(gone: Sequence[Counts], ledger: _Ledger, most: float) -> list[Counts]:
    """Let blocks come back, the best first, for as long as there is room."""
    if not gone:
        return []
    every = np.concatenate(gone)
    counts, where = ledger.counts(every), ledger.where(every)
    cost = {name: ledger.prices[name] * math.prod(own) for name, own in counts.items()}
    total = ledger.fixed + sum(cost.values())
    stay = []
    for block in reversed(gone):
        places = [place for group in block.tolist() for place in where[group]]
        grown = {name: list(counts[name]) for name, _, _ in places}
        for name, dim, count in places:
            grown[name][dim] += count
        more = {name: ledger.prices[name] * math.prod(own) for name, own in grown.items()}
        after = total + sum(more[name] - cost[name] for name in more)
        if after <= most:
            counts |= grown
            cost |= more
            total = after
        else:
            stay.append(block)
    return stay
