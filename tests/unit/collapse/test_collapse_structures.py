"""Collapse of what is no plain chain: sums, concatenations, reshaping, sharing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.reference.collapse import Net, collapsed, shapes, without


def test_both_sides_of_a_sum_lose_the_same_channels() -> None:
    net = Net(
        lambda n, x: n.last(n.left(x) + n.right(x).relu()),
        **{"left": nn.Linear(3, 6), "right": nn.Linear(3, 6), "last": nn.Linear(6, 2)},
    )
    result = collapsed(net, {"last.weight": without((2, 6), 1, 0, 4)}, torch.randn(4, 3))
    assert shapes(result) == {"left.weight": (4, 3), "right.weight": (4, 3), "last.weight": (2, 4)}
    assert result.kept["right.bias"][0].tolist() == [1, 2, 3, 5]


def test_a_dead_branch_keeps_its_ends_and_little_between() -> None:
    """The sum needs all of its channels, so the last layer of the branch has to give them."""
    net = Net(
        lambda n, x: n.last(n.stem(x) + n.down(n.up(n.stem(x)).relu())),
        **{"stem": nn.Linear(3, 6), "up": nn.Linear(6, 20), "down": nn.Linear(20, 6)},
        last=nn.Linear(6, 2),
    )
    result = collapsed(net, {"down.weight": without((6, 20), 1, *range(20))}, torch.randn(4, 3))
    assert shapes(result)["up.weight"] == (1, 6)
    assert shapes(result)["down.weight"] == (6, 1)


def test_each_part_of_a_concatenation_loses_its_own() -> None:
    net = Net(
        lambda n, x: n.last(torch.cat([x, n.one(x), n.other(x)], dim=1)),
        **{"one": nn.Conv2d(2, 3, 1), "other": nn.Conv2d(2, 4, 1), "last": nn.Conv2d(9, 1, 1)},
    )
    masks = {"last.weight": without((1, 9, 1, 1), 1, 0, 3, 5, 6)}
    result = collapsed(net, masks, torch.randn(2, 2, 4, 4))
    assert result.kept["last.weight"][1].tolist() == [0, 1, 2, 4, 7, 8], "the input stays as it is"
    assert result.kept["one.weight"][0].tolist() == [0, 2]
    assert result.kept["other.weight"][0].tolist() == [2, 3]


def test_a_gate_goes_with_its_channel() -> None:
    net = Net(
        lambda n, x: n.last(n.value(x) * n.gate(x.mean((2, 3), keepdim=True)).sigmoid()),
        **{"value": nn.Conv2d(2, 5, 3), "gate": nn.Conv2d(2, 5, 1), "last": nn.Conv2d(5, 1, 1)},
    )
    masks = {
        "last.weight": without((1, 5, 1, 1), 1, 1),
        "value.weight": without((5, 2, 3, 3), 0, 3),
    }
    net.value.bias = None  # a channel of zero stays zero, whatever the gate
    result = collapsed(net, masks, torch.randn(2, 2, 6, 6))
    assert result.kept["gate.weight"][0].tolist() == [0, 2, 4]


def test_halves_that_are_multiplied() -> None:
    net = Net(
        lambda n, x: n.last(functional.glu(n.first(x))), first=nn.Linear(3, 8), last=nn.Linear(4, 2)
    )
    result = collapsed(net, {"last.weight": without((2, 4), 1, 1)}, torch.randn(4, 3))
    assert result.kept["first.weight"][0].tolist() == [0, 2, 3, 4, 6, 7]


RESHAPINGS = {
    # what happens to the six outputs of a layer, the entries that nothing reads, what is left
    "shuffle": (lambda x: x.view(len(x), 2, -1).mT.flatten(1), (4, 5), [0, 1, 3, 4]),
    "odd shuffle": (lambda x: x.view(len(x), 2, -1).mT.flatten(1), (4,), [0, 1, 2, 3, 4, 5]),
    "means": (lambda x: x.unflatten(1, (-1, 2)).mean(2), (1,), [0, 1, 4, 5]),
    "flip": (lambda x: x.flip(1), (2,), [0, 1, 2, 4, 5]),
    "repeat": (lambda x: x.repeat(1, 2)[:, None].squeeze(1), (2, 8), [0, 1, 3, 4, 5]),
    "stack": (lambda x: torch.stack(x.chunk(3, 1), 2).flatten(1), (3, 4, 5), [0, 2, 4]),
    "same stack": (lambda x: torch.stack([x, x], 2).flatten(1), (4, 5), [0, 1, 3, 4, 5]),
    "roll": (lambda x: x.roll(1, 1), (2,), [0, 1, 2, 3, 4, 5]),
    "slices": (lambda x: torch.cat([x[:, 2:], x[:, :2]], 1), (2,), [0, 1, 2, 3, 4, 5]),
    "index": (lambda x: x[:, [5, 4, 3, 2, 1, 0]], (2,), [0, 1, 2, 3, 4, 5]),
    "cumsum": (lambda x: x.cumsum(1), (2,), [0, 1, 2, 3, 4, 5]),
    "softmax": (lambda x: x.softmax(1), (2,), [0, 1, 2, 3, 4, 5]),
    "no rule": (lambda x: torch.fft.rfft(x).real, (2,), [0, 1, 2, 3, 4, 5]),
}


@pytest.mark.parametrize("name", RESHAPINGS)
def test_units_are_followed_through_reshaping(name: str) -> None:
    reshape, dead, left = RESHAPINGS[name]
    width = reshape(torch.zeros(1, 6)).shape[1]
    net = Net(
        lambda n, x: n.last(reshape(n.first(x))), first=nn.Linear(3, 6), last=nn.Linear(width, 2)
    )
    result = collapsed(net, {"last.weight": without((2, width), 1, *dead)}, torch.randn(4, 3))
    kept = result.kept["first.weight"][0]
    assert (list(range(6)) if kept is None else kept.tolist()) == left


MEETINGS = {
    # what the six outputs meet, and how many of five living ones stay
    "a fixed tensor": (lambda n, x: x + torch.arange(6.0, dtype=x.dtype), 6),
    "one made to measure": (lambda n, x: x * torch.ones_like(x), 5),
    "its own larger half": (lambda n, x: torch.maximum(x, -x), 5),
    "the larger of two": (lambda n, x: torch.max(x, x.neg()), 5),
    "a choice": (lambda n, x: torch.where(x > 0, x, 0.1 * x), 5),
    "zeros of its type": (lambda n, x: x + x.new_zeros(1), 5),
    "what it is filled with": (lambda n, x: x + x.clone().fill_(2.0), 5),
    "a mask": (lambda n, x: x.masked_fill(x > 1, 0.0), 5),
    "its mean": (lambda n, x: x - x.mean(1, keepdim=True), 6),
    "its largest": (lambda n, x: x / (1 + x.abs().amax(1, keepdim=True)), 6),
    "nothing at all": (lambda n, x: torch.cat([x, x[:, :0]], 1), 6),
    "a product of matrices": (lambda n, x: torch.addmm(x, x.new_ones(4, 4), n.row[:, 0]), 5),
    "a batched product": (lambda n, x: x.new_ones(4, 1, 1).baddbmm(n.ones, n.row)[:, 0] * x, 5),
    "a parameter": (lambda n, x: x * n.row[0, 0], 5),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_what_units_meet(name: str) -> None:
    class Meeting(Net):
        def __init__(self) -> None:
            super().__init__(
                lambda n, x: n.last(MEETINGS[name][0](n, n.first(x))),
                **{"first": nn.Linear(3, 6), "last": nn.Linear(6, 2)},
            )
            self.row = nn.Parameter(torch.randn(4, 1, 6))
            self.register_buffer("ones", torch.ones(4, 1, 1))

    masks = {"last.weight": without((2, 6), 1, 2)}
    result = collapsed(Meeting(), masks, torch.randn(4, 3))
    assert result.model.first.out_features == MEETINGS[name][1]


@pytest.mark.parametrize(
    ("forward", "left"),
    [
        (lambda n, x: n.last(n.first(x).sigmoid()), 5),
        (lambda n, x: n.last(n.first(x).sigmoid() * n.scale), 6),
        (lambda n, x: n.last(n.first(x).sigmoid() + n.scale), 6),
        (lambda n, x: n.last(functional.prelu(n.first(x) - 9, n.scale)), 6),
        (lambda n, x: n.last(functional.prelu(n.first(x), n.each)), 5),
        (lambda n, x: n.last(n.first(x).sigmoid() * n.each), 5),
        (lambda n, x: n.last(n.first(x).sigmoid() * n.scale.detach()), 6),
    ],
    ids=["nothing", "factor", "summand", "slope", "slopes", "factors", "detached"],
)
def test_constants_of_shared_parameters_stay(forward: object, left: int) -> None:
    """Else the parameter would have another gradient."""
    net = Net(forward, first=nn.Linear(3, 6), last=nn.Linear(6, 2))
    net.scale = nn.Parameter(torch.tensor([0.5]))
    net.each = nn.Parameter(torch.rand(6))
    result = collapsed(net, {"first.weight": without((6, 3), 0, 4)}, torch.randn(4, 3))
    assert result.model.first.out_features == left


def test_weights_that_are_zero_by_chance_may_grow() -> None:
    """Of a standardised weight with a gain that starts from zero no input may go."""

    class Gained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
            self.gain = nn.Parameter(torch.zeros(2, 1))

        def forward(self, x: Tensor) -> Tensor:
            weight = self.last.weight * self.gain
            return functional.linear(self.first(x).tanh(), weight, self.last.bias)

    result = collapsed(Gained(), {"last.weight": without((2, 6), 1, 1, 4)}, torch.randn(4, 3))
    assert result.kept["first.weight"][0].tolist() == [0, 2, 3, 5]


def test_tied_weights_stay_tied() -> None:
    net = Net(
        lambda n, x: n.head(n.mid(n.words(x)).relu()),
        **{
            "words": nn.Embedding(7, 6),
            "mid": nn.Linear(6, 6),
            "head": nn.Linear(6, 7, bias=False),
        },
    )
    net.head.weight = net.words.weight
    masks = {"head.weight": without((7, 6), 1, 2), "mid.weight": without((6, 6), 1, 4)}
    masks["mid.weight"] &= without((6, 6), 1, 2)
    result = collapsed(net, masks, torch.randint(7, (3, 4)))
    assert result.model.head.weight is result.model.words.weight
    assert result.model.words.weight.shape == (7, 5), "column 4 is read by the head"
    assert result.model.words.embedding_dim == result.model.head.in_features == 5
    assert result.report.parameters_before == 7 * 6 + 42
    assert torch.equal(result.kept["head.weight"][1], result.kept["words.weight"][1])


def test_a_layer_that_is_called_in_a_loop() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        x = n.first(x)
        for _ in range(3):
            x = n.loop(x).tanh()
        return n.last(x)

    layers = {"first": nn.Linear(3, 6), "loop": nn.Linear(6, 6), "last": nn.Linear(6, 2)}
    net = Net(forward, **layers)
    masks = {"last.weight": without((2, 6), 1, 0, 1), "loop.weight": without((6, 6), 1, 1)}
    result = collapsed(net, masks, torch.randn(4, 3))
    assert result.kept["loop.weight"][0].tolist() == [0, 2, 3, 4, 5], "0 is read by the loop"


def test_writing_in_place_is_followed() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        first = n.first(x)
        second = first.mul_(2).relu_()
        return n.last(first + second)

    net = Net(forward, first=nn.Linear(3, 6), last=nn.Linear(6, 2))
    result = collapsed(net, {"last.weight": without((2, 6), 1, 3)}, torch.randn(4, 3))
    assert result.model.first.out_features == 5


def test_writing_into_a_part_keeps_all() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        first = n.first(x)
        first[:, :2].add_(1)
        return n.last(first)

    net = Net(forward, first=nn.Linear(3, 6), last=nn.Linear(6, 2))
    result = collapsed(net, {"last.weight": without((2, 6), 1, 3)}, torch.randn(4, 3))
    assert result.model.first.out_features == 6


def test_pixels_of_one_channel_go_together() -> None:
    net = Net(
        lambda n, x: n.last(functional.pixel_shuffle(n.first(x), 2)),
        **{"first": nn.Conv2d(1, 12, 3, padding=1), "last": nn.Conv2d(3, 1, 1)},
    )
    masks = {"last.weight": without((1, 3, 1, 1), 1, 1)}
    result = collapsed(net, masks, torch.randn(2, 1, 4, 4))
    assert result.kept["first.weight"][0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]


def test_parameters_that_nothing_uses_stay() -> None:
    net = Net(
        lambda n, x: n.last(n.first(x)),
        **{"first": nn.Linear(3, 4), "spare": nn.Linear(4, 4), "last": nn.Linear(4, 2)},
    )
    result = collapsed(net, {"last.weight": without((2, 4), 1, 0)}, torch.randn(2, 3))
    assert result.model.spare.weight.shape == (4, 4)
    assert result.report.layers[1].reason == "it has no part in the outputs for these inputs"
