from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from infcop.errors import FlowError
from infcop.flow.taps import pooled, tapped
from tests.reference.flow import slow_pool


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def hooks_of(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize(
    ("module", "inputs", "channel_axis"),
    [
        (nn.Conv1d(2, 3, 2), (5, 2, 7), 1),
        (nn.Conv2d(2, 3, 2), (5, 2, 6, 7), 1),
        (nn.Conv3d(2, 3, 2), (5, 2, 3, 4, 5), 1),
        (nn.ConvTranspose2d(2, 3, 2), (5, 2, 6, 7), 1),
        (nn.Conv2d(2, 3, 1), (5, 2, 1, 1), 1),
        (nn.Linear(2, 3), (5, 2), -1),
        (nn.Linear(2, 3), (5, 4, 2), -1),
        (nn.Linear(2, 3), (5, 4, 6, 2), -1),
        (nn.BatchNorm1d(3), (5, 3), -1),
    ],
)
def test_pools_everything_but_examples_and_channels(module, inputs, channel_axis):
    output = module.eval()(normal(*inputs)).detach()
    result = pooled(module, output)
    assert result.shape == (5, 3)
    np.testing.assert_allclose(result, slow_pool(output, channel_axis), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("shape", [(4, 3), (4, 50, 3)])
def test_pools_in_float32_at_least(dtype, kept, shape):
    output = normal(*shape, dtype=dtype)
    result = pooled(nn.Linear(2, 3), output)
    assert result.dtype == kept
    exact = output.double() if len(shape) == 2 else output.double().mean(dim=1)
    torch.testing.assert_close(result.double(), exact, atol=1e-6, rtol=1e-6)


def test_half_precision_mean_does_not_overflow():
    output = torch.full((2, 1, 64, 64), 60000.0, dtype=torch.float16)
    assert pooled(nn.Conv2d(1, 1, 1), output).tolist() == [[60000.0], [60000.0]]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1, 1)])
def test_result_is_a_detached_copy(shape):
    output = normal(*shape).requires_grad_()
    module = nn.Linear(2, 3) if len(shape) == 2 else nn.Conv2d(2, 3, 1)
    result = pooled(module, output)
    assert not result.requires_grad
    with torch.no_grad():
        output.zero_()
    assert bool((result != 0).all())


@pytest.mark.parametrize(
    ("module", "output"),
    [
        (nn.Conv2d(1, 3, 1), torch.zeros(3, 4, 4)),
        (nn.Linear(2, 3), torch.zeros(3)),
        (nn.Embedding(2, 3), torch.zeros(4, 5, 3)),
        (nn.Linear(2, 3), torch.zeros(4, 3, dtype=torch.complex64)),
    ],
)
def test_outputs_without_a_known_batch_and_channel_axis_are_refused(module, output):
    with pytest.raises(FlowError, match=re.escape(f"got {tuple(output.shape)}")):
        pooled(module, output)


def test_in_place_activation_does_not_change_what_was_collected():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    inputs = normal(6, 3)
    with torch.no_grad(), tapped(model, ["0", "2"]) as taps:
        output = model(inputs)
        taken = taps.take()
    assert torch.equal(taken["0"], model[0](inputs).detach())
    assert bool((taken["0"] < 0).any())
    assert torch.equal(taken["2"], output)


def test_takes_every_batch_anew():
    model = nn.Linear(2, 3)
    first, second = normal(4, 2), normal(5, 2)
    with tapped(model, [""]) as taps:
        model(first)
        one = taps.take()
        model(second)
        two = taps.take()
    assert (len(one[""]), len(two[""])) == (4, 5)


def test_hooks_are_removed_also_after_an_exception():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    kept = model[0].register_forward_hook(lambda *_: None)
    with tapped(model, ["0", "1"]):
        assert hooks_of(model) == 3
    assert hooks_of(model) == 1
    with pytest.raises(ZeroDivisionError), tapped(model, ["0", "1"]):
        1 / 0  # noqa: B018
    assert hooks_of(model) == 1
    kept.remove()


def test_unknown_layer_is_refused_with_the_nearest_and_no_hook_is_left():
    model = nn.ModuleDict({"stem": nn.Linear(2, 2)})
    with pytest.raises(FlowError, match="did you mean 'stem'"), tapped(model, ["stem", "steam"]):
        pass
    assert hooks_of(model) == 0


def test_output_that_is_no_tensor_names_the_layer():
    model = nn.Sequential(nn.LSTM(2, 3))
    with (
        pytest.raises(FlowError, match="layer '0' to return a tensor, got tuple"),
        tapped(model, ["0"]),
    ):
        model(torch.zeros(4, 5, 2))
    assert hooks_of(model) == 0


def test_layer_that_runs_twice_or_never_is_refused():
    model = nn.ModuleDict({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)})
    with tapped(model, ["one", "two"]) as taps:
        model["one"](torch.zeros(3, 2))
        with pytest.raises(FlowError, match="'one' to run once per batch"):
            model["one"](torch.zeros(3, 2))
        with pytest.raises(FlowError, match=r"expected layers \['two'\] to run"):
            taps.take()


def test_fused_attention_blocks_still_run_their_linear_layers():
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad(), tapped(block, ["linear1", "linear2"]) as taps:
        block(normal(3, 5, 8))
        taken = taps.take()
    assert taken["linear1"].shape == (3, 16)
