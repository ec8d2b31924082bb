"""2:4 weights: which are converted, which are not and why. The hardware itself is played."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from infcop.errors import ExportError
from infcop.export.semi_structured import is_two_of_four, to_semi_structured

HALF = torch.tensor([True, False, False, True])


class Packed(Tensor):
    """Stands for a semi-structured tensor."""


def packed(weight: Tensor) -> Tensor:
    if weight.shape[0] % 16:
        raise RuntimeError("both dimensions must be multiples of 16\nand more")
    return weight.clone().as_subclass(Packed)


def network() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.Linear(16, 8), nn.Conv1d(4, 4, 4)
    ).half()
    masks = {
        "0.weight": HALF.repeat(32, 4),
        "2.weight": torch.ones(16, 32, dtype=torch.bool),
        "3.weight": HALF.repeat(8, 4),
        "4.weight": HALF.repeat(4, 4, 1),
    }
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model, masks


def test_what_is_converted_and_what_is_not_is_said() -> None:
    model, masks = network()
    before = copy.deepcopy(model.state_dict())
    found = to_semi_structured(model, masks, capability=lambda: (8, 0), convert=packed)
    assert found.converted == ("0.weight",)
    assert isinstance(found.model.get_parameter("0.weight"), Packed)
    assert torch.equal(found.model.get_parameter("0.weight"), before["0.weight"])
    assert found.left == {
        "2.weight": "its mask keeps more than 2 of some 4 successive entries",
        "3.weight": "RuntimeError: both dimensions must be multiples of 16",
        "4.weight": "it belongs to Conv1d; only nn.Linear computes with such weights",
    }
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    assert model.training
    assert not isinstance(model.get_parameter("0.weight"), Packed)
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())


@pytest.mark.parametrize("capability", [(7, 5), (0, 0), None])
def test_hardware_without_sparse_tensor_cores_is_refused(
    capability: tuple[int, int] | None,
) -> None:
    model, masks = network()
    got = "a model on another device" if capability is None else f"{capability[0]}.{capability[1]}"
    with pytest.raises(ExportError, match=rf"capability 8\.0 or more.* got {got}; move"):
        to_semi_structured(model, masks, capability=lambda: capability, convert=packed)


def test_newer_hardware_does_and_a_cpu_does_not() -> None:
    model, masks = network()
    for capability in ((8, 9), (9, 0), (12, 0)):
        found = to_semi_structured(model, masks, capability=lambda c=capability: c, convert=packed)
        assert found.converted
    with pytest.raises(ExportError, match="got a model on another device"):
        to_semi_structured(model, masks)


def test_nothing_to_convert_is_an_error_not_a_dense_network() -> None:
    model, masks = network()
    cases = [
        ({}, model, "got none: no masks"),
        ({"2.weight": masks["2.weight"]}, model, "'2.weight': its mask keeps more than 2"),
        ({"0.weight": masks["0.weight"]}, copy.deepcopy(model).float(), "float32; convert the mod"),
    ]
    for own, one, told in cases:
        with pytest.raises(ExportError, match=told):
            to_semi_structured(one, own, capability=lambda: (8, 0), convert=packed)


def test_masks_that_do_not_fit_are_refused() -> None:
    model, masks = network()
    cases = [
        ({"0.wieght": masks["0.weight"]}, "fits no parameter; did you mean '0.weight'"),
        ({"0.weight": masks["2.weight"]}, r"of shape \(16, 32\) fits no parameter"),
        ({"0.weight": ~masks["0.weight"]}, "pruned entries of '0.weight' to be zero"),
    ]
    for own, told in cases:
        with pytest.raises(ExportError, match=told):
            to_semi_structured(model, own, capability=lambda: (8, 0), convert=packed)


def test_two_of_four_against_looking_at_each_group() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        mask = torch.rand(2, 8, generator=generator) < 0.35
        groups = [row[start : start + 4] for row in mask.tolist() for start in (0, 4)]
        slow = all(sum(group) <= 2 for group in groups)
        assert is_two_of_four(mask) == slow
        seen.add(slow)
    assert seen == {True, False}
    assert not is_two_of_four(torch.zeros(2, 6, dtype=torch.bool))
    assert not is_two_of_four(torch.zeros(8, dtype=torch.bool))
    assert is_two_of_four(torch.zeros(0, 8, dtype=torch.bool))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_gives_the_same_outputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64)).half().cuda()
    masks = {
        name: HALF.repeat(len(p), p.shape[1] // 4)
        for name, p in model.named_parameters()
        if p.ndim == 2
    }
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask.cuda())
    found = to_semi_structured(model, masks)
    assert found.converted == ("0.weight", "2.weight")
    inputs = torch.randn(64, 128, device="cuda").half()
    assert torch.allclose(found.model(inputs), model(inputs), atol=1e-2)
