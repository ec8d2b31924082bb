"""Collapse of convolutions: borders, groups, normalisations, constants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.reference.collapse import collapsed, masked, only
from tests.reference.collapse_graphs import with_statistics


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
    model = conv_pair(padding=1)
    result = collapsed(model, masks, torch.randn(2, 1, 9, 9))
    assert result.kept["2.weight"][1].tolist() == [0, 2]
    for size in ((6, 12), (3, 3)):
        image = torch.randn(3, 1, *size, dtype=torch.float64)
        expected = masked(model, masks)(image)
        assert torch.allclose(result.model(image), expected, rtol=0, atol=1e-12)


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


@pytest.mark.parametrize(
    ("norm", "stated"),
    [
        (nn.GroupNorm(4, 8, affine=False), {"num_groups": 3, "num_channels": 6}),
        (nn.InstanceNorm2d(8), {"num_features": 6}),
        (nn.BatchNorm2d(8, affine=False, track_running_stats=False), {"num_features": 6}),
        (nn.BatchNorm2d(8, affine=False), {"num_features": 6}),
    ],
    ids=str,
)
def test_normalisations_without_parameters_state_their_sizes(
    norm: nn.Module, stated: dict[str, int]
) -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 1), norm, nn.Conv2d(8, 2, 1))
    mask = torch.ones(2, 8, 1, 1, dtype=torch.bool)
    mask[:, [2, 3]] = False
    result = collapsed(model, {"2.weight": mask}, torch.randn(2, 2, 5, 5))
    assert {name: getattr(result.model[1], name) for name in stated} == stated


@pytest.mark.parametrize(
    ("layer", "memory"), [(nn.Conv2d, torch.channels_last), (nn.Conv3d, torch.channels_last_3d)]
)
def test_the_order_in_memory_is_kept(layer: type[nn.Module], memory: torch.memory_format) -> None:
    model = nn.Sequential(layer(2, 6, 3), nn.ReLU(), layer(6, 4, 2)).to(memory_format=memory)
    mask = torch.ones_like(model[2].weight, dtype=torch.bool)
    mask[:, 1] = False
    image = torch.randn(2, 2, *[6] * (model[0].weight.ndim - 2)).to(memory_format=memory)
    result = collapsed(model, {"2.weight": mask}, image)
    for at in (0, 2):
        assert result.model[at].weight.is_contiguous(memory_format=memory)
        assert not result.model[at].weight.is_contiguous()
