from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from infcop.errors import ModelError
from infcop.pipeline.weights import load_weights
from infcop.rewinding.snapshot import Snapshot


class Net(nn.Module):
    """Batch normalisation, a tied weight, and a buffer that no state dict holds."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, width)
        self.register_buffer("scale", torch.rand(1), persistent=False)


def net(seed: int, width: int = 3) -> Net:
    torch.manual_seed(seed)
    return Net(width)


def all_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**model.state_dict(), "scale": model.scale}


def same(one: nn.Module, other: nn.Module) -> bool:
    values, others = one.state_dict(), other.state_dict()
    return all(torch.equal(values[name], others[name]) for name in values)


def saved(model: Net, folder: Path, how: str) -> Path:
    path = folder / "weights.safetensors"
    if how == "whole":
        save_file({name: value.clone() for name, value in model.state_dict().items()}, path)
    elif how == "each tensor once":
        save_model(model, path)
    else:
        save_file(dict(Snapshot.take(model)), path)
    return path


@pytest.mark.parametrize("how", ["whole", "each tensor once", "as a run does"])
def test_weights_come_back(tmp_path: Path, how: str) -> None:
    trained, fresh = net(1), net(2)
    parameters = [id(parameter) for parameter in fresh.parameters()]
    load_weights(fresh, saved(trained, tmp_path, how))
    assert same(fresh, trained)
    assert not same(fresh, net(2))
    assert [id(parameter) for parameter in fresh.parameters()] == parameters
    assert fresh.second.weight is fresh.first.weight
    assert all(parameter.requires_grad for parameter in fresh.parameters())


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    values = {name.replace(".", "_"): name for name in net(1).state_dict()}
    tensors = {name: value.clone() for name, value in net(1).state_dict().items()}
    for key, tensor in changes.items():
        name = values.get(key, key)
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    return tensors


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (changed(head_bias=None), "only the model has 'head.bias'"),
        (changed(head_bias=None, head_weight=None), "'head.bias' and 1 more names"),
        (changed(extra=torch.zeros(1)), "only the file has 'extra'"),
        (
            changed(head_bias=None, extra=torch.zeros(1)),
            "only the model has 'head.bias'; only the file has 'extra'",
        ),
        (
            changed(head_bias=torch.zeros(5)),
            r"expected 'head.bias' of shape \(3,\), got \(5,\)",
        ),
        ({}, "only the model has"),
    ],
)
def test_weights_of_another_model_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    model = net(2)
    with pytest.raises(ModelError, match=f"other.safetensors' belongs to another model: .*{words}"):
        load_weights(model, path)
    assert same(model, net(2))


def test_files_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(net(1).state_dict(), path)
    with pytest.raises(ModelError, match=r"can't be read as safetensors.*may run code"):
        load_weights(net(2), path)
    with pytest.raises(ModelError, match="there is no such file"):
        load_weights(net(2), tmp_path / "nowhere.safetensors")
    with pytest.raises(ModelError, match="can't be read as safetensors"):
        load_weights(net(2), tmp_path)
