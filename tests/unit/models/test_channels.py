"""Which channels of a consumer a producer enters at, operation by operation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from infcop.models.graph import trace_graph
from infcop.models.prunable import find_prunable
from infcop.models.span import Span
from tests.reference.layer_edges import channels_by_intervention


def traced(model, *inputs):
    return trace_graph(model, inputs, find_prunable(model))


class Joined(nn.Module):
    """Two linear layers of width 4 whose outputs are put together by a function."""

    def __init__(self, operation, shape):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.operation = operation
        with torch.no_grad():
            width = operation(torch.zeros(shape), torch.zeros(shape)).shape[-1]
        self.c = nn.Linear(width, 1)

    def forward(self, x):
        return self.c(self.operation(self.a(x), self.b(x)))


def cat(*tensors, dim=-1):
    return torch.cat(tensors, dim=dim)


def turned(x):
    return x.permute(1, 2, 0).transpose(0, 1).movedim(-1, 0).mT


def checked(model, shape):
    """Return the channels of both producers, after a comparison with the intervention."""
    inputs = torch.randn(shape, dtype=torch.float64)
    model = model.double().eval()
    graph = traced(model, inputs)
    for ((producer, _), (consumer, _)), moved in channels_by_intervention(
        model, (inputs,), graph.layers
    ).items():
        ranges = graph.channels[producer, consumer]
        assert moved <= {channel for start, stop in ranges for channel in range(start, stop)}
    return [graph.channels.get((producer, "c")) for producer in "ab"]


# Operations on two values of shape (5, 3, 4), and where a and b are found in the joined one.
KNOWN = {
    "cat": (lambda a, b: cat(a, b), ((0, 4),), ((4, 8),)),
    "cat twice": (lambda a, b: cat(a, b, a), ((0, 4), (8, 12)), ((4, 8),)),
    "cat of the same": (lambda a, b: cat(a, a) + cat(b, a), ((0, 8),), ((0, 4),)),
    "cat along another axis": (lambda a, b: cat(a, b, dim=1), ((0, 4),), ((0, 4),)),
    "nested cat": (lambda a, b: cat(cat(a, b).relu(), a), ((0, 4), (8, 12)), ((4, 8),)),
    "cat with nothing along another axis": (
        lambda a, b: cat(a.flatten()[:0].view(-1), cat(a, b), dim=1),
        ((0, 4),),
        ((4, 8),),
    ),
    "cat nested behind": (lambda a, b: cat(a, cat(b, a).tanh()), ((0, 4), (8, 12)), ((4, 8),)),
    "a joined channel for all": (
        lambda a, b: torch.ones(5, 3, 8) * cat(a, b)[..., 5:6],
        None,
        ((0, 8),),
    ),
    "cat with a constant": (lambda a, b: cat(torch.ones(5, 3, 2), a, b), ((2, 6),), ((6, 10),)),
    "cat between constants": (
        lambda a, b: cat(torch.ones(5, 3, 2), a, torch.ones(5, 3, 1), b),
        # Of the constants only the sum is known.
        ((0, 7),),
        ((7, 11),),
    ),
    "cat with nothing": (lambda a, b: cat(a.flatten()[:0], b, a), ((4, 8),), ((0, 4),)),
    "slice": (lambda a, b: cat(a, b)[..., 2:7], ((0, 2),), ((2, 5),)),
    "slice from the end": (lambda a, b: cat(a, b)[..., -5:], ((0, 1),), ((1, 5),)),
    "slice from beyond": (lambda a, b: cat(a, b)[..., -50:], ((0, 4),), ((4, 8),)),
    "slice of another axis": (lambda a, b: cat(a, b)[:, 1:], ((0, 4),), ((4, 8),)),
    "sliced away": (lambda a, b: cat(a, b)[..., :3], ((0, 3),), None),
    "every second": (lambda a, b: cat(a, b)[..., ::2], ((0, 4),), ((0, 4),)),
    "chunk": (lambda a, b: cat(a, b, a).chunk(2, -1)[1], ((2, 6),), ((0, 2),)),
    "split": (lambda a, b: cat(a, b).split([3, 5], -1)[1], ((0, 1),), ((1, 5),)),
    "split along another axis": (lambda a, b: cat(a, b).split(1, 1)[2], ((0, 4),), ((4, 8),)),
    "split in sizes along another axis": (
        lambda a, b: cat(a, b).split([1, 2], 1)[1],
        ((0, 4),),
        ((4, 8),),
    ),
    "select": (lambda a, b: cat(a, b)[:, 1], ((0, 4),), ((4, 8),)),
    "unbind": (lambda a, b: cat(a, b).unbind(1)[2], ((0, 4),), ((4, 8),)),
    "one token": (lambda a, b: cat(a, b, dim=1)[:, 0], ((0, 4),), None),
    "last token": (lambda a, b: cat(a, b, dim=1).relu()[:, -1], None, ((0, 4),)),
    "a token in the middle": (lambda a, b: cat(a, b, dim=1).unbind(1)[3], None, ((0, 4),)),
    "some tokens": (lambda a, b: cat(a, b, a, dim=1)[:, 2:6], ((0, 4),), ((0, 4),)),
    "first tokens": (lambda a, b: cat(a, b, dim=1)[:, :3].mean(1), ((0, 4),), None),
    "every second token": (lambda a, b: cat(a, b, dim=1)[:, 4::2], ((0, 4),), ((0, 4),)),
    "tokens split off": (
        lambda a, b: cat(a, b, dim=1).split([2, 4], 1)[0] + cat(b, b, dim=1).split(2, 1)[0],
        ((0, 4),),
        ((0, 4),),
    ),
    "a token that was moved": (
        lambda a, b: cat(a.mT, b.mT, dim=2).transpose(1, 2).roll(1, 0)[:, 5],
        None,
        ((0, 4),),
    ),
    "a token after a mixture": (
        lambda a, b: cat(a, b, dim=1).softmax(1)[:, 0],
        ((0, 4),),
        ((0, 4),),
    ),
    "channels of one token": (
        lambda a, b: cat(cat(a, b), cat(b, b), dim=1)[:, 0][:, 2:6],
        ((0, 2),),
        ((2, 4),),
    ),
    "select before": (lambda a, b: cat(a, b)[2], ((0, 4),), ((4, 8),)),
    "turned": (lambda a, b: turned(cat(a, b)), ((0, 4),), ((4, 8),)),
    "transposed": (lambda a, b: cat(a.mT, b.mT, dim=1).mT, ((0, 4),), ((4, 8),)),
    "t": (lambda a, b: cat(a[0].t(), b[0].t(), dim=0).t(), ((0, 4),), ((4, 8),)),
    "stack": (lambda a, b: torch.stack([a[..., 0], b[..., 0]], -1), ((0, 1),), ((1, 2),)),
    "stack along another axis": (lambda a, b: torch.stack([a, b], 1), ((0, 4),), ((0, 4),)),
    "flatten positions first": (
        lambda a, b: cat(a.mT, b.mT, dim=1).flatten(1),
        ((0, 12),),
        ((12, 24),),
    ),
    "flatten channels last": (lambda a, b: cat(a, b).flatten(1), ((0, 24),), ((0, 24),)),
    "flatten and slice": (
        lambda a, b: cat(a.mT, b.mT, dim=1).flatten(1)[:, 3:15],
        ((0, 9),),
        ((9, 12),),
    ),
    # A border inside of the positions of one channel.
    "flatten and slice askew": (
        lambda a, b: cat(a.mT, b.mT, dim=1).flatten(1)[:, 2:13],
        ((0, 11),),
        ((0, 11),),
    ),
    "folded batch": (lambda a, b: cat(a, b).flatten(0, 1), ((0, 4),), ((4, 8),)),
    "unflattened": (
        lambda a, b: cat(a, b).unflatten(-1, (4, 2)).sum(-1),
        ((0, 2),),
        ((2, 4),),
    ),
    "squeezed": (lambda a, b: cat(a, b)[:1].squeeze(0).unsqueeze(1), ((0, 4),), ((4, 8),)),
    "mean over positions": (lambda a, b: cat(a, b).mean(1), ((0, 4),), ((4, 8),)),
    "sum over positions": (lambda a, b: cat(a, b).sum((0, 1), keepdim=True), ((0, 4),), ((4, 8),)),
    "largest": (lambda a, b: cat(a, b).amax(1) + cat(a, b).max(1)[0], ((0, 4),), ((4, 8),)),
    "mean over channels": (lambda a, b: cat(a, b) - cat(b, b).mean(-1, True), ((0, 4),), ((0, 8),)),
    "broadcast": (lambda a, b: cat(a, b) * cat(a, b)[:1, :1], ((0, 4),), ((4, 8),)),
    "a channel for all": (lambda a, b: a + b[..., :1], ((0, 4),), ((0, 4),)),
    "fewer axes": (lambda a, b: cat(a, b) + cat(b[0, 0], b[0, 0]), ((0, 4),), ((0, 8),)),
    "expand": (lambda a, b: cat(a, b)[:, :1].expand(-1, 3, -1), ((0, 4),), ((4, 8),)),
    "expanded channel": (lambda a, b: (a + b)[..., :1].expand(-1, -1, 6), ((0, 6),), ((0, 6),)),
    "elementwise": (
        lambda a, b: functional.dropout(functional.gelu(cat(a, b)).clamp(-1, 1) ** 2, 0.5, False),
        ((0, 4),),
        ((4, 8),),
    ),
    "where": (lambda a, b: torch.where(cat(a, b) > 0, cat(a, b), 0), ((0, 4),), ((4, 8),)),
    "softmax over channels": (lambda a, b: cat(a, b).softmax(-1), ((0, 8),), ((0, 8),)),
    "softmax over positions": (lambda a, b: cat(a, b).softmax(1), ((0, 4),), ((4, 8),)),
    "layer norm": (lambda a, b: functional.layer_norm(cat(a, b), (8,)), ((0, 8),), ((0, 8),)),
    "layer norm of positions": (
        lambda a, b: functional.layer_norm(cat(a, b).mT, (3,)).mT,
        ((0, 4),),
        ((4, 8),),
    ),
    "batch norm": (
        lambda a, b: (
            functional.batch_norm(cat(a, b).mT, torch.zeros(8).to(a), torch.ones(8).to(a)).mT
        ),
        ((0, 4),),
        ((4, 8),),
    ),
    "batch norm over channels": (
        lambda a, b: functional.batch_norm(cat(a, b), None, None, training=True),
        ((0, 8),),
        ((0, 8),),
    ),
    "pooled positions": (
        lambda a, b: functional.avg_pool1d(cat(a, b).mT, 2).mT,
        ((0, 4),),
        ((4, 8),),
    ),
    "pooled channels": (lambda a, b: functional.max_pool1d(cat(a, b), 2), ((0, 4),), ((0, 4),)),
    "upsampled": (
        lambda a, b: functional.interpolate(cat(a, b).mT, scale_factor=2.0, mode="linear").mT,
        ((0, 4),),
        ((4, 8),),
    ),
    "padded positions": (
        lambda a, b: functional.pad(cat(a, b), (0, 0, 1, 1)),
        ((0, 4),),
        ((4, 8),),
    ),
    "padded channels": (lambda a, b: functional.pad(cat(a, b), (2, 1)), ((2, 6),), ((6, 10),)),
    "cropped channels": (lambda a, b: functional.pad(cat(a, b), (-2, 0)), ((0, 2),), ((2, 6),)),
    "reflected": (
        lambda a, b: functional.pad(cat(a, b).mT, (1, 1), mode="reflect").mT,
        ((0, 4),),
        ((4, 8),),
    ),
    "rolled positions": (lambda a, b: cat(a, b).roll(1, 1).flip(0), ((0, 4),), ((4, 8),)),
    "rolled channels": (lambda a, b: cat(a, b).roll(1, 2), ((0, 8),), ((0, 8),)),
    "rolled all": (lambda a, b: cat(a, b).roll(1), ((0, 8),), ((0, 8),)),
    "gathered channels": (
        lambda a, b: cat(a, b).index_select(2, torch.tensor([0, 7])),
        ((0, 2),),
        ((0, 2),),
    ),
    "sorted out": (lambda a, b: cat(a, b)[..., [0, 1, 6]], ((0, 3),), ((0, 3),)),
    "shuffled": (
        lambda a, b: cat(a, b).view(5, 3, 2, 4).transpose(2, 3).reshape(5, 3, 8),
        ((0, 8),),
        ((0, 8),),
    ),
    "product": (lambda a, b: cat(a, b) @ torch.ones(8, 8).to(a), ((0, 8),), ((0, 8),)),
    "converted": (lambda a, b: cat(a, b).float().to(a.dtype).clone(), ((0, 4),), ((4, 8),)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_channels_of_an_operation(name):
    operation, *expected = KNOWN[name]
    assert checked(Joined(operation, (5, 3, 4)), (5, 3, 4)) == expected


class Normalised(nn.Module):
    """Images that are joined, and what is done with them before a convolution."""

    def __init__(self, *between):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(4, 1, 1)
        self.between = nn.Sequential(*between)

    def forward(self, x):
        return self.c(self.between(torch.cat([self.a(x), self.b(x)], dim=1)))


@pytest.mark.parametrize(
    ("between", "apart"),
    [
        (nn.BatchNorm2d(4), True),
        (nn.PReLU(4), True),
        (nn.AdaptiveAvgPool2d(2), True),
        (nn.AdaptiveMaxPool2d(2), True),
        (nn.Upsample(scale_factor=2), True),
        (nn.Upsample(scale_factor=2, mode="bicubic"), True),
        (nn.ReplicationPad2d(1), True),
        (nn.ZeroPad2d(1), True),
        (nn.GroupNorm(1, 4), False),
        (nn.Sequential(nn.Conv2d(4, 4, 1).requires_grad_(False), nn.Hardswish()), False),
    ],
    ids=str,
)
def test_channels_of_images(between, apart):
    found = checked(Normalised(between), (3, 1, 4, 4))
    assert found == ([((0, 2),), ((2, 4),)] if apart else [((0, 4),), ((0, 4),)])


def test_without_what_pytorch_notes_every_channel_is_attributed(monkeypatch):
    """Another version may note less of an operation than the rules ask for."""
    from infcop.models import operations

    def nothing(step, name):
        raise AttributeError(name)

    monkeypatch.setattr(operations.Step, "saved", nothing)
    operation, *_ = KNOWN["cat"]
    assert checked(Joined(operation, (5, 3, 4)), (5, 3, 4)) == [((0, 8),), ((0, 8),)]


def test_a_further_input_reaches_every_channel():
    class Shifted(nn.Linear):
        def forward(self, x, shift):
            return super().forward(x) + shift

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 1), Shifted(4, 3)
            self.d = nn.Linear(4, 2)

        def forward(self, x):
            return self.c(self.a(x), cat(self.b(x), self.d(x)))

    assert traced(Two(), torch.randn(2, 4)).channels == {
        ("a", "c"): ((0, 4),),
        ("b", "c"): ((0, 4),),
        ("d", "c"): ((0, 4),),
    }


# --- random programs


BLEND = {
    "add": lambda one, other: one + other,
    "halves": lambda one, other: cat(one[:, :2], other[:, 2:]),
    "swap": lambda one, other: cat(one[:, 2:], one[:, :2]),
    "inner": lambda one, other: cat(one, other)[:, 2:6],
    "stack": lambda one, other: torch.stack([one, other], 1).flatten(1)[:, 2:6],
    "pairs": lambda one, other: torch.stack([one, other], 2).flatten(1)[:, 1:5],
    "parts": lambda one, other: cat(one.chunk(2, -1)[1], other.split([1, 3], -1)[1][:, :2]),
    "shift": lambda one, other: functional.pad(one, (1, -1)),
    "constant": lambda one, other: cat(torch.ones(6, 2).to(one), one[:, 1:3]),
    "shuffle": lambda one, other: one.view(6, 2, 2).mT.reshape(6, 4),
    "wide": lambda one, other: cat(one, other).unflatten(1, (4, 2)).sum(2),
    "spread": lambda one, other: other + one[:, 1:2],
    "mean": lambda one, other: one - other.mean(1, keepdim=True),
    "norm": lambda one, other: functional.layer_norm(one, (4,)),
    "softmax": lambda one, other: one.softmax(0),
    "pool": lambda one, other: functional.max_pool1d(cat(one, other), 2),
    "rows": lambda one, other: cat(one[:3], other[3:], dim=0),
    "row": lambda one, other: one + cat(other, one, dim=0)[7],
    "tokens": lambda one, other: cat(one, other[:1], other, dim=0).split([4, 6, 3])[1],
    "token": lambda one, other: one * cat(one, other, dim=0).unbind(0)[6],
    "write": lambda one, other: one.clone().index_copy_(1, torch.tensor([2]), other[:, :1]),
    "in place": lambda one, other: one.clone()[:, 1:3].mul_(2).repeat(1, 2),
}


class Program(nn.Module):
    """Values computed one after the other, by three layers or by operations on earlier values."""

    def __init__(self, steps):
        super().__init__()
        torch.manual_seed(0)
        self.steps = steps
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)).double()

    def forward(self, x):
        values = [x]
        for operation, one, other in self.steps:
            first, second = values[one % len(values)], values[other % len(values)]
            if operation == "layer":
                values.append(self.layers[other % 3](first))
            else:
                values.append(BLEND[operation](first, second))
        return values[-1]


step = st.tuples(
    st.sampled_from(["layer"] * (len(BLEND) // 2) + list(BLEND)),
    st.integers(0, 20),
    st.integers(0, 20),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(step, min_size=2, max_size=14))
def test_no_pair_and_no_channel_is_missing(steps):
    model = Program(steps).eval()
    inputs = torch.randn(6, 4, dtype=torch.float64)
    graph = traced(model, inputs)
    found = channels_by_intervention(model, (inputs,), graph.layers)
    for ((producer, one), (consumer, other)), moved in found.items():
        assert (one, other) in graph.pairs[producer, consumer]
        ranges = graph.channels[producer, consumer]
        assert moved <= {channel for start, stop in ranges for channel in range(start, stop)}


# --- spans


def test_a_border_within_a_channel_ends_the_bookkeeping():
    # Channel 0 has positions 0 and 1, channel 1 has 2 and 3.
    span = Span((0, 2), 1, (0, 4))
    assert span.within(0, 2) == Span((0, 1), 1, (0, 2))
    assert span.within(1, 3) == Span((0, 2), None)
    assert span.within(3, 9) == Span((1, 2), None)
    assert span.within(4, 9) is None
    assert Span((3, 5), None).within(7, 8) == Span((3, 5), None)


@pytest.mark.parametrize(
    ("shape", "before", "axis", "positions"),
    [
        ((5, 12), (5, 3, 4), 1, (0, 3)),
        ((5, 3, 4), (5, 12), 1, (0, 12)),
        ((5, 12), (5, 1, 12), 2, (0, 12)),
        ((5, 12), (5, 12, 1), 1, (0, 12)),
        ((5, 12), (60,), None, (0, 0)),
        ((5, 12), (5, 8), None, (0, 0)),
        ((0, 12), (0, 3, 4), None, (0, 0)),
    ],
)
def test_reshaped(shape, before, axis, positions):
    span = Span((0, 12), 1, (0, shape[1]))
    assert span.reshaped(shape, before) == Span((0, 12), axis, positions)
