from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from infcop.training.order import ordered
from tests.reference.training import BATCH, LOADERS, examples

every_loader = pytest.mark.parametrize("kind", LOADERS)


def flat(batches) -> list[tuple[float, ...]]:
    return [tuple(inputs.flatten().tolist()) for inputs, _ in batches]


@every_loader
def test_the_same_seed_gives_the_same_pass(kind) -> None:
    loader = LOADERS[kind]()
    first = flat(ordered(loader, 5, 0))
    torch.rand(3)
    assert flat(ordered(loader, 5, 0)) == first
    assert flat(ordered(LOADERS[kind](), 5, 0)) == first, "another loader built alike"
    assert len(first) == len(loader)


@every_loader
def test_another_seed_gives_another_pass_where_anything_is_random(kind) -> None:
    loader = LOADERS[kind]()
    same = flat(ordered(loader, 5, 0)) == flat(ordered(loader, 6, 0))
    assert same == (kind == "list")


@every_loader
@pytest.mark.parametrize("skip", [1, 3, 5])
def test_skipped_batches_are_the_first_ones(kind, skip) -> None:
    loader = LOADERS[kind]()
    whole = flat(ordered(loader, 5, 0))
    assert flat(ordered(loader, 5, skip)) == whole[skip:]


@every_loader
def test_the_order_stands_before_anything_else_is_drawn(kind) -> None:
    """Training sets the generators for its own use between the start of a pass and its batches."""
    loader = LOADERS[kind]()
    labels = [tuple(labels.tolist()) for _, labels in ordered(loader, 5, 0)]
    batches = ordered(loader, 5, 0)
    torch.manual_seed(1)
    assert [tuple(labels.tolist()) for _, labels in batches] == labels
    skipped = ordered(loader, 5, 2)
    torch.manual_seed(2)
    assert [tuple(labels.tolist()) for _, labels in skipped] == labels[2:]


def test_a_distributed_sampler_is_told_its_pass() -> None:
    dataset = TensorDataset(*examples())
    sampler = DistributedSampler(dataset, num_replicas=2, rank=0, shuffle=True)
    loader = DataLoader(dataset, BATCH, sampler=sampler)
    passes = [flat(ordered(loader, order, 0)) for order in (5, 6, 5, 2**62)]
    assert passes[0] == passes[2]
    assert passes[0] != passes[1]


def test_more_skipped_than_there_are_gives_nothing() -> None:
    assert list(ordered([1, 2], 0, 5)) == []
    assert list(ordered([], 0, 0)) == []
