"""One reading from several processes: their sufficient statistics, joined the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from infcop.core import processes
from infcop.core.edges import Edge
from infcop.core.float64 import to_float64
from infcop.core.processes import carrier, facts_of_all, parts_of_all
from infcop.errors import FlowError
from infcop.flow.gradient import GradientStatistics
from infcop.flow.moments import Channels, CoMoments, EdgeMoments

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "agree",
    "first_values",
    "reduce_gradients",
    "reduce_moments",
    "reduce_tensor",
    "reduced_counts",
]


def agree(
    error: Exception | None, settings: str, group: ProcessGroup, device: torch.device
) -> None:
    """Let all processes go on together, or none.

    Args:
        error: What went wrong in this process, if anything did.
        settings: What this process measures, in words.
        group: The processes.
        device: Where the model is.

    Raises:
        Exception: The error of this process, if there is one.
        FlowError: Another process has failed, or measures something else; without this, this one
            would wait for it.
    """
    processes.agree(
        error, settings, group, device, failed=lambda sentence: FlowError(f"flow: {sentence}")
    )


def reduced_counts(counts: tuple[int, ...], group: ProcessGroup, device: torch.device) -> list[int]:
    """Return counts added up over the processes."""
    total = torch.tensor(counts, dtype=torch.int64, device=carrier(group, device))
    distributed.all_reduce(total, group=group)
    return [int(count) for count in total.tolist()]


def reduce_tensor(tensor: Tensor, group: ProcessGroup) -> Tensor:
    """Return a tensor added up over the processes."""
    total = tensor.to(carrier(group, tensor.device), copy=True)
    distributed.all_reduce(total, group=group)
    return total.to(tensor.device)


def reduce_moments(moments: CoMoments, group: ProcessGroup, device: torch.device) -> CoMoments:
    """Return the moments of all processes together, bit for bit the same in each.

    Every process tells its part to all, and all merge the parts in the order of the ranks. So one
    part at a time is in memory beside the result, and a process without examples takes part too.
    """
    home = to_float64(torch.empty(0, device=device)).device
    known = [
        {edge: row for edge, row in zip(moments.edges, rows.tolist(), strict=True) if row[0]}
        for rows in facts_of_all(_facts(moments), group, device)
    ]
    parts = parts_of_all(_packed(moments, home), group, device)
    joined = CoMoments(moments.edges)
    for rows, flat in zip(filter(None, known), parts, strict=True):
        for edge, part in _unpacked(flat, rows).items():
            joined.absorb(edge, part)
    return joined


def reduce_gradients(
    statistics: GradientStatistics, parameters: Mapping[str, Tensor], group: ProcessGroup
) -> GradientStatistics:
    """Return the statistics of all processes together."""
    device = next(iter(parameters.values())).device
    count = reduced_counts((statistics.count,), group, device)[0]
    sums = {
        name: reduce_tensor(total.detach(), group)
        for name, total in statistics.sums(parameters).items()
    }
    return statistics.with_sums(sums, count)


def first_values(values: list[float], group: ProcessGroup, device: torch.device) -> list[float]:
    """Return the values of the first process, so that all decide from the same numbers.

    Each could have its own: a sum is split among the threads of a process, and with another number
    of them, or on another device, its last bits differ even where all that is summed is the same.
    """
    flat = torch.tensor(values, dtype=torch.float64, device=carrier(group, device))
    distributed.broadcast(flat, distributed.get_global_rank(group, 0), group=group)
    return [float(value) for value in flat.tolist()]


def _facts(moments: CoMoments) -> Tensor:
    """Return of every edge the samples, both widths and both epsilons."""
    rows = []
    for edge in moments.edges:
        part = moments.parts.get(edge)
        rows.append(
            [0.0] * 5
            if part is None
            else [part.n, *(len(e.mean) for e in part.ends), *(e.eps for e in part.ends)]
        )
    return torch.tensor(rows, dtype=torch.float64)


def _packed(moments: CoMoments, device: torch.device) -> Tensor:
    pieces = [
        values.flatten()
        for edge in moments.edges
        if (part := moments.parts.get(edge)) is not None
        for values in (*(t for end in part.ends for t in (end.mean, end.m2)), part.cxy)
    ]
    return torch.cat([torch.empty(0, dtype=torch.float64, device=device), *pieces])


def _unpacked(flat: Tensor, known: Mapping[Edge, list[float]]) -> dict[Edge, EdgeMoments]:
    parts: dict[Edge, EdgeMoments] = {}
    start = 0
    for edge, row in known.items():
        n, producer, consumer = (int(value) for value in row[:3])
        sizes = [producer, producer, consumer, consumer, producer * consumer]
        mean_p, m2_p, mean_c, m2_c, cxy = flat[start : start + sum(sizes)].split_with_sizes(sizes)
        parts[edge] = EdgeMoments(
            n,
            Channels(mean_p, m2_p, row[3]),
            Channels(mean_c, m2_c, row[4]),
            cxy.reshape(producer, consumer),
        )
        start += sum(sizes)
    return parts
