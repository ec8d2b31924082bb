"""Small searches that take a second or two each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import infcop
from infcop.pipeline.progress import LoggedProgress

Search = Callable[..., infcop.Result]

SHORT: dict[str, Any] = {
    "density": 0.3,
    "method": {"name": "lth", "schedule": {"kind": "fraction", "remove": 0.4}},
    "dense": {"passes": 2},
    "levels": {"max_passes": 2},
    "final": {"passes": 1},
    "execution": {"device": "cpu", "checkpoint_seconds": 0, "threads": 1},
}


class Unplugged(BaseException):
    """Stands for whatever takes a process away in the middle of a step."""


class Interrupting(LoggedProgress):
    """Raises after so many optimiser steps of this process."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, done: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise Unplugged


def toy_model(seed: int = 0) -> nn.Module:
    """Return a net with all that a search must carry: batch norm, dropout, bias."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(6 * 36, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def toy_batches(count: int = 6, size: int = 16, seed: int = 0) -> list[Any]:
    """Return batches of a three-class problem that can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        inputs = torch.randn(size, 1, 8, 8, generator=generator)
        labels = (inputs[:, 0, :4].mean(dim=(1, 2)) > 0).long() + (inputs[:, 0, 0, 0] > 0).long()
        batches.append((inputs, labels))
    return batches


def toy_task() -> infcop.Classification:
    return infcop.Classification(toy_batches(), toy_batches(2, seed=1), toy_batches(2, seed=2))


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """Run a short search of the toy problem; keyword arguments change it."""
    count = 0

    def run(**changes: Any) -> infcop.Result:
        nonlocal count
        count += 1
        settings = {"run_dir": tmp_path / f"run-{count}", **SHORT, **changes}
        return infcop.search(toy_model(), toy_task(), **settings)

    return run


@pytest.fixture
def rates() -> Iterator[list[list[float]]]:
    """Return the learning rate of every optimiser step, a list for each optimiser in turn."""
    seen: list[list[float]] = []
    owners: list[torch.optim.Optimizer] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not owners or owners[-1] is not optimizer:
            owners.append(optimizer)
            seen.append([])
        seen[-1].append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_pre_hook(note)
    yield seen
    handle.remove()
