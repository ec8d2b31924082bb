"""Measuring what several forms of a network take, each in the same way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from infcop.core.footprint import NetworkFootprint, NetworkKind, Timing
from infcop.errors import ConfigError
from infcop.models.activations import peak_activation_bytes
from infcop.models.batches import resized
from infcop.models.calling import Inputs, call
from infcop.models.flops import multiply_adds
from infcop.models.latency import timed
from infcop.models.preserved import preserved_model

__all__ = ["BATCHES", "Session", "accepted", "check_device", "counted", "timings"]

BATCHES = (1, 64)
"""Batch sizes that networks are timed at."""


Session = Callable[[int], Callable[[tuple[Tensor, ...]], object]]
"""Given a number of threads, returns what runs a network of another program on tensors."""


def accepted(networks: Iterable[nn.Module], inputs: Inputs, examples: int) -> dict[int, Inputs]:
    """Return the batches that networks are measured on, by their size.

    Of the sizes in ``BATCHES`` those that every network takes; where that is none, or the examples
    can't be told from the inputs, the inputs as they are.

    Args:
        networks: The networks, on the CPU.
        inputs: Example inputs.
        examples: How many examples they hold.

    Example:
        >>> list(accepted([nn.Linear(3, 2)], (torch.ones(5, 3),), 5))
        [1, 64]
        >>> list(accepted([nn.Unflatten(0, (5, 1))], (torch.ones(5, 3),), 5))
        [5]
    """
    models = list(networks)
    found = {}
    for batch in BATCHES:
        given = resized(inputs, examples, batch)
        if given is not None and all(_takes(model, given) for model in models):
            found[batch] = given
    return found or {examples: inputs}


def _takes(model: nn.Module, inputs: Inputs) -> bool:
    with torch.no_grad(), preserved_model(model, copy_parameters=False):
        model.eval()
        try:
            call(model, inputs)
        except Exception:  # whatever a model does not take, it says in its own way
            return False
    return True


def counted(
    kind: NetworkKind,
    model: nn.Module,
    inputs: Inputs,
    examples: int,
    *,
    single: Inputs,
    metrics: Mapping[str, float],
) -> NetworkFootprint:
    """Return what can be counted of a network, without its file and its timings.

    Args:
        kind: Which network it is.
        model: The module, on the CPU and in evaluation mode.
        inputs: Example inputs.
        examples: How many examples they hold.
        single: The batch on which activations are looked at.
        metrics: What it reaches.

    Raises:
        ModelError: It fails on the inputs.
    """
    parameters = list(model.parameters())
    count = multiply_adds(model, inputs, examples=examples)
    return NetworkFootprint(
        network=kind,
        metrics=dict(metrics),
        parameters=sum(one.numel() for one in parameters),
        nonzero=sum(int(one.count_nonzero()) for one in parameters),
        multiply_adds=count.total,
        uncounted=dict(count.uncounted),
        activation_bytes=peak_activation_bytes(model, single),
    )


def timings(
    networks: Mapping[NetworkKind, nn.Module | Session],
    inputs: Inputs,
    examples: int,
    *,
    threads: Sequence[int] = (),
    device: str = "cpu",
    repeats: int = 9,
    seconds: float = 0.02,
) -> dict[NetworkKind, tuple[Timing, ...]]:
    """Return how long each network takes, at each batch size and number of threads.

    They are run in turns, without gradients, on the batches that ``accepted`` gives.

    Args:
        networks: By kind, in evaluation mode. Those of other programs run on the CPU alone.
        inputs: Example inputs.
        examples: How many examples they hold.
        threads: Numbers of threads; by default 1 and all that PyTorch uses.
        device: Where the modules run.
        repeats: Repeats of each, at least 2.
        seconds: How long a repeat takes at least, about.

    Raises:
        ConfigError: The device is not there.
    """
    place = torch.device(check_device(device))
    models = {
        kind: network if place.type == "cpu" else copy.deepcopy(network).to(place)
        for kind, network in networks.items()
        if isinstance(network, nn.Module)
    }
    found: dict[NetworkKind, list[Timing]] = {kind: [] for kind in networks}
    modules = [network for network in networks.values() if isinstance(network, nn.Module)]
    for batch, given in accepted(modules, inputs, examples).items():
        for count in sorted(set(threads)) or _threads(place):
            with _using(count), torch.inference_mode():
                runs = _runs(networks, models, given, count, place)
                taken = timed(runs, batch=batch, threads=count, repeats=repeats, seconds=seconds)
            for kind, timing in taken.items():
                found[kind].append(timing)
    return {kind: tuple(taken) for kind, taken in found.items()}


def _runs(
    networks: Mapping[NetworkKind, nn.Module | Session],
    models: Mapping[NetworkKind, nn.Module],
    inputs: Inputs,
    threads: int,
    device: torch.device,
) -> dict[NetworkKind, Callable[[], object]]:
    moved = pytree.tree_map(partial(_moved, device=device), inputs)
    runs: dict[NetworkKind, Callable[[], object]] = {}
    for kind, network in networks.items():
        if isinstance(network, nn.Module):
            runs[kind] = partial(_called, models[kind], moved, device)
        else:
            leaves = [x for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor)]
            runs[kind] = partial(network(threads), tuple(leaves))
    return runs


def _called(model: nn.Module, inputs: Inputs, device: torch.device) -> None:
    call(model, inputs)
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def _moved(leaf: Any, device: torch.device) -> Any:
    return leaf.to(device) if isinstance(leaf, Tensor) else leaf


def check_device(name: str) -> str:
    """Return the name of a device that is there.

    Raises:
        ConfigError: It is not.

    Example:
        >>> check_device("cpu")
        'cpu'
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(name, False):
        raise ConfigError(
            f"--device: expected a device of this machine, got '{name}', which PyTorch does not "
            "see; use 'cpu'"
        )
    return name


def _threads(device: torch.device) -> list[int]:
    """Return 1 and all threads; on other devices than the CPU they hardly matter."""
    every = torch.get_num_threads()
    return sorted({1, every}) if device.type == "cpu" else [every]


@contextmanager
def _using(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
