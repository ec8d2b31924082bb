"""One reading from several processes: their sufficient statistics, joined the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from zlib import crc32

import torch
from torch import Tensor, distributed

from infcop.core.edges import Edge
from infcop.errors import FlowError
from infcop.flow.float64 import to_float64
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
    mine = torch.tensor(
        [error is not None, crc32(settings.encode())], device=_device(group, device)
    )
    everyone = [torch.empty_like(mine) for _ in range(group.size())]
    distributed.all_gather(everyone, mine, group=group)
    facts = torch.stack(everyone).tolist()
    if error is not None:
        raise error
    if failed := sum(fact[0] for fact in facts):
        raise FlowError(
            f"flow: expected all {group.size()} processes to measure their share, but {failed}"
            " failed; look for the error of the others"
        )
    if len({fact[1] for fact in facts}) > 1:
        raise FlowError(
            "flow: expected all processes to measure the same edges and parameters in the same "
            f"way, got others than in this one: {settings}; make their meters alike"
        )


def reduced_counts(counts: tuple[int, ...], group: ProcessGroup, device: torch.device) -> list[int]:
    """Return counts added up over the processes."""
    total = torch.tensor(counts, dtype=torch.int64, device=_device(group, device))
    distributed.all_reduce(total, group=group)
    return [int(count) for count in total.tolist()]


def reduce_tensor(tensor: Tensor, group: ProcessGroup) -> Tensor:
    """Return a tensor added up over the processes."""
    total = tensor.to(_device(group, tensor.device), copy=True)
    distributed.all_reduce(total, group=group)
    return total.to(tensor.device)


def reduce_moments(moments: CoMoments, group: ProcessGroup, device: torch.device) -> CoMoments:
    """Return the moments of all processes together, bit for bit the same in each.

    Every process tells its part to all, and all merge the parts in the order of the ranks. So one
    part at a time is in memory beside the result, and a process without examples takes part too.
    """
    place = _device(group, device)
    home = to_float64(torch.empty(0, device=device)).device
    facts = _all_facts(moments, group, place)
    joined = CoMoments(moments.edges)
    for rank in range(group.size()):
        known = {edge: row for edge, row in zip(moments.edges, facts[rank], strict=True) if row[0]}
        if not known:
            continue
        if rank == group.rank():
            flat = _packed(moments, place)
        else:
            length = sum(_length(row) for row in known.values())
            flat = torch.empty(length, dtype=torch.float64, device=place)
        distributed.broadcast(flat, distributed.get_global_rank(group, rank), group=group)
        for edge, part in _unpacked(flat.to(home), known).items():
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
    flat = torch.tensor(values, dtype=torch.float64, device=_device(group, device))
    distributed.broadcast(flat, distributed.get_global_rank(group, 0), group=group)
    return [float(value) for value in flat.tolist()]


def _device(group: ProcessGroup, device: torch.device) -> torch.device:
    """Return where a group's tensors have to be: on the CPU, unless a device has its own way."""
    config = distributed.get_backend_config(group)
    backends = dict(pair.split(":") for pair in config.split(","))
    by_way_of_the_cpu = backends.get(device.type, "gloo") in ("gloo", "mpi")
    return torch.device("cpu") if by_way_of_the_cpu else device


def _all_facts(
    moments: CoMoments, group: ProcessGroup, device: torch.device
) -> list[list[list[float]]]:
    """Return of every rank and edge the samples, both widths and both epsilons."""
    rows = []
    for edge in moments.edges:
        part = moments.parts.get(edge)
        rows.append(
            [0.0] * 5
            if part is None
            else [part.n, *(len(e.mean) for e in part.ends), *(e.eps for e in part.ends)]
        )
    mine = torch.tensor(rows, dtype=torch.float64, device=device)
    everyone = [torch.empty_like(mine) for _ in range(group.size())]
    distributed.all_gather(everyone, mine, group=group)
    return [facts.tolist() for facts in everyone]


def _length(row: list[float]) -> int:
    producer, consumer = int(row[1]), int(row[2])
    return 2 * (producer + consumer) + producer * consumer


def _packed(moments: CoMoments, device: torch.device) -> Tensor:
    pieces = [
        values.flatten()
        for edge in moments.edges
        if (part := moments.parts.get(edge)) is not None
        for values in (*(t for end in part.ends for t in (end.mean, end.m2)), part.cxy)
    ]
    return torch.cat(pieces).to(device)


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
