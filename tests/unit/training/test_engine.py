from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from infcop.core.config import ExecutionConfig
from infcop.errors import ConfigError
from infcop.training.engine import Engine, evaluating

BF16 = ExecutionConfig(device="cpu", precision="bf16-mixed")


def absent_devices() -> list[str]:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [device for device, available in there.items() if not available]


@pytest.mark.parametrize("device", absent_devices())
def test_a_device_that_is_not_there_is_refused(device) -> None:
    message = f"execution.device: expected a device of this machine, got '{device}'"
    with pytest.raises(ConfigError, match=message):
        Engine(ExecutionConfig(device=device))


def test_the_cpu_is_always_there() -> None:
    assert Engine(ExecutionConfig(device="cpu")).device == torch.device("cpu")
    assert isinstance(Engine(ExecutionConfig()).device, torch.device)


def test_nothing_is_announced(caplog, capsys) -> None:
    with caplog.at_level(logging.INFO, logger="infcop"):
        Engine(BF16).wrap(nn.Linear(2, 2))
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def dtype_inside(engine: Engine, model: nn.Module, inputs: torch.Tensor) -> torch.dtype:
    """Return the type that a linear layer computes in when called through the engine."""
    seen = []
    handle = model.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    engine.wrap(model)(inputs)
    handle.remove()
    return seen[0]


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_parameters() -> None:
    engine, model = Engine(BF16), nn.Linear(3, 2)
    before = model.weight.detach().clone()
    inputs = torch.randn(4, 3)
    assert dtype_inside(engine, model, inputs) == torch.bfloat16
    wrapped = engine.wrap(model)
    optimizer = engine.optimizer(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    loss = wrapped(inputs).square().mean()
    engine.backward(loss, wrapped)
    optimizer.step()
    assert loss.dtype == torch.float32
    assert model.weight.dtype == model.weight.grad.dtype == torch.float32
    assert not torch.equal(model.weight, before)
    assert optimizer.state_dict()["state"][0]["momentum_buffer"].dtype == torch.float32


def test_the_bare_model_gets_the_same_precision_from_the_context() -> None:
    model, inputs = nn.Linear(3, 2), torch.randn(4, 3)
    with Engine(BF16).autocast():
        assert model(inputs).dtype == torch.bfloat16
    with Engine(ExecutionConfig(device="cpu")).autocast():
        assert model(inputs).dtype == torch.float32


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_double_model_computes_in_float64_throughout(precision) -> None:
    engine = Engine(ExecutionConfig(device="cpu", precision=precision), double=True)
    model, inputs = nn.Linear(3, 2).double(), torch.randn(4, 3).double()
    wrapped = engine.wrap(model)
    outputs = wrapped(inputs)
    assert outputs.dtype == torch.float64
    assert torch.equal(outputs, model(inputs))
    assert model.weight.dtype == torch.float64
    with engine.autocast():
        assert model(inputs).dtype == torch.float64


def test_wrapping_leaves_the_model_itself_as_it_is() -> None:
    model = nn.Linear(3, 2)
    keys, attributes = list(model.state_dict()), set(vars(model))
    wrapped = Engine(BF16).wrap(model)
    wrapped(torch.randn(4, 3))
    assert list(model.state_dict()) == keys
    assert set(vars(model)) == attributes
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_batches_of_any_structure_are_moved_and_not_copied() -> None:
    engine = Engine(ExecutionConfig(device="cpu"))
    tensor = torch.randn(2)
    batch = {"inputs": [tensor, (tensor, "name")], "count": 3}
    moved = engine.move(batch)
    assert moved["inputs"][0] is tensor
    assert moved["inputs"][1][1] == "name"
    assert moved["count"] == 3


def test_a_device_loader_gives_the_same_batches_each_time() -> None:
    batches = [(torch.randn(2), torch.tensor([0, 1])) for _ in range(3)]
    loader = Engine(ExecutionConfig(device="cpu")).loader(batches, 0)
    assert len(loader) == 3
    for _ in range(2):
        assert all(a[0] is b[0] for a, b in zip(loader, batches, strict=True))


def mixed() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    model[1][0].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_every_module_gets_its_own_mode_back() -> None:
    model = mixed()
    before = modes(model)
    assert len(set(before)) == 2
    with evaluating(model):
        assert not any(modes(model))
    assert modes(model) == before


def test_modes_come_back_after_an_exception_and_through_the_wrapper() -> None:
    model = mixed()
    before = modes(model)
    with pytest.raises(KeyError), evaluating(Engine(BF16).wrap(model)):
        raise KeyError
    assert modes(model) == before


def test_a_model_in_evaluation_mode_stays_there() -> None:
    model = mixed().eval()
    with evaluating(model):
        model[0].train()
    assert not any(modes(model))
