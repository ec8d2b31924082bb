"""Models come back as they were, whatever their forward pass does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from infcop.errors import ModelError
from infcop.models.preserved import preserved_model


class Misbehaving(nn.Module):
    """Holds what a forward pass may change."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(2))
        self.register_buffer("cache", None)
        self.register_buffer("wide", torch.full((1,), torch.nan).expand(4))


def rebind_memory(model: nn.Module) -> None:
    model.fc.weight.data = torch.ones(2, 3)


def rebind_parameter(model: nn.Module) -> None:
    model.fc.weight = nn.Parameter(torch.ones(2, 3))


def resize_buffer(model: nn.Module) -> None:
    model.count.resize_(5).fill_(3)


def fill_cache(model: nn.Module) -> None:
    model.cache = torch.ones(3)


def drop_buffer(model: nn.Module) -> None:
    del model.count


def nothing(model: nn.Module) -> None:
    """Leave even a buffer alone that holds NaN and can't be written to."""


CHANGES = [rebind_memory, rebind_parameter, resize_buffer, fill_cache, drop_buffer, nothing]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_everything_comes_back(
    change: Callable[[nn.Module], None], copies: bool, fails: bool
) -> None:
    model = Misbehaving()
    weight, values = model.fc.weight, model.fc.weight.detach().clone()
    address = weight.data_ptr()

    def look() -> None:
        with preserved_model(model, copy_parameters=copies), torch.no_grad():
            change(model)
            if fails:
                raise KeyError

    if fails:
        with pytest.raises(KeyError):
            look()
    else:
        look()
    assert model.fc.weight is weight
    assert weight.data_ptr() == address
    assert torch.equal(weight, values)
    assert list(model._buffers) == ["count", "cache", "wide"]
    assert model.count.tolist() == [0, 0]
    assert model.cache is None


@pytest.mark.parametrize("write", [lambda w: w.mul_(2), lambda w: w.data.mul_(2)])
def test_writes_in_place_are_undone_with_copies_and_told_without(
    write: Callable[[nn.Parameter], None],
) -> None:
    model = Misbehaving()
    before = model.fc.weight.detach().clone()
    with preserved_model(model), torch.no_grad():
        write(model.fc.weight)
    assert torch.equal(model.fc.weight, before)

    def look() -> None:
        with preserved_model(model, copy_parameters=False), torch.no_grad():
            write(model.fc.weight)

    with pytest.raises(ModelError, match=r"\['fc.weight'\] while it is evaluated"):
        look()


def test_embeddings_that_renormalise_themselves_are_always_copied() -> None:
    model = nn.Embedding(4, 3, max_norm=0.1)
    before = model.weight.detach().clone()
    with preserved_model(model, copy_parameters=False):
        model(torch.tensor([0, 1]))
        assert not torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)
