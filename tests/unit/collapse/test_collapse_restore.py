"""Values of the smaller network go back to where they were."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import compact, restore_into
from infcop.errors import CollapseError
from tests.reference.collapse import channel_masks, masked, random_masks
from tests.reference.collapse_graphs import RandomNet, mlp
from tests.reference.collapse_tokens import RandomTokens


def trained(small: nn.Module, seed: int = 0) -> None:
    """Move all trainable parameters and all statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in small.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                # What is zero is pruned, or might be.
                parameter.add_(torch.where(parameter == 0, 0, 0.1 * noise))
        for name, buffer in small.named_buffers():
            if "running" in name:
                buffer.mul_(1.1)


def check(model: nn.Module, masks: Mapping[str, Tensor], x: Tensor) -> None:
    small = compact(model, masks, (x,))
    trained(small.model)
    target = copy.deepcopy(model)
    restore_into(target, small)
    expected = small.model(x)
    found = masked(target, masks)(x)
    assert torch.allclose(
        found, expected, rtol=0, atol=1e-10 * float(expected.detach().abs().max())
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_restored_network_does_what_the_trained_one_does(seed: int) -> None:
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    model = RandomNet(seed, steps=5).double().eval()
    check(model, random_masks(model, 0.1, seed), images)
    tokens = RandomTokens(seed).double().eval()
    x = tokens.example(seed)
    x = x.double() if x.is_floating_point() else x
    check(tokens, channel_masks(tokens, 0.6, seed), x)


def test_what_was_removed_stays_as_it_is() -> None:
    model = mlp([3, 4, 2])
    masks = {"2.weight": torch.tensor([[True, False, True, True]] * 2)}
    small = compact(model, masks, (torch.randn(2, 3),))
    with torch.no_grad():
        small.model[0].weight.fill_(7)
    before = model[0].weight.detach().clone()
    restore_into(model, small)
    assert (model[0].weight == 7).all(dim=1).tolist() == [True, False, True, True]
    assert torch.equal(model[0].weight[1], before[1])


def test_buffers_and_tied_weights_are_restored() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight
    model.register_buffer("seen", torch.zeros(3))
    masks = {"0.weight": torch.tensor([[True, False, True, True]] * 5)}
    masks["1.weight"] = torch.tensor([[True, False, True, True]] * 4)
    small = compact(model, masks, (torch.tensor([[1, 2]]),))
    assert small.model[0].weight.shape == (5, 3)
    with torch.no_grad():
        small.model[0].weight.fill_(7)
        small.model.seen.fill_(3)
    restore_into(model, small)
    assert model[2].weight is model[0].weight
    assert (model[2].weight == 7).all(dim=0).tolist() == [True, False, True, True]
    assert model.seen.tolist() == [3, 3, 3]


def folded() -> tuple[nn.Module, dict[str, Tensor]]:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2, bias=False)).double()
    mask = torch.ones(3, 2, dtype=torch.bool)
    mask[1] = False
    return model, {"0.weight": mask}


def test_a_bias_that_was_made_is_taken_off_again() -> None:
    model, masks = folded()
    x = torch.randn(4, 2, dtype=torch.float64)
    check(model, masks, x)
    small = compact(model, masks, (x,))
    with torch.no_grad():
        small.model[2].bias.add_(1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CollapseError, match=r"expected '2.bias' as compact made it, got another"):
        restore_into(model, small)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_constants_of_other_values_are_not_taken_off() -> None:
    model, masks = folded()
    model[2].bias = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    x = torch.randn(4, 2, dtype=torch.float64)
    small = compact(model, masks, (x,))
    assert small.folded
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight[1] += 1  # pruned: of no consequence
        other[0].bias[[0, 2]] += 1  # kept: written to
    restore_into(other, small)
    assert torch.equal(masked(other, masks)(x), masked(model, masks)(x))
    with torch.no_grad():
        other[0].bias[1] += 1
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(
        CollapseError, match=r"what was removed of '0.bias' to be as compact was given it"
    ):
        restore_into(other, small)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    restore_into(other.float(), compact(model, masks, (x,), fold=False))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (mlp([3, 3, 2]), r"expected '0.weight' in its original size, got \(3, 3\), which \(3, 3\)"),
        (nn.Linear(3, 4), "expected a model with '0.weight', got one without; pass a model"),
        (mlp([4, 4, 2]), r"expected '0.weight' in its original size, got \(4, 4\)"),
    ],
    ids=["small", "other names", "other inputs"],
)
def test_other_models_are_refused(other: nn.Module, message: str) -> None:
    masks = {"2.weight": torch.tensor([[True, True, False, True]] * 2)}
    small = compact(mlp([3, 4, 2]), masks, (torch.randn(2, 3),))
    with pytest.raises(CollapseError, match=message):
        restore_into(other, small)
