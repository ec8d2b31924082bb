"""Collapse of chains of linear layers: what is dead, and what is constant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import compact
from infcop.core.mask import Masks
from tests.reference.collapse import collapsed, living_hidden, only, random_masks
from tests.reference.collapse_graphs import mlp


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid])
def test_an_mlp_keeps_the_units_between_input_and_output(
    seed: int, activation: type[nn.Module]
) -> None:
    """None more, as counted by walking along single weights; also units with a constant value."""
    torch.manual_seed(seed)
    model = mlp([5, 12, 12, 12, 3], activation)
    masks = random_masks(model, 0.12, seed)
    living = living_hidden(masks, 4)
    result = collapsed(model, masks, torch.randn(4, 5))
    left = [result.model[at].out_features for at in (0, 2, 4)]
    if min(living):
        assert left == living
    else:
        assert all(one >= max(1, true) for one, true in zip(left, living, strict=True))


def test_no_unit_of_the_result_is_idle() -> None:
    """Without any further hidden unit the outputs differ."""
    torch.manual_seed(1)
    model = mlp([5, 16, 16, 3], nn.Tanh)
    result = collapsed(model, random_masks(model, 0.2, 1), torch.randn(4, 5))
    x = torch.randn(20, 5, dtype=torch.float64)
    before = result.model(x)
    for layer in (result.model[2], result.model[4]):
        for unit in range(layer.in_features):
            column = layer.weight.detach()[:, unit].clone()
            with torch.no_grad():
                layer.weight[:, unit] = 0
            assert not torch.equal(result.model(x), before)
            with torch.no_grad():
                layer.weight[:, unit] = column


def test_without_pruning_nothing_is_removed() -> None:
    model = mlp([4, 6, 2])
    result = collapsed(model, {}, torch.randn(3, 4))
    assert all(x is None for kept in result.kept.values() for x in kept)
    assert result.report.parameters_after == result.report.parameters_before == 44
    assert [x.reason for x in result.report.layers] == [
        "every unit is used; linear of '0' meets a tensor of fixed size",
        "reaches the output of the model; every unit is used",
    ]


def test_everything_pruned_leaves_the_constant() -> None:
    model = mlp([4, 6, 6, 2])
    masks = {
        f"{at}.weight": torch.zeros_like(model[at].weight, dtype=torch.bool) for at in (0, 2, 4)
    }
    result = collapsed(model, masks, torch.randn(3, 4))
    assert [result.model[at].out_features for at in (0, 2, 4)] == [1, 1, 2]


def test_a_constant_goes_into_the_bias() -> None:
    model = mlp([2, 3, 1], nn.Sigmoid)
    masks = {"0.weight": only((3, 2), (0, 0), (2, 1))}
    result = collapsed(model, masks, torch.randn(3, 2))
    assert result.model[0].out_features == 2
    constant = torch.sigmoid(model[0].bias[1]) * model[2].weight[0, 1]
    assert torch.allclose(result.folded["2.bias"], constant.detach())
    assert torch.allclose(result.model[2].bias, model[2].bias + constant)
    assert not result.new_biases


def test_a_bias_is_made_where_there_is_none() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2, bias=False))
    result = collapsed(model, {"0.weight": only((3, 2), (0, 0))}, torch.randn(3, 2))
    assert result.new_biases == {"2.bias"}
    assert result.model[2].bias.requires_grad is False
    assert list(result.model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert "2.bias" not in result.kept


def test_no_bias_is_made_for_a_constant_of_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    result = collapsed(model, {"0.weight": only((3, 2), (0, 0))}, torch.randn(3, 2))
    assert result.model[2].weight.shape == (2, 1)
    assert not result.folded
    assert result.model[2].bias is None


def test_a_layer_that_is_called_twice_takes_over_no_constant() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.one(x).sigmoid()) * self.last(self.two(x).sigmoid())

    masks = {"one.weight": only((3, 2), (0, 0), (1, 0)), "two.weight": only((3, 2), (0, 0), (1, 1))}
    model = Twice()
    result = collapsed(model, masks, torch.randn(3, 2))
    assert result.model.last.in_features == 3


def test_positions_that_differ_are_not_folded() -> None:
    """A constant that differs from token to token can't be in a bias that all tokens share."""

    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 4)
            self.places = nn.Parameter(torch.randn(5, 4))
            self.last = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) + self.places)

    masks = {"first.weight": only((4, 2), (0, 0), (1, 1))}
    result = collapsed(Places(), masks, torch.randn(2, 5, 2))
    assert result.model.last.in_features == 4
    masks["last.weight"] = torch.tensor([[True, False, True, False]])
    result = collapsed(Places(), masks, torch.randn(2, 5, 2))
    assert result.kept["places"][1].tolist() == [0, 2]


def test_layer_normalisation_keeps_all() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    result = collapsed(model, {"2.weight": only((2, 4), (0, 0), (1, 0))}, torch.randn(3, 2))
    assert next(x.reason for x in result.report.layers) == (
        "layer_norm of '1' mixes all units; linear of '0' meets a tensor of fixed size"
    )


def test_masks_by_either_type() -> None:
    model = mlp([3, 4, 2])
    masks = {"2.weight": only((2, 4), (0, 0), (1, 2))}
    one = compact(model, masks, (torch.randn(2, 3),))
    other = compact(model, Masks(masks), (torch.randn(2, 3),))
    assert one.kept["0.weight"][0].tolist() == other.kept["0.weight"][0].tolist() == [0, 2]
