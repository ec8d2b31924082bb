"""Telling whether what was removed from a network has changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from infcop.core.mask import Masks

__all__ = ["Removed", "removed_of"]


@dataclass(frozen=True, eq=False)
class Removed:
    """What was removed of the parameters and buffers of a network, as digests.

    Attributes:
        kept: What positions of each were kept along each dimension; None for all.
        masks: What survives, by name; tensors without a mask survive as a whole.
        dtypes: The precision of each.
        digests: A digest of the surviving entries that were removed, by name.
    """

    kept: Mapping[str, tuple[Tensor | None, ...]]
    masks: Masks
    dtypes: Mapping[str, torch.dtype]
    digests: Mapping[str, str]

    def changed(self, entries: Mapping[str, Tensor]) -> list[str]:
        """Return the names of those that differ from what was removed."""
        return [name for name, digest in self.digests.items() if self._of(entries, name) != digest]

    def _of(self, entries: Mapping[str, Tensor], name: str) -> str:
        given = entries[name].detach().to(self.dtypes[name])
        return _digest(given, self.kept[name], self.masks.get(name))


def removed_of(
    entries: Mapping[str, Tensor],
    kept: Mapping[str, tuple[Tensor | None, ...]],
    masks: Masks,
) -> Removed:
    """Remember what is removed.

    Args:
        entries: Parameters and buffers in their original sizes.
        kept: What positions of each stay along each dimension; None for all.
        masks: What survives, by name.

    Example:
        >>> kept = {"bias": (torch.tensor([0]),)}
        >>> removed = removed_of({"bias": torch.tensor([1.0, 2.0])}, kept, Masks({}))
        >>> removed.changed({"bias": torch.tensor([7.0, 2.0])})
        []
        >>> removed.changed({"bias": torch.tensor([1.0, 7.0])})
        ['bias']
    """
    names = [name for name, places in kept.items() if any(one is not None for one in places)]
    return Removed(
        kept,
        masks,
        {name: entries[name].dtype for name in names},
        {name: _digest(entries[name].detach(), kept[name], masks.get(name)) for name in names},
    )


def _digest(entry: Tensor, kept: tuple[Tensor | None, ...], mask: Tensor | None) -> str:
    left = entry.cpu().clone()
    if mask is not None:
        left.masked_fill_(~mask.cpu(), 0)
    grids = [
        torch.arange(size) if places is None else places
        for size, places in zip(left.shape, kept, strict=True)
    ]
    left[torch.meshgrid(*grids, indexing="ij")] = 0
    if left.is_floating_point():
        left += 0.0  # zeros of either sign are the same
    return hashlib.sha256(left.contiguous().numpy().tobytes()).hexdigest()
