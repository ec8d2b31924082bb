"""Plain training loops, and loaders of every kind that a user may bring."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

from infcop.data.loader import TensorLoader

EXAMPLES, FEATURES, CLASSES, BATCH = 22, 4, 3, 5


def examples() -> tuple[Tensor, Tensor]:
    """Return the same inputs and labels each time."""
    generator = torch.Generator().manual_seed(11)
    inputs = torch.randn(EXAMPLES, FEATURES, generator=generator)
    return inputs, torch.randint(CLASSES, (EXAMPLES,), generator=generator)


def batches() -> list[tuple[Tensor, Tensor]]:
    """Return the examples as a list of batches, the last one smaller."""
    inputs, labels = examples()
    return list(zip(inputs.split(BATCH), labels.split(BATCH), strict=True))


class Augmented(Dataset):
    """Draws from all three global generators whenever an example is read."""

    def __init__(self) -> None:
        self.inputs, self.labels = examples()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(FEATURES) + random.gauss(0, 1) + float(np.random.randn())
        return self.inputs[index] + noise, self.labels[index]


class Lazy:
    """A loader written by hand, which draws its order when the first batch is asked for."""

    def __len__(self) -> int:
        return len(batches())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, labels = examples()
        for chosen in torch.randperm(len(labels)).split(BATCH):
            yield inputs[chosen], labels[chosen]


def _in_memory() -> TensorLoader:
    generator = torch.Generator().manual_seed(12)
    images = torch.randint(256, (EXAMPLES, 1, 2, 2), generator=generator, dtype=torch.uint8)
    options = {"mean": torch.tensor([0.5]), "std": torch.tensor([0.25])}
    return TensorLoader(
        images, examples()[1], batch_size=BATCH, shuffle_seed=3, augment=True, **options
    )


def _used_generator() -> torch.Generator:
    """Return a generator in another state each time, as an earlier pass would leave it."""
    generator = torch.Generator()
    generator.seed()
    return generator


def _own_batch_sampler() -> DataLoader:
    dataset = TensorDataset(*examples())
    sampler = RandomSampler(dataset, generator=_used_generator())
    return DataLoader(dataset, batch_sampler=BatchSampler(sampler, BATCH, drop_last=False))


LOADERS: dict[str, Callable[[], object]] = {
    "list": batches,
    "in memory": _in_memory,
    "shuffling": lambda: DataLoader(TensorDataset(*examples()), BATCH, shuffle=True),
    "own generator": lambda: DataLoader(
        TensorDataset(*examples()), BATCH, shuffle=True, generator=_used_generator()
    ),
    "own batch sampler": _own_batch_sampler,
    "augmented": lambda: DataLoader(Augmented(), BATCH, shuffle=True),
    "augmented in order": lambda: DataLoader(Augmented(), BATCH),
    "lazy": Lazy,
}


def plain_loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[float], float],
    passes: int,
) -> list[float]:
    """Train as any tutorial does; return the losses."""
    losses = []
    step = 0
    for _ in range(passes):
        for inputs, labels in batches():
            for group in optimizer.param_groups:
                group["lr"] = rate(step / len(batches()))
            dtype = next(model.parameters()).dtype
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs.to(dtype)), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
    return losses
