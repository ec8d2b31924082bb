from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from infcop.errors import ModelError
from infcop.models.graph import trace_graph
from infcop.models.preserved import preserved_model
from infcop.models.prunable import find_prunable
from infcop.models.trace import record_calls


class Restless(nn.Module):
    """Changes all that a forward pass can change, and fails on request."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("empty", None)
        self.fail = False

    def forward(self, x):
        self.norm.training = True
        self.calls = self.calls + 1
        self.register_buffer("cache", x.detach())
        with torch.no_grad():
            self.first.weight.mul_(0.5)
        self.second.weight.data += 1
        x.add_(1)
        random.random()
        np.random.random()
        h = self.norm(self.first(x)) + torch.randn(4)
        if self.fail:
            raise RuntimeError("midway")
        return self.second(h)


def state(model):
    return {
        "values": copy.deepcopy(model.state_dict()),
        "buffers": [name for name, _ in model.named_buffers()],
        "identities": [id(t) for t in (*model.parameters(), *model.buffers())],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "hooks": [
            (len(module._forward_hooks), len(module._forward_pre_hooks))
            for module in model.modules()
        ],
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture
def model():
    model = Restless()
    model.second.training = False
    model.first.weight.grad = torch.ones(4, 4)
    model.second.bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("fail", [False, True])
def test_tracing_leaves_everything_as_it_was(model, fail):
    prunable = find_prunable(model)
    inputs = torch.randn(3, 4)
    before, kept = state(model), inputs.clone()
    model.fail = fail
    if fail:
        with pytest.raises(ModelError, match="midway"):
            trace_graph(model, (inputs,), prunable)
    else:
        assert trace_graph(model, (inputs,), prunable).edges == (("first", "second"),)
    assert same(before, state(model))
    assert torch.equal(inputs, kept)
    assert inputs.grad_fn is None


def test_the_restless_model_does_change_all_of_it(model):
    before = state(model)
    model(torch.randn(3, 4))
    after = state(model)
    assert not same(before["values"], after["values"])
    assert before["buffers"] != after["buffers"]
    assert before["identities"] != after["identities"]
    assert not same(before["random"], after["random"])


def test_tracing_twice_gives_the_same(model):
    prunable = find_prunable(model)
    inputs = (torch.randn(3, 4),)
    assert trace_graph(model, inputs, prunable) == trace_graph(model, inputs, prunable)


def test_overridden_train_is_not_called():
    class Merging(nn.Linear):
        merged = 0

        def train(self, mode=True):
            type(self).merged += 1
            return super().train(mode)

    model = nn.Sequential(Merging(3, 2))
    record_calls(model, (torch.zeros(1, 3),), {"0": model[0]})
    assert Merging.merged == 0


def test_inputs_that_require_gradients_do_so_for_the_model():
    class Force(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = nn.Linear(3, 1)

        def forward(self, positions):
            energy = self.energy(positions).square().sum()
            return torch.autograd.grad(energy, positions, create_graph=True)[0]

    model, positions = Force(), torch.randn(2, 3, requires_grad=True)
    calls = record_calls(model, (positions,), {"energy": model.energy})
    assert list(calls) == [("energy", 0)]
    assert positions.grad is None


def test_a_call_that_fails_and_is_caught_does_not_confuse_the_next():
    class Retry(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            try:
                self.first(x[:, :1])
            except RuntimeError:
                h = self.first(x)
            return self.second(h)

    model = Retry()
    calls = record_calls(model, (torch.zeros(1, 3),), {"first": model.first})
    assert {tap: len(call.outputs) for tap, call in calls.items()} == {("first", 0): 1}


@pytest.mark.parametrize("fail", [False, True])
def test_preserved_model(model, fail):
    before = state(model)
    model.fail = fail
    try:
        with preserved_model(model):
            model(torch.randn(3, 4))
    except RuntimeError:
        assert fail
    assert same(before, state(model))


def test_preserved_model_touches_only_what_changed():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    versions = [tensor._version for tensor in model.parameters()]
    with preserved_model(model):
        model(torch.randn(3, 2))
    assert [tensor._version for tensor in model.parameters()] == versions
