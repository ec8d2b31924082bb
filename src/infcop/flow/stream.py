"""From the taps of many forward passes to co-moments, a chunk of examples at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import torch
from torch import Tensor

from infcop.core.edges import Edges, Tap
from infcop.core.float64 import to_float64
from infcop.core.spread import epsilon
from infcop.errors import FlowError
from infcop.flow.moments import Centred, CoMoments, centred
from infcop.flow.taps import Pass

__all__ = ["InformationStream"]

_CHUNK_EXAMPLES = 1024
_CHUNK_BYTES = 2**24


class InformationStream:
    """Gathers activations in buffers and turns a full buffer into co-moments.

    A matrix product over a thousand examples costs little more than one over a batch of fifty, and
    everything else about it is paid once. The buffers hold at most 16 MiB, or a batch if that is
    more; what they gather is float64 at once.

    Args:
        edges: The edges, with their calls.
        keep: Whether to keep the activations too, for standard errors.
        own: Whether to gather the moments of every edge's ends with themselves too.
    """

    def __init__(self, edges: Edges, *, keep: bool = False, own: bool = False) -> None:
        self.moments = CoMoments(edges)
        self.own = (CoMoments(edges), CoMoments(edges)) if own else None
        self.examples = 0
        self.kept: list[Pass] = []
        self._edges, self._keep = edges, keep
        self._pairs = [(edge, edges.calls(edge)) for edge in edges.edges]
        self._buffers: dict[Tap, Tensor] = {}
        self._present: tuple[Tap, ...] = ()
        self._filled = 0
        self._types: dict[Tap, torch.dtype] = {}
        self._batches: list[int] = []
        self._first_bad: dict[Tap, Tensor] = {}

    def add(self, passes: Iterable[Pass]) -> None:
        """Take in the forward passes of one batch; an empty one is counted."""
        for one in passes:
            self._add(one)
        self._batches.append(self.examples)

    @torch.no_grad()
    def flush(self) -> CoMoments:
        """Return the co-moments of everything taken in so far."""
        if self._filled:
            self._close()
        return self.moments

    def first_non_finite(self) -> dict[str, int]:
        """Return the layers that gave a non-finite activation, each with its first batch."""
        found: dict[str, int] = {}
        for (name, _), example in self._first_bad.items():
            if (first := int(example)) < self.examples:
                batch = bisect_right(self._batches, first)
                found[name] = min(batch, found.get(name, batch))
        return found

    def _add(self, one: Pass) -> None:
        counts = {len(rows) for rows in one.values()}
        if len(counts) != 1:
            shapes = {f"{name} (call {call})": tuple(t.shape) for (name, call), t in one.items()}
            raise FlowError(
                "information flow: expected as many examples at every layer of a forward pass, got "
                f"{shapes}; give edges traced on a batch, which say where each layer has its "
                "examples"
            )
        present = tuple(one)
        if present != self._present:
            self._start(one)
        taken, count = 0, counts.pop()
        while taken < count:
            room = len(self._buffers[present[0]]) - self._filled
            step = min(room, count - taken)
            for tap, rows in one.items():
                place = self._buffers[tap][self._filled : self._filled + step]
                place.copy_(rows[taken : taken + step])
            taken += step
            self._filled += step
            self.examples += step
            if step == room:
                self._close()

    def _start(self, one: Pass) -> None:
        """Make buffers for the calls that this pass has."""
        if self._filled:
            self._close()
        count = len(next(iter(one.values())))
        width = sum(rows.shape[1] for rows in one.values())
        capacity = max(count, min(_CHUNK_EXAMPLES, _CHUNK_BYTES // (8 * max(width, 1))))
        self._buffers = {
            tap: rows.new_empty(
                (capacity, rows.shape[1]),
                dtype=torch.float64,
                # The one device that may have no float64.
                device=to_float64(rows[:0]).device,
            )
            for tap, rows in one.items()
        }
        self._types = {tap: rows.dtype for tap, rows in one.items()}
        self._present = tuple(one)

    @torch.no_grad()
    def _close(self) -> None:
        first = self.examples - self._filled
        chunk = {tap: buffer[: self._filled] for tap, buffer in self._buffers.items()}
        if self._keep:
            # In their own type, which holds them exactly in half the memory.
            self.kept.append(
                {tap: rows.to(self._types[tap], copy=True) for tap, rows in chunk.items()}
            )
        for tap, rows in chunk.items():
            self._look_for_non_finite(tap, rows, first)
        centres: dict[Tap, Centred] = {
            tap: centred(rows, epsilon(self._types[tap])) for tap, rows in chunk.items()
        }
        for edge, pairs in self._pairs:
            for producer, consumer in pairs:
                if producer in centres and consumer in centres:
                    self.moments.add(edge, centres[producer], centres[consumer])
                    if self.own is not None:
                        self.own[0].add(edge, centres[producer], centres[producer])
                        self.own[1].add(edge, centres[consumer], centres[consumer])
        self._filled = 0

    def _look_for_non_finite(self, tap: Tap, rows: Tensor, first: int) -> None:
        """Remember the first bad example, without making an accelerator wait."""
        bad = rows.sum(dim=1).isfinite().logical_not_()
        never = torch.iinfo(torch.int64).max
        place = torch.where(bad.any(), bad.int().argmax() + first, never)
        before = self._first_bad.get(tap)
        self._first_bad[tap] = place if before is None else torch.minimum(before, place)
