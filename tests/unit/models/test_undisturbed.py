from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from infcop.errors import ModelError
from infcop.models.undisturbed import undisturbed


class Counting(nn.Module):
    """Writes its buffers in three ways whenever it runs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("rebound", torch.zeros(2), persistent=False)
        self.register_buffer("through_data", torch.full((2,), float("nan")))
        self.register_buffer("expanded", torch.zeros(1).expand(4))
        self.register_buffer("absent", None)

    def forward(self, inputs):
        self.written += 1
        self.rebound = self.rebound + 1
        self.through_data.data.fill_(3)
        self.absent = inputs.clone()
        self.register_buffer("added", inputs.clone())
        return inputs


def disturb(model):
    model(torch.zeros(1))
    random.random()
    np.random.rand()
    torch.rand(1)


def generators():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_buffers_flags_and_generators_come_back(fails):
    model = nn.Sequential(Counting(), nn.Dropout(), nn.BatchNorm1d(2))
    model[1].eval()
    flags = [module.training for module in model.modules()]
    tensors = {name: id(buffer) for name, buffer in model.named_buffers()}
    before = generators()

    def measure():
        with undisturbed(model):
            assert not any(module.training for module in model.modules())
            disturb(model[0])
            assert model[0].written.tolist() == [1, 1]
            if fails:
                raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            measure()
    else:
        measure()
    assert [module.training for module in model.modules()] == flags
    assert model[0].written.tolist() == model[0].rebound.tolist() == [0, 0]
    assert bool(model[0].through_data.isnan().all())
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == tensors
    assert "rebound" not in model.state_dict()
    assert model[0].absent is None
    assert not hasattr(model[0], "added")
    assert generators() == before


def test_buffers_that_two_modules_share_stay_shared():
    one, two = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    two.running_mean = one.running_mean
    model = nn.Sequential(one, two)
    before = one.running_mean.clone()
    with undisturbed(model):
        one.running_mean.add_(1)
        two.running_mean = torch.ones(2)
    assert two.running_mean is one.running_mean
    assert torch.equal(one.running_mean, before)


def test_what_was_not_written_to_is_not_written_back():
    """A write would count as a change for whoever holds the tensors."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    tensors = [*model.parameters(), *model.buffers()]
    versions = [tensor._version for tensor in tensors]
    with undisturbed(model):
        model(torch.ones(4, 3))
    assert [tensor._version for tensor in tensors] == versions


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_that_renormalise_themselves_are_restored(kind):
    model = kind(4, 2, max_norm=0.01)
    before = model.weight.detach().clone()
    with undisturbed(model):
        model(torch.arange(4).reshape(2, 2))
        assert not torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)


def test_a_parameter_written_to_is_named_once_the_rest_is_restored():
    model = nn.ModuleDict({"fc": nn.Linear(2, 2), "counting": Counting()})

    def write():
        with undisturbed(model), torch.no_grad():
            model["counting"](torch.zeros(1))
            model["fc"].weight.add_(1)

    with pytest.raises(ModelError, match=r"parameters \['fc.weight'\] while it is evaluated"):
        write()
    assert model["counting"].written.tolist() == [0, 0]
    assert model.training


def test_an_exception_is_not_hidden_by_a_parameter_written_to():
    model = nn.Linear(2, 2)

    def fail():
        with undisturbed(model), torch.no_grad():
            model.weight.add_(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_models_made_in_inference_mode_are_left_alone():
    with torch.inference_mode():
        model = nn.BatchNorm1d(2)
    with undisturbed(model):
        assert not model.training
    assert model.training


class Merging(nn.Module):
    """Adds one weight to the other as soon as it is evaluated, as adapters do."""

    def __init__(self):
        super().__init__()
        self.fc, self.adapter = nn.Linear(2, 2), nn.Linear(2, 2)

    def train(self, mode=True):
        if not mode:
            with torch.no_grad():
                self.fc.weight.add_(self.adapter.weight)
        return super().train(mode)


@pytest.mark.parametrize("train", [False, True])
def test_what_a_model_does_when_its_mode_is_switched_is_not_done(train):
    model = nn.Sequential(Merging(), nn.Dropout())
    before = model[0].fc.weight.detach().clone()
    for start in (True, False):
        for module in model.modules():
            module.training = start
        with undisturbed(model, train=train):
            assert {module.training for module in model.modules()} == {train}
            assert torch.equal(model[0].fc.weight, before)
        assert {module.training for module in model.modules()} == {start}
