from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from infcop.flow.undisturbed import undisturbed


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
    assert generators() == before
