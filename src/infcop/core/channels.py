"""Channels that go together: which positions of which weights become useless at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from infcop.core.mask import Masks

__all__ = ["ChannelGroups"]


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """Groups of channels, numbered from 0.

    A group is a channel with everything that is coupled to it: the outputs of all layers that are
    added up in it, and the inputs of all layers that read it. Groups of the same places of the same
    weights are of one class; which of them is which makes no difference to the network.

    Attributes:
        places: For every weight and each of its dimensions, the group of every position, int64;
            -1 where it is in none.
        classes: The class of every group, int64.
    """

    places: Mapping[str, tuple[Tensor, ...]]
    classes: Tensor

    @property
    def count(self) -> int:
        """Groups."""
        return len(self.classes)

    def without(self, removed: Tensor, masks: Masks) -> Masks:
        """Return masks in which no entry of the removed groups survives.

        Args:
            removed: Whether a group goes, bool.
            masks: What is alive; weights without places stay as they are.

        Example:
            >>> groups = ChannelGroups({"fc": (torch.tensor([0, 1]), torch.tensor([-1]))},
            ...                        torch.tensor([0, 0]))
            >>> groups.without(torch.tensor([True, False]), Masks.full({"fc": (2, 1)}))["fc"]
            tensor([[False],
                    [ True]])
        """
        found = dict(masks)
        gone = torch.cat([removed, torch.zeros(1, dtype=torch.bool)])  # -1 is the last
        for name, dimensions in self.places.items():
            mask = masks[name].clone()
            for dim, groups in enumerate(dimensions):
                mask.index_fill_(dim, gone[groups].nonzero()[:, 0].to(mask.device), False)
            found[name] = mask
        return Masks(found)
