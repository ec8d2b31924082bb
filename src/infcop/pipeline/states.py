"""Other states of the network that a reading is compared with, and the mask it would draw next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from infcop.core.comparison import Anchor, Units, comparison_name
from infcop.core.edges import Edge
from infcop.core.mask import Masks
from infcop.core.records import Comparison
from infcop.flow.compare import Matrices, compare

__all__ = ["States"]


class States:
    """Correlation matrices of the network as it was, kept on the CPU and in every checkpoint.

    Args:
        wanted: The states, and which units, that readings are compared with.
        edges: The edges, in the order of their matrices.
    """

    def __init__(self, wanted: Iterable[tuple[Anchor, Units]], edges: Iterable[Edge]) -> None:
        self.wanted = tuple(sorted(wanted))
        self._edges = tuple(edges)
        self._kept: dict[Anchor, Matrices] = {}
        self._present: Matrices | None = None
        self._mask: Masks | None = None

    def wants(self, anchor: Anchor) -> bool:
        """Return whether readings are compared with that state."""
        return any(anchor == wanted for wanted, _ in self.wanted)

    def take(self, present: Matrices) -> dict[str, Comparison]:
        """Compare a new state with those that are kept; it is the ``last`` one from now on."""
        found = {
            comparison_name(anchor, units): compare(present, self._kept[anchor], units)
            for anchor, units in self.wanted
            if anchor in self._kept
        }
        self._present = present
        self._keep("last", present)
        return found

    def keep(self, anchor: Anchor) -> None:
        """Keep the state that was taken last, under one more name."""
        if self._present is not None:
            self._keep(anchor, self._present)

    def begin_level(self) -> None:
        """Forget what belongs to the level before."""
        self._kept.pop("pruned", None)
        self._mask = None
        self.forget_last()

    def forget_last(self) -> None:
        """Let the next reading have no last one: what lay between was no training."""
        self._kept.pop("last", None)

    def mask_change(self, mask: Masks | None) -> float | None:
        """Return how many entries differ from the mask before, over those that the mask keeps."""
        before, self._mask = self._mask, mask
        if before is None or mask is None or mask.kept == 0:
            return None
        return mask.differing(before) / mask.kept

    def _keep(self, anchor: Anchor, present: Matrices) -> None:
        if self.wants(anchor):
            self._kept[anchor] = present

    def state(self) -> tuple[dict[str, Tensor], dict[Anchor, int]]:
        """Return everything as tensors with names, and which state each anchor is.

        Anchors often are the same state, which is then written once.
        """
        states: list[Matrices] = []
        places: dict[Anchor, int] = {}
        for anchor, kept in self._kept.items():
            known = [place for place, state in enumerate(states) if state is kept]
            places[anchor] = known[0] if known else len(states)
            states += [] if known else [kept]
        tensors = {
            f"{place}.{index}": kept[edge]
            for place, kept in enumerate(states)
            for index, edge in enumerate(self._edges)
        }
        mask = {} if self._mask is None else {f"mask.{n}": m for n, m in self._mask.items()}
        return tensors | mask, places

    def load(self, tensors: Mapping[str, Tensor], places: Mapping[Anchor, int]) -> None:
        """Take back what ``state`` returned."""
        states = {
            place: {edge: tensors[f"{place}.{i}"] for i, edge in enumerate(self._edges)}
            for place in set(places.values())
        }
        self._kept = {anchor: states[place] for anchor, place in places.items()}
        mask = {n.removeprefix("mask."): t for n, t in tensors.items() if n.startswith("mask.")}
        self._mask = Masks(mask) if mask else None
