"""Collapse of chains: linear layers, convolutions, normalisations, constants."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import Compact, compact
from infcop.core.mask import Masks
from tests.reference.collapse import living_hidden, masked, random_masks
from tests.reference.collapse_graphs import mlp, with_statistics


def collapsed(model: nn.Module, masks: Mapping[str, Tensor], *inputs: Tensor) -> Compact:
    """Collapse a model in float64, and compare it once more on inputs of its own."""
    model = model.double().eval()
    result = compact(model, masks, tuple(x.double() for x in inputs))
    other = [torch.randn_like(x.double()) for x in inputs]
    expected, found = masked(model, masks)(*other), result.model(*other)
    assert torch.allclose(
        found, expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max())
    )
    assert not [x for x in result.report.layers if "relies" in (x.reason or "")]
    return result


def only(shape: tuple[int, ...], *kept: tuple[int, ...]) -> Tensor:
    """A mask that keeps a few entries."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for entry in kept:
        mask[entry] = True
    return mask


# -- linear layers -------------------------------------------------------------------------------


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


# -- convolutions --------------------------------------------------------------------------------


def conv_pair(**options: object) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Conv2d(3, 2, 3, **options))


CONSTANT = {"0.weight": only((3, 1, 3, 3), (0, 0, 1, 1), (2, 0, 0, 0))}


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, 2),
        ({"padding": 1}, 3),
        ({"padding": "same"}, 3),
        ({"padding": 1, "padding_mode": "circular"}, 2),
        ({"padding": 1, "padding_mode": "reflect"}, 2),
        ({"padding": 1, "padding_mode": "replicate"}, 2),
        ({"stride": 2}, 2),
        ({"stride": 2, "padding": 1}, 3),
        ({"dilation": 2}, 2),
    ],
    ids=str,
)
def test_zeros_at_borders_keep_a_constant(options: dict[str, object], left: int) -> None:
    result = collapsed(conv_pair(**options), CONSTANT, torch.randn(2, 1, 9, 9))
    assert result.model[2].in_channels == left
    assert bool(result.folded) == (left == 2)


def test_a_kernel_that_sees_no_border_lets_it_go() -> None:
    """Only the middle of the kernel is left for the constant channel."""
    masks = {**CONSTANT, "2.weight": torch.ones(2, 3, 3, 3, dtype=torch.bool)}
    masks["2.weight"][:, 1] = False
    masks["2.weight"][:, 1, 1, 1] = True
    result = collapsed(conv_pair(padding=1), masks, torch.randn(2, 1, 9, 9))
    assert result.kept["2.weight"][1].tolist() == [0, 2]
    other = torch.randn(3, 1, 6, 12, dtype=torch.float64)
    assert (
        torch.allclose(result.model(other), masked(conv_pair(padding=1).double(), masks)(other))
        is False
    )  # another network
    assert result.folded["2.bias"].shape == (2,)


def test_what_borders_make_is_no_constant() -> None:
    """On images of one pixel borders would not show; on larger ones they do."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 1), nn.Sigmoid(), nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()),
        nn.Conv2d(3, 1, 1),
    ).double()
    masks = {
        "0.weight": only((3, 1, 1, 1), (0, 0, 0, 0)),
        "2.weight": only((3, 3, 3, 3), (0, 0, 1, 1), (1, 1, 0, 0)),
    }
    result = collapsed(model, masks, torch.randn(2, 1, 1, 1))
    larger = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    expected = masked(model, masks)(larger)
    assert torch.allclose(result.model(larger), expected, rtol=0, atol=1e-12)


def test_a_constant_made_of_constants_goes_too() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Conv2d(3, 3, 3, bias=False), nn.Sigmoid()),
        nn.Conv2d(3, 1, 1),
    )
    second = only((3, 3, 3, 3), (0, 0, 1, 1), (1, 1, 0, 0), (2, 2, 0, 0))
    result = collapsed(model, {**CONSTANT, "2.weight": second}, torch.randn(2, 1, 9, 9))
    assert [result.model[at].in_channels for at in (2, 4)] == [2, 2]


def test_a_transposed_convolution_has_borders_too() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.ConvTranspose2d(3, 2, 3))
    result = collapsed(model, CONSTANT, torch.randn(2, 1, 9, 9))
    assert result.model[2].in_channels == 3
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.ConvTranspose2d(3, 2, 2, stride=2))
    result = collapsed(model, CONSTANT, torch.randn(2, 1, 9, 9))
    assert result.model[2].in_channels == 3, "each position of the kernel adds something else"
    dead = {"2.weight": torch.ones(3, 2, 2, 2, dtype=torch.bool)}
    dead["2.weight"][1] = False
    result = collapsed(model, dead, torch.randn(2, 1, 9, 9))
    assert (result.model[2].in_channels, result.model[0].out_channels) == (2, 2)


def test_average_pooling_with_padding_makes_borders() -> None:
    for counted, left in ((True, 3), (False, 2)):
        model = nn.Sequential(
            *(nn.Conv2d(1, 3, 3), nn.Sigmoid()),
            nn.AvgPool2d(3, 1, padding=1, count_include_pad=counted),
            nn.Conv2d(3, 1, 1),
        )
        assert collapsed(model, CONSTANT, torch.randn(2, 1, 9, 9)).model[3].in_channels == left


def test_a_sum_over_positions_depends_on_their_number() -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 3, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.conv(x).sigmoid().sum((2, 3)))

    masks = {"conv.weight": CONSTANT["0.weight"]}
    result = collapsed(Summed(), masks, torch.randn(2, 1, 9, 9))
    assert result.model.last.in_features == 3


def test_normalisation_follows_its_channels() -> None:
    model = with_statistics(
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(36, 2)),
        ),
        seed=0,
    )
    mask = torch.ones(2, 36, dtype=torch.bool)
    mask[:, 9:18] = False  # what channel 1 feeds
    result = collapsed(model, {"5.weight": mask}, torch.randn(2, 1, 8, 8))
    assert result.model[1].num_features == 3
    assert result.kept["1.running_var"][0].tolist() == [0, 2, 3]
    assert result.kept["1.num_batches_tracked"] == ()
    assert result.model[5].in_features == 27


def test_groups_go_as_a_whole() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 2, 1))
    mask = torch.ones(2, 12, 1, 1, dtype=torch.bool)
    mask[:, 3:6] = False  # the second group
    mask[:, 7] = False  # one output of the third
    result = collapsed(model, {"2.weight": mask}, torch.randn(2, 1, 5, 5))
    grouped = result.model[1]
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (3, 6, 9)
    assert result.kept["1.weight"][0].tolist() == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    mask[:, [1, 10]] = False  # the middle output of every group
    result = collapsed(model, {"2.weight": mask}, torch.randn(2, 1, 5, 5))
    assert (result.model[1].groups, result.model[1].out_channels) == (3, 6)


def test_depthwise_channels_go_one_by_one() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1))
    mask = torch.ones(2, 6, 1, 1, dtype=torch.bool)
    mask[:, [1, 4]] = False
    result = collapsed(model, {"2.weight": mask}, torch.randn(2, 1, 5, 5))
    assert (result.model[1].groups, result.model[0].out_channels) == (4, 4)
    dead = {"1.weight": torch.ones(6, 1, 3, 3, dtype=torch.bool)}
    dead["1.weight"][2] = False
    result = collapsed(model, dead, torch.randn(2, 1, 5, 5))
    assert result.model[0].out_channels == 5, "its bias is a constant"


def test_group_normalisation_loses_whole_groups() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.GroupNorm(3, 6), nn.Conv2d(6, 2, 1))
    mask = torch.ones(2, 6, 1, 1, dtype=torch.bool)
    mask[:, [0, 2, 3]] = False
    result = collapsed(model, {"2.weight": mask}, torch.randn(2, 1, 5, 5))
    assert (result.model[1].num_groups, result.model[1].num_channels) == (2, 4)
    assert result.kept["0.weight"][0].tolist() == [0, 1, 4, 5]


def test_layer_normalisation_keeps_all() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    result = collapsed(model, {"2.weight": only((2, 4), (0, 0), (1, 0))}, torch.randn(3, 2))
    assert next(x.reason for x in result.report.layers) == (
        "layer_norm of '1' mixes all units; linear of '0' meets a tensor of fixed size"
    )


def test_channels_of_other_dimensions() -> None:
    model = nn.Sequential(
        *(nn.Conv1d(2, 4, 3), nn.PReLU(4), nn.Conv1d(4, 4, 3), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)),
    )
    masks = {
        "6.weight": only((2, 4), (0, 1), (1, 2)),
        "2.weight": only((4, 4, 3), (1, 0, 0), (2, 3, 1)),
    }
    result = collapsed(model, masks, torch.randn(2, 2, 9))
    assert [tuple(result.model[at].weight.shape) for at in (0, 1, 2, 6)] == [
        *((2, 2, 3), (2,), (2, 2, 3), (2, 2)),
    ]
    model = nn.Sequential(nn.Conv3d(1, 4, 2), nn.InstanceNorm3d(4, affine=True), nn.Conv3d(4, 1, 1))
    masks = {"2.weight": only((1, 4, 1, 1, 1), (0, 3, 0, 0, 0))}
    result = collapsed(model, masks, torch.randn(2, 1, 4, 4, 4))
    assert result.model[1].num_features == result.model[0].out_channels == 1


def test_masks_by_either_type() -> None:
    model = mlp([3, 4, 2])
    masks = {"2.weight": only((2, 4), (0, 0), (1, 2))}
    one = compact(model, masks, (torch.randn(2, 3),))
    other = compact(model, Masks(masks), (torch.randn(2, 3),))
    assert one.kept["0.weight"][0].tolist() == other.kept["0.weight"][0].tolist() == [0, 2]
