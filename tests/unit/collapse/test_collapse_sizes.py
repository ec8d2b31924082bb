"""Constants that depend on the size of the inputs are not folded."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from infcop.collapse import compact
from infcop.collapse.facts import Facts, Layer
from infcop.collapse.positions import even, evened
from infcop.collapse.sizes import alone, resized, uneven
from infcop.collapse.values import Value
from tests.reference.collapse import Net, agrees, only, spared, without

CONSTANT = {"a.weight": without((4, 3), 0, 1)}
"""The second of four outputs of a layer is its bias, whatever the inputs."""


class Tables(Net):
    """Two layers with what is cut to the length of the inputs between them."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2))
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(20, 4, generator=generator))
        self.first = nn.Parameter(torch.randn(1, 1, 4, generator=generator))
        self.out = nn.Parameter(torch.randn(4, 4, generator=generator))
        self.register_buffer("places", torch.randn(20, 4, generator=generator))
        self.places[0] = 0  # as that of a sine


def arange(x: Tensor) -> Tensor:
    return torch.arange(x.shape[1], dtype=x.dtype)


def triangle(x: Tensor) -> Tensor:
    return torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril()


SIZED: dict[str, Callable[..., Tensor]] = {
    "softmax over positions": lambda n, x: n.a(x).softmax(1),
    "log softmax over positions": lambda n, x: n.a(x).log_softmax(1),
    "softmax over all": lambda n, x: n.a(x).flatten(1).softmax(1).unflatten(1, (-1, 4)),
    "padding, then a mean": lambda n, x: functional.pad(n.a(x), (0, 0, 1, 1)).mean(1),
    "padding, then the largest": lambda n, x: functional.pad(n.a(x), (0, 0, 1, 1)).amax(1),
    "a table, then a mean": lambda n, x: (n.a(x) + n.places[: x.shape[1]]).mean(1),
    "a learned table, then a mean": lambda n, x: (n.a(x) + n.table[: x.shape[1]]).mean(1),
    "a table": lambda n, x: n.a(x) + n.places[: x.shape[1]],
    "a learned table": lambda n, x: n.a(x) + n.table[: x.shape[1]],
    "factors from a table": lambda n, x: n.a(x) * n.places[: x.shape[1]],
    "a looked up table": lambda n, x: n.a(x) + n.table[torch.arange(x.shape[1])],
    "embedded numbers": lambda n, x: (
        n.a(x) + functional.embedding(torch.arange(x.shape[1]), n.table)
    ),
    "a table of the right size": lambda n, x: (
        n.a(x) + functional.interpolate(n.table.T[None], size=x.shape[1]).mT
    ),
    "a filled table": lambda n, x: n.a(x) + functional.pad(n.table[:1], (0, 0, 0, x.shape[1] - 1)),
    "numbers": lambda n, x: (n.a(x) + arange(x)[:, None]).mean(1),
    "factors": lambda n, x: n.a(x) * arange(x)[:, None],
    "a condition": lambda n, x: n.a(x) + (arange(x) > 5)[:, None],
    "a choice": lambda n, x: torch.where((arange(x) > 5)[:, None], n.a(x), 2 * n.a(x)),
    "a triangle": lambda n, x: triangle(x) @ n.a(x),
    "numbers that are counted": lambda n, x: n.a(x) + torch.ones_like(x[..., :1]).cumsum(1),
    "a first token, then a mean": lambda n, x: torch.cat(
        [n.first.expand(len(x), -1, -1), n.a(x)], 1
    ).mean(1),
    "a sum": lambda n, x: n.a(x).sum(1),
    "a sum by an Einstein sum": lambda n, x: torch.einsum("blk,ko->bo", n.a(x), n.out).tanh(),
    "a sum by ones": lambda n, x: torch.einsum("blk,l->bk", n.a(x), arange(x) * 0 + 1),
    "a sum by a product": lambda n, x: (torch.ones(1, x.shape[1], dtype=x.dtype) @ n.a(x)).squeeze(
        1
    ),
    "a sum by a cut table": lambda n, x: (
        torch.einsum("blk,lo->bko", n.a(x), n.table[: x.shape[1]]).sum(2).tanh()
    ),
    "a mean that counts zeros": lambda n, x: functional.avg_pool1d(n.a(x).mT, 3, 1, 1).mT.mean(1),
    "a mean of another divisor": lambda n, x: (
        functional.avg_pool2d(
            n.a(x).mT[:, :, None], (1, 3), 1, (0, 1), count_include_pad=False, divisor_override=2
        )[:, :, 0].mT
    ),
    "a spread": lambda n, x: n.a(x).flatten(1).std(1)[:, None] * n.a(x).mean(1),
    "softmax over the batch": lambda n, x: n.a(x).softmax(0),
}


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("name", SIZED)
def test_what_depends_on_sizes_is_right_for_other_sizes(name: str, length: int) -> None:
    net = Tables(lambda n, x: n.b(SIZED[name](n, x))).double().eval()
    small = compact(net, CONSTANT, (torch.randn(2, length, 3, dtype=torch.float64),))
    for shape in ((2, length, 3), (5, 9, 3), (1, 3, 3), (3, 1, 3)):
        assert agrees(net, CONSTANT, small, torch.randn(shape, dtype=torch.float64))
    assert not spared(small), "the rule knew"


EVEN: dict[str, Callable[..., Tensor]] = {
    "nothing": lambda n, x: n.a(x),
    "a mean": lambda n, x: n.a(x).sigmoid().mean(1),
    "the largest": lambda n, x: n.a(x).amax(1),
    "zeros": lambda n, x: n.a(x) + torch.zeros(x.shape[1], 1, dtype=x.dtype),
    "a constant": lambda n, x: n.a(x) * torch.tensor(2.0, dtype=x.dtype),
    "pieces of a table": lambda n, x: n.a(x) * n.out.chunk(2)[0].mean(0),
    "padding that repeats": lambda n, x: functional.pad(n.a(x).mT, (1, 1), "replicate").mT.mean(1),
    "a mean of what lies inside": lambda n, x: (
        functional.avg_pool1d(n.a(x).mT, 3, 1, 1, count_include_pad=False).mT
    ),
}


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("name", EVEN)
def test_what_does_not_is_still_folded(name: str, length: int) -> None:
    if name == "padding that repeats" and length == 1:
        pytest.skip("needs more to repeat")
    net = Tables(lambda n, x: n.b(EVEN[name](n, x))).double().eval()
    small = compact(net, CONSTANT, (torch.randn(2, length, 3, dtype=torch.float64),))
    assert small.model.a.out_features == 3
    assert agrees(net, CONSTANT, small, torch.randn(3, 9, 3, dtype=torch.float64))


def test_a_column_that_a_table_has_not_can_go() -> None:
    net = Tables(lambda n, x: n.b(n.a(x) + n.table[: x.shape[1]])).double()
    net.a.bias = None
    masks = {**CONSTANT, "table": without((20, 4), 1, 1)}
    small = compact(net, masks, (torch.randn(2, 5, 3, dtype=torch.float64),))
    assert small.kept["table"][1].tolist() == [0, 2, 3]


def test_a_column_that_survives_further_on_stays() -> None:
    """In the first five rows nothing is left of it."""
    net = Tables(lambda n, x: n.b(n.a(x) + n.table[: x.shape[1]])).double()
    net.a.bias = None
    masks = {**CONSTANT, "table": torch.ones(20, 4, dtype=torch.bool)}
    masks["table"][:5, 1] = False
    small = compact(net, masks, (torch.randn(2, 5, 3, dtype=torch.float64),))
    assert small.model.a.out_features == 4
    assert agrees(net, masks, small, torch.randn(2, 9, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    "by",
    [
        lambda x: 1 / x.shape[1],
        lambda x: 1 / x.shape[0],
        lambda x: torch.tensor(x.shape[1] ** 0.5, dtype=x.dtype),
        lambda x: math.log(x.numel()),
    ],
)
def test_a_size_that_became_a_number_is_found_by_comparing(by: Callable[[Tensor], float]) -> None:
    """The graph shows a number; inputs of another size show what it means."""
    net = Tables(lambda n, x: n.b(n.a(x) * by(x))).double().eval()
    masks = {**CONSTANT, "b.weight": without((2, 4), 1, 3)}
    small = compact(net, masks, (torch.randn(4, 6, 3, dtype=torch.float64),))
    assert small.kept["a.weight"][0].tolist() == [0, 1, 2], "what nothing reads goes"
    assert agrees(net, masks, small, torch.randn(3, 5, 3, dtype=torch.float64))
    reasons = [layer.reason for layer in small.report.layers if layer.name == "a"]
    assert reasons == [None]
    assert not small.folded


def test_a_network_from_which_nothing_goes_says_why() -> None:
    net = Tables(lambda n, x: n.b(n.a(x) / x.shape[1])).double().eval()
    small = compact(net, CONSTANT, (torch.randn(4, 6, 3, dtype=torch.float64),))
    reason = small.report.layers[1].reason
    assert reason is not None
    assert reason.startswith(
        "it is a constant that can't be folded: otherwise its outputs differ with 3 instead of 6 "
        "along dimension 1 in float64"
    )


def test_kernels_of_fixed_numbers() -> None:
    """Their borders are those of any kernel."""
    for forward in (
        lambda n, x: functional.conv1d(x, torch.ones(4, 4, 3, dtype=x.dtype), padding=1),
        lambda n, x: functional.conv_transpose1d(x, torch.ones(4, 4, 3, dtype=x.dtype)),
    ):
        net = Net(
            lambda n, x, forward=forward: n.b(forward(n, n.a(x)).mean(2)),
            **{"a": nn.Conv1d(3, 4, 1), "b": nn.Linear(4, 2)},
        ).double()
        masks = {"a.weight": only((4, 3, 1), (0, 0, 0))}
        small = compact(net, masks, (torch.randn(2, 3, 1, dtype=torch.float64),))
        assert agrees(net, masks, small, torch.randn(2, 3, 7, dtype=torch.float64))


def test_even_entries() -> None:
    given = torch.tensor([[1.0, 1.0], [1.0, 1.1], [math.nan, 1.0], [math.inf, math.inf]])
    assert even(given.double(), (1,)).tolist() == [[True], [False], [False], [False]]
    rounded = torch.tensor([[1.0, 1.0 + 1e-15]], dtype=torch.float64)
    assert even(rounded, (0, 1)).tolist() == [[True]]


def test_what_differs_along_positions_varies() -> None:
    facts = Facts()
    tensor = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]])
    still = torch.zeros((), dtype=torch.bool).expand(2, 3)
    value = Value(tensor, still, (Layer((1,), facts.fresh((3,))),), fed=True)
    assert evened(facts, value).varies.tolist() == [[False, False, True]] * 2
    facts.pin(value.layers[0].ids, "reaches the output")
    assert bool(evened(facts, value).varies.all()), "no unit can go: all are positions"
    weights = Value(tensor, still)
    assert evened(facts, weights) is weights
    empty = Value(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool), fed=True)
    assert evened(facts, empty) is empty
    complex_ = Value(tensor + 0j, still, fed=True)
    assert bool(evened(facts, complex_).varies.all())


def test_arguments_of_other_sizes() -> None:
    given = ((torch.zeros(2, 1, 4), 3, torch.zeros(4)), {"mask": torch.ones(2, 4)})
    found = [
        [
            (what, *(x.shape for x in (*changed[0][::2], changed[1]["mask"])))
            for what, changed in one
        ]
        for one in resized(given)
    ]
    assert found == [
        [("4 instead of 2 along dimension 0", (4, 1, 4), (4,), (4, 4))],
        [("2 instead of 1 along dimension 1", (2, 2, 4), (4,), (2, 4))],
        [
            ("2 instead of 4 along dimension 2", (2, 1, 2), (4,), (2, 4)),
            ("8 instead of 4 along dimension 2", (2, 1, 8), (4,), (2, 4)),
        ],
    ]
    assert list(resized(((), {"scale": 2}))) == []
    assert list(resized((torch.tensor(1.0),))) == []


def test_arguments_of_uneven_sizes() -> None:
    """The examples change with their lengths; the first dimension changes with all of them."""
    given = ((torch.arange(12).reshape(2, 6), 3), {"mask": torch.ones(2, 6)})
    found = [(what, x.shape, y["mask"].shape) for what, ((x, _), y) in uneven(given, single=True)]
    assert found == [
        ("1 instead of 2 along dimension 0", (1, 6), (1, 6)),
        ("1 instead of 2 along dimension 0 and 5 instead of 6 along dimension 1", (1, 5), (1, 5)),
        ("1 instead of 2 along dimension 0 and 7 instead of 6 along dimension 1", (1, 7), (1, 7)),
    ]
    changed = list(uneven(given, single=False))
    assert [x.shape for _, ((x, _), _) in changed] == [(1, 6), (2, 5), (2, 7)]
    assert changed[2][1][0][0].tolist() == [[*range(6), 0], [*range(6, 12), 6]], "it repeats"


@pytest.mark.parametrize("size", range(1, 40))
def test_uneven_sizes_divide_otherwise(size: int) -> None:
    """By any number the rest of one less is another; and one size is no multiple of 2 or 3."""
    new = [x.shape[1] for _, (x,) in uneven((torch.zeros(1, size),), single=True)]
    batches = [len(x) for _, (x,) in uneven((torch.zeros(size),), single=True)]
    assert batches == [one for one in new if one < size], "a larger batch would take time"
    assert size not in new
    assert all(one > 0 for one in new)
    assert size == 1 or new[0] == size - 1
    assert new[-1] % 2 != 0
    assert new[-1] % 3 != 0


def test_heights_and_widths_change_together() -> None:
    found = [x.shape for _, (x,) in uneven((torch.zeros(1, 1, 8, 12),), single=True)]
    assert found[-3:] == [(1, 1, 7, 11), (1, 1, 5, 7), (1, 1, 4, 6)]


def test_what_has_no_other_size() -> None:
    assert list(uneven(((), {"scale": 2}), single=True)) == []
    assert list(uneven((torch.zeros(2, 0),), single=True)) == []
    assert alone((2, torch.tensor(1.0))) == (2, torch.tensor(1.0))
    assert alone((torch.zeros(0, 3),))[0].shape == (0, 3)


class Padded(nn.Module):
    """Pads at the right and below, by what the size says, before a layer with a kernel."""

    def __init__(self, by: Callable[[int], int], stride: int, square: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, stride, stride=stride)
        self.by, self.square = by, square

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.square and height != width:
            raise ValueError("height and width have to be the same")
        return self.b(functional.pad(self.a(x), (0, self.by(width), 0, self.by(height))))


def to_multiple(of: int) -> Callable[[int], int]:
    return lambda size: -size % of


@pytest.mark.parametrize(
    ("model", "size", "others"),
    [
        (Padded(to_multiple(2), 2), (8, 8), [(7, 8), (8, 7), (9, 9)]),
        (Padded(to_multiple(3), 3), (12, 12), [(11, 12), (12, 10), (7, 7)]),
        (Padded(to_multiple(7), 7), (28, 28), [(20, 28), (28, 30), (9, 9)]),
        (Padded(to_multiple(4), 4), (8, 8), [(7, 8), (5, 6)]),
        (Padded(to_multiple(2), 2, square=True), (8, 8), [(7, 7), (9, 9)]),
        (Padded(lambda size: 2 * (size < 6), 2), (8, 8), [(5, 5), (8, 4)]),
        (Padded(lambda size: 2 * (size < 6), 2, square=True), (8, 8), [(5, 5), (4, 4)]),
    ],
)
def test_padding_that_the_example_does_not_need(
    model: nn.Module, size: tuple[int, int], others: list[tuple[int, int]]
) -> None:
    """It is not in the graph. Zeros beside a constant make it differ between positions."""
    model = model.double().eval()
    masks = {"a.weight": without((4, 3, 1, 1), 0, 1)}
    small = compact(model, masks, (torch.randn(2, 3, *size, dtype=torch.float64),))
    for other in others:
        assert agrees(model, masks, small, torch.randn(3, 3, *other, dtype=torch.float64))
    assert not small.folded
    reason = small.report.layers[0].reason
    assert reason is not None
    assert reason.startswith("it is a constant that can't be folded: otherwise its outputs ")


@pytest.mark.parametrize("batch_first", [True, False])
def test_sequences_that_are_cut_into_windows(batch_first: bool) -> None:
    """The length may be the first dimension: then it changes with all examples."""

    def windows(net: Net, x: Tensor) -> Tensor:
        x = net.a(x if batch_first else x.transpose(0, 1)).relu()
        x = functional.pad(x, (0, 0, 0, -x.shape[1] % 4))
        return net.b(x.unflatten(1, (-1, 4)).mean(2))

    net = Net(windows, a=nn.Linear(3, 4), b=nn.Linear(4, 2)).double().eval()
    nn.init.constant_(net.a.bias, 0.5)
    shapes = [(2, length, 3) if batch_first else (length, 2, 3) for length in (8, 7, 5, 3)]
    small = compact(net, CONSTANT, (torch.randn(shapes[0], dtype=torch.float64),))
    for shape in shapes:
        assert agrees(net, CONSTANT, small, torch.randn(shape, dtype=torch.float64))
    assert not small.folded


def test_what_folds_in_all_sizes_says_on_which_it_was_compared() -> None:
    net = Net(lambda n, x: n.b(n.a(x)), a=nn.Linear(3, 4), b=nn.Linear(4, 2)).double().eval()
    small = compact(net, CONSTANT, (torch.randn(2, 5, 3, dtype=torch.float64),))
    assert small.model.a.out_features == 3
    assert (
        "1 instead of 2 along dimension 0 and 4 instead of 5 along dimension 1 in float64"
    ) in small.report.verified
    kept = compact(net, {}, (torch.randn(2, 5, 3, dtype=torch.float64),))
    assert not any("4 instead of 5" in one for one in kept.report.verified), "nothing is folded"


def test_a_network_that_takes_no_batch_of_one_is_compared_with_its_own_batch() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        assert len(x) > 1
        return net.b(
            functional.pad(net.a(x), (0, 0, 0, x.shape[1] % 2)).unflatten(1, (-1, 2)).sum(2)
        )

    net = Net(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2)).double().eval()
    small = compact(net, CONSTANT, (torch.randn(4, 6, 3, dtype=torch.float64),))
    assert not small.folded
    assert agrees(net, CONSTANT, small, torch.randn(2, 5, 3, dtype=torch.float64))
