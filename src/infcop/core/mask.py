"""Masks: which entries of which parameter survive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from infcop.errors import PruningError

__all__ = ["Masks"]


class Masks(Mapping[str, Tensor]):
    """An immutable mapping from parameter names to boolean masks; true means kept.

    Counts are exact integers. Iteration follows the order in which the names were given.

    Args:
        masks: Boolean tensors of the shapes of their parameters, on the CPU.

    Raises:
        PruningError: A mask is not boolean.

    Example:
        >>> masks = Masks({"fc.weight": torch.tensor([[True, False], [True, True]])})
        >>> masks.kept, masks.total, masks.density
        (3, 4, 0.75)
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise PruningError(
                    f"Masks: expected a boolean mask for '{name}', got {mask.dtype}; "
                    "compare it with zero first"
                )
        self._masks = {name: mask.detach().cpu().clone() for name, mask in masks.items()}

    @classmethod
    def full(cls, shapes: Mapping[str, tuple[int, ...]]) -> Masks:
        """Return masks that keep every entry."""
        return cls({name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def kept_per_layer(self) -> dict[str, int]:
        """Surviving entries of each tensor."""
        return {name: int(mask.count_nonzero()) for name, mask in self._masks.items()}

    @property
    def kept(self) -> int:
        """Surviving entries of all tensors."""
        return sum(self.kept_per_layer.values())

    @property
    def total(self) -> int:
        """Entries of all tensors, surviving or not."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def density(self) -> float:
        """Surviving entries over all entries, in [0, 1]."""
        return self.kept / self.total

    def differing(self, other: Masks) -> int:
        """Return how many entries survive in one of both only."""
        return sum(int((self[name] ^ other[name]).count_nonzero()) for name in self)

    def __le__(self, other: Masks) -> bool:
        """Whether every entry that survives here survives in ``other`` too."""
        return list(self) == list(other) and all(
            not bool((self[name] & ~other[name]).any()) for name in self
        )
