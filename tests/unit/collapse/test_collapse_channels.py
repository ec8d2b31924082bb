"""Which channels go together, and that they really go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import channel_groups, compact
from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.models.prunable import find_prunable


def places(groups: ChannelGroups) -> list[set[tuple[str, int]]]:
    """Return where the groups of each class are."""
    found: list[set[tuple[str, int]]] = [
        set() for _ in range(int(groups.classes.max()) + 1 if groups.count else 0)
    ]
    for name, dimensions in groups.places.items():
        for dim, numbers in enumerate(dimensions):
            for number in numbers[numbers >= 0].tolist():
                found[int(groups.classes[number])].add((name, dim))
    return found


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 4, 3)
        self.last = nn.Conv2d(7, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], dim=1).relu()
        return self.head(self.last(x).mean((2, 3)))


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )


def multiplied(times: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 1),
        nn.ReLU(),
        nn.Conv2d(6, 6 * times, 3, groups=6),
        nn.ReLU(),
        nn.Conv2d(6 * times, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Conv2d(8, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 2)
    )


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 1, 1)
    )


def test_layers_that_are_added_up_share_their_channels() -> None:
    model = Residual()
    found = channel_groups(model, (torch.randn(2, 1, 8, 8),), find_prunable(model).names)
    shared = {("stem.weight", 0), ("outer.weight", 0), ("inner.weight", 1), ("head.weight", 1)}
    assert places(found) == [shared, {("inner.weight", 0), ("outer.weight", 1)}]
    assert torch.bincount(found.classes).tolist() == [4, 6]


def test_concatenated_channels_are_read_where_they_lie() -> None:
    model = Concatenated()
    found = channel_groups(model, (torch.randn(2, 1, 8, 8),), find_prunable(model).names)
    assert places(found) == [
        {("left.weight", 0), ("last.weight", 1)},
        {("right.weight", 0), ("last.weight", 1)},
        {("last.weight", 0), ("head.weight", 1)},
    ]
    read = found.places["last.weight"][1]
    assert torch.equal(read[:3], found.places["left.weight"][0])
    assert torch.equal(read[3:], found.places["right.weight"][0])


def test_depthwise_layers_go_with_what_they_read() -> None:
    found = channel_groups(
        separable(), (torch.randn(2, 1, 8, 8),), ["0.weight", "2.weight", "4.weight", "6.weight"]
    )
    assert places(found) == [
        {("0.weight", 0), ("2.weight", 0), ("4.weight", 1)},
        {("4.weight", 0), ("6.weight", 1)},
    ]


@pytest.mark.parametrize("times", [2, 3])
def test_all_outputs_of_a_channel_go_with_it(times: int) -> None:
    names = ["0.weight", "2.weight", "4.weight", "6.weight"]
    found = channel_groups(multiplied(times), (torch.randn(2, 1, 8, 8),), names)
    made = found.places["0.weight"][0]
    assert len(set(made.tolist())) == 6
    assert torch.equal(found.places["2.weight"][0], made.repeat_interleave(times))
    assert torch.equal(found.places["4.weight"][1], made.repeat_interleave(times))


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_whether_channels_can_go_does_not_depend_on_values(bias: float) -> None:
    linear = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(linear[0].bias, bias)
    assert channel_groups(linear, (torch.randn(2, 3),), ["0.weight"]).count == 0
    assert channel_groups(linear, (torch.randn(2, 3),), ["0.weight", "2.weight"]).count == 8
    fresh = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    nn.init.constant_(fresh[1].bias, bias)
    assert channel_groups(fresh, (torch.randn(2, 1, 8, 8),), ["0.weight"]).count == 0


def test_the_same_member_of_all_groups_goes_together() -> None:
    found = channel_groups(
        grouped(), (torch.randn(2, 1, 8, 8),), ["0.weight", "1.weight", "3.weight"]
    )
    members = found.places["0.weight"][0].tolist()
    assert members[:4] == members[4:]
    assert len(set(members)) == 4


def test_what_stays_is_in_no_group() -> None:
    """Outputs, inputs, and channels that weights read which may not be pruned."""
    model = Residual()
    found = channel_groups(
        model, (torch.randn(2, 1, 8, 8),), ["stem.weight", "inner.weight", "outer.weight"]
    )
    assert places(found) == [{("inner.weight", 0), ("outer.weight", 1)}]
    mixed = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    nothing = channel_groups(mixed, (torch.randn(2, 3),), ["0.weight", "2.weight"])
    assert nothing.count == 0


MODELS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "concatenated": Concatenated,
    "separable": separable,
    "grouped": grouped,
    "multiplied": multiplied,
    "transposed": transposed,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_removed_collapses_completely(make: Callable[[], nn.Module], seed: int) -> None:
    torch.manual_seed(seed)
    model, inputs = make(), (torch.randn(2, 1, 8, 8),)
    names = find_prunable(model).names
    groups = channel_groups(model, inputs, names)
    assert groups.count
    removed = torch.rand(groups.count) < 0.5
    # One of each class stays.
    for label in range(int(groups.classes.max()) + 1):
        removed[(groups.classes == label).nonzero()[0]] = False
    full = Masks.full({name: tuple(model.get_parameter(name).shape) for name in names})
    masks = groups.without(removed, full)
    small = compact(model, masks, inputs)
    for name in names:
        assert small.model.get_parameter(name).numel() == int(masks[name].sum())


def test_the_model_is_left_as_it_is() -> None:
    model = Residual().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    channel_groups(model, (torch.randn(2, 1, 8, 8, generator=torch.Generator()),), ["stem.weight"])
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
