"""What several processes tell each other, so that all go on with the same numbers, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from zlib import crc32

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["agree", "carrier", "facts_of_all", "parts_of_all"]


def agree(
    error: Exception | None,
    settings: str,
    group: ProcessGroup,
    device: torch.device,
    failed: Callable[[str], Exception],
) -> None:
    """Let all processes go on together, or none.

    Args:
        error: What went wrong in this process, if anything did.
        settings: What this process does, in words.
        group: The processes.
        device: Where the model is.
        failed: Makes an error of a sentence.

    Raises:
        Exception: The error of this process, if there is one; otherwise one made by ``failed``,
            where another process has failed or does something else: this one would wait for it.
    """
    mine = torch.tensor([error is not None, crc32(settings.encode())])
    facts = torch.stack(facts_of_all(mine, group, device))
    if error is not None:
        raise error
    if count := int(facts[:, 0].sum()):
        raise failed(
            f"expected all {group.size()} processes to measure their share, but {count} failed; "
            "look for the error of the others"
        )
    if bool((facts[:, 1] != facts[0, 1]).any()):
        raise failed(
            "expected all processes to measure the same in the same way, got something else in "
            f"others than in this one: {settings}; give all of them the same settings and models "
            "of the same make"
        )


def carrier(group: ProcessGroup, device: torch.device) -> torch.device:
    """Return where a group's tensors have to be: on the CPU, unless a device has its own way."""
    config = distributed.get_backend_config(group)
    backends = dict(pair.split(":") for pair in config.split(","))
    by_way_of_the_cpu = backends.get(device.type, "gloo") in ("gloo", "mpi")
    return torch.device("cpu") if by_way_of_the_cpu else device


def facts_of_all(facts: Tensor, group: ProcessGroup, device: torch.device) -> list[Tensor]:
    """Return a few numbers of every process, on the CPU, in the order of the ranks.

    Args:
        facts: Those of this process; of the same shape and type in every process.
        group: The processes.
        device: Where the model is.
    """
    mine = facts.to(carrier(group, device))
    everyone = [torch.empty_like(mine) for _ in range(group.size())]
    distributed.all_gather(everyone, mine, group=group)
    return [one.cpu() for one in everyone]


def parts_of_all(mine: Tensor, group: ProcessGroup, device: torch.device) -> Iterator[Tensor]:
    """Yield the vectors of all processes, in the order of the ranks, one at a time.

    Every process has to take them all: what is taken late, others wait for. What comes from this
    process may be the tensor that was given, so it must not be changed.

    Args:
        mine: That of this process, ``[K]``, float64. Empty where it has nothing to tell: then
            nothing is yielded for it.
        group: The processes.
        device: Where the model is.

    Yields:
        Vectors on the device of ``mine``.
    """
    place = carrier(group, device)
    lengths = facts_of_all(torch.tensor(len(mine)), group, device)
    for rank, length in enumerate(map(int, lengths)):
        if length == 0:
            continue
        if rank == group.rank():
            part = mine.to(place).contiguous()
        else:
            part = torch.empty(length, dtype=torch.float64, device=place)
        distributed.broadcast(part, distributed.get_global_rank(group, rank), group=group)
        yield part.to(mine.device)
