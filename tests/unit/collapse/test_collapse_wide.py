"""Running in float64 without copies in float64."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import compact
from infcop.collapse.measure import Measured, measured, outputs_of
from infcop.collapse.wide import Precision
from tests.reference.collapse import drawn_masks
from tests.reference.collapse_graphs import RandomNet

USE, COPY = (Precision(torch.float64, by) for by in ("use", "copy"))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.register_buffer("scale", torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.norm.weight.dtype) * self.scale
        return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


class Recurrent(nn.LSTM):
    def __init__(self) -> None:
        super().__init__(8, 5, 2, bidirectional=True, batch_first=True)


class Tied(nn.Module):
    """A weight that is used twice, once as a view, and read for its form."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.frozen = nn.Linear(8, 4), nn.Linear(8, 8)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        assert self.one.weight.shape == (4, 8)
        assert len(self.one.weight) == 4
        x = torch.relu(self.one(self.frozen(x)))
        return x @ self.one.weight / self.one.weight.size(0) + self.one.weight[1:2, :8]


def convolutions() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, groups=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.ConvTranspose2d(8, 4, 2), nn.GroupNorm(2, 4), nn.PReLU(4), nn.Flatten()),
    )


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "attention": (Attending, (3, 5, 8)),
    "recurrent": (Recurrent, (3, 5, 8)),
    "tied": (Tied, (3, 8)),
    "convolutions": (convolutions, (2, 3, 9, 9)),
}


def both(model: nn.Module, shape: tuple[int, ...]) -> tuple[Measured, Measured]:
    inputs = torch.randn(shape, dtype=torch.float64)
    found = []
    for way in (USE, COPY):
        network = way.of(model)
        with way.running(network):
            found.append(measured(network, ((inputs,), {})))
    return found[0], found[1]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_copies_in_float64_give(name: str) -> None:
    make, shape = MODELS[name]
    model = make().eval()
    used, copied = both(model, shape)
    for ours, theirs in zip(used.outputs, copied.outputs, strict=True):
        assert ours.dtype == torch.float64
        assert torch.equal(ours, theirs)
    assert torch.equal(*(one.by_input[0] for one in (used, copied)))
    assert used.by_parameter.keys() == copied.by_parameter.keys()
    for key, mine in used.by_parameter.items():
        its = copied.by_parameter[key]
        assert (mine is None) == (its is None)
        if mine is not None and its is not None:
            assert mine.dtype == torch.float32
            assert float((mine - its).abs().max()) <= 2e-7 * float(its.abs().max())
    assert all(p.dtype == torch.float32 and p.grad is None for p in model.parameters())


def test_what_is_only_run_forwards_is_let_go() -> None:
    """Hooks that give back what was saved would keep a graph alive for ever."""
    model = convolutions().eval()
    inputs = ((torch.randn(2, 3, 9, 9, dtype=torch.float64),), {})

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(one), Tensor) for one in gc.get_objects())

    network = USE.of(model)
    with USE.running(network):
        outputs_of(network, inputs)
        before = tensors()
        for _ in range(3):
            outputs_of(network, inputs)
        assert tensors() == before


@pytest.mark.parametrize("seed", range(12))
def test_large_networks_are_collapsed_as_small_ones_are(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constants in biases included: they must not be rounded before they are compared."""
    model = RandomNet(seed).eval()
    masks, images = drawn_masks(model, seed), (torch.randn(2, 3, 8, 8),)
    expected = compact(model, masks, images, fold=seed % 3 > 0)
    monkeypatch.setattr("infcop.collapse.verify._SMALL", 0)
    copied = Mock(side_effect=AssertionError("a copy in float64 was made"))
    monkeypatch.setattr("infcop.collapse.wide.Precision.of", uncopied(copied))
    found = compact(model, masks, images, fold=seed % 3 > 0)
    assert not copied.called
    assert found.report.layers == expected.report.layers
    assert found.report.verified == expected.report.verified
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, expected.model.state_dict()[name])


def uncopied(refuse: Mock) -> Callable[[Precision, nn.Module], nn.Module]:
    plain = Precision.of

    def of(self: Precision, model: nn.Module) -> nn.Module:
        return refuse() if self.by == "copy" else plain(self, model)

    return of


def test_constants_are_compared_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infcop.collapse.verify._SMALL", 0)
    model = nn.Sequential(
        nn.Linear(6, 9), nn.Sigmoid(), nn.Linear(9, 4), nn.Linear(4, 2, bias=False)
    )
    mask = torch.ones(9, 6).bool()
    mask[2:5] = False
    small = compact(model, {"0.weight": mask}, (torch.randn(5, 6),))
    assert small.model[0].out_features == 6
    assert list(small.folded) == ["2.bias"]
    assert small.model[2].bias.dtype == torch.float32


class Filtered(nn.Module):
    """Numbers that are seen as complex ones."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft(x) * torch.view_as_complex(self.filter)
        return torch.fft.irfft(waves, n=8)


class Written(nn.Module):
    """A cast that other code writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.double()
        weight.sub_(1)
        return torch.tanh(x @ weight.to(x.dtype))


@pytest.mark.parametrize("make", [Filtered, Written])
def test_what_can_not_be_made_again_is_kept(make: type[nn.Module]) -> None:
    used, copied = both(make().eval(), (3, 8))
    assert torch.allclose(used.outputs[0], copied.outputs[0], rtol=0, atol=1e-12)
    mine, its = used.by_input[0], copied.by_input[0]
    assert mine is not None
    assert its is not None
    assert torch.allclose(mine, its, rtol=0, atol=1e-12)
