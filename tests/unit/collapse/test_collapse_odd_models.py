"""Models that are unusual to run, to convert or to go backwards through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from infcop.collapse import compact
from infcop.errors import CollapseError, PruningError

MASKS = {"two.weight": torch.tensor([[True, False, True, True]] * 2)}
"""Nothing reads unit 1."""


class Two(nn.Module):
    """Two layers, and what may be between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.two(self.between(self.one(x)))
        return hidden


def same(model: nn.Module, masks: dict[str, Tensor], inputs: tuple[Any, ...], **how: Any) -> Any:
    """Collapse, and compare the outputs with those of the masked model."""
    small = compact(model, masks, inputs, **how)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
        expected, found = model.eval()(*inputs), small.model.eval()(*inputs)
    assert torch.allclose(found, expected, atol=1e-6)
    return small


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_inputs_without_entries_prove_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(CollapseError, match=r"expected example_inputs with entries.*one example"):
        compact(Two(), MASKS, (torch.zeros(shape),))


def test_outputs_without_entries_prove_nothing() -> None:
    class Nothing(Two):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:0]

    with pytest.raises(CollapseError, match="expected outputs with entries"):
        compact(Nothing(), MASKS, (torch.randn(5, 3),))


@pytest.mark.parametrize("fold", [True, False])
def test_even_parts_of_an_image_do_not_forbid_anything(fold: bool) -> None:
    """Which of equal numbers is the largest is a matter of rounding, and differs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 36, 10)),
    )
    with torch.no_grad():
        for _ in range(5):
            model.train()(torch.rand(16, 1, 12, 12))
    image = torch.zeros(2, 1, 12, 12)
    image[:, :, 5:7, 4:6] = torch.rand(2, 1, 2, 2)
    first, second = torch.ones(32, 1, 3, 3).bool(), torch.ones(32, 32, 3, 3).bool()
    scale = torch.ones(32).bool()
    for gone in (1, 5, 11, 21, 30):
        first[gone], second[:, gone], scale[gone] = False, False, False
    masks = {"0.weight": first, "3.weight": second, "1.weight": scale, "1.bias": scale}
    small = same(model, masks, (image,), fold=fold)
    assert small.model[0].out_channels == 27
    assert small.model[1].num_features == 27


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("kind", [AssertionError, TypeError, KeyError])
def test_a_model_that_asks_for_float32(kind: type[Exception], fold: bool) -> None:
    class Strict(Two):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype != torch.float32:
                raise kind("float32 alone")
            return super().forward(x)

    small = same(Strict(), MASKS, (torch.randn(5, 3),), fold=fold)
    assert small.model.one.out_features in (3, 4)
    assert all("float64" not in line for line in small.report.verified)


def test_two_precisions_in_one_model() -> None:
    class Mixed(Two):
        def __init__(self) -> None:
            super().__init__()
            self.two.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(x)).double()).float()

    small = same(Mixed(), MASKS, (torch.randn(5, 3),))
    assert small.model.one.out_features == 3
    assert small.model.two.weight.dtype == torch.float64


@pytest.mark.parametrize("masked", [True, False])
def test_sparse_gradients(masked: bool) -> None:
    model = nn.Sequential(
        *(nn.Embedding(20, 8, sparse=True), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    )
    last = torch.ones(2, 6).bool()
    last[:, 1] = False
    masks = {"3.weight": last}
    if masked:
        masks["0.weight"] = torch.arange(8).expand(20, 8) != 3
    small = same(model, masks, (torch.randint(0, 20, (3, 4)),))
    assert small.model[1].out_features == 5
    assert small.model[0].embedding_dim == (7 if masked else 8)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("kind", ["parameter", "buffer", "row"])
def test_a_layer_that_reads_a_single_vector(kind: str, fold: bool) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.shift, self.two = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(8, 2)
            values = torch.randn(3, 4)
            if kind == "buffer":
                self.register_buffer("table", values)
            else:
                self.table = nn.Parameter(values)

        def forward(self, x: Tensor) -> Tensor:
            vector = self.table[1] if kind == "row" else self.table.sum(0)
            hidden: Tensor = self.two(torch.relu(self.one(x) + self.shift(vector)))
            return hidden

    two = torch.ones(2, 8).bool()
    two[:, 3] = False
    small = same(Shifted(), {"two.weight": two}, (torch.randn(3, 6),), fold=fold)
    assert small.model.one.out_features == 7
    same(Shifted(), {"shift.weight": torch.rand(8, 4) < 0.5}, (torch.randn(3, 6),), fold=fold)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool, fold: bool) -> None:
    class Repeated(Two):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.one(x)
            for _ in range(3):
                inside = checkpoint(self.inside, hidden, use_reentrant=reentrant)
                assert isinstance(inside, Tensor)
                hidden = hidden + inside
            return self.two(hidden)

        def inside(self, hidden: Tensor) -> Tensor:
            return torch.relu(self.middle(hidden))

        def __init__(self) -> None:
            super().__init__()
            self.middle = nn.Linear(4, 4)

    middle = torch.ones(4, 4).bool()
    middle[1], middle[:, 1] = False, False
    model = Repeated()
    small = same(model, {**MASKS, "middle.weight": middle}, (torch.randn(5, 3),), fold=fold)
    assert small.model.middle.weight.shape == (3, 3)
    assert all(parameter.grad is None for parameter in small.model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_complex_parameters_are_compared() -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(6, 4, dtype=torch.cfloat)
            self.two = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            wide = torch.promote_types(x.dtype, torch.cfloat)
            hidden: Tensor = self.two(self.one(x.to(wide)).abs())
            return hidden

    model = Waves()
    small = same(model, MASKS, (torch.randn(3, 6),))
    assert small.report.verified[0] == "the example inputs in float64"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_can_not_be_followed_is_named() -> None:
    class Mapped(Two):
        def forward(self, x: Tensor) -> Tensor:
            rows: Tensor = torch.vmap(lambda row: self.two(torch.relu(self.one(row))))(x)
            return rows

    with pytest.raises(CollapseError, match=r"vmap.*collapse a part of the model without it"):
        compact(Mapped(), MASKS, (torch.randn(5, 3),))


def test_values_that_are_not_there() -> None:
    with pytest.raises(CollapseError, match="on the device 'meta'; load the weights first"):
        compact(Two().to("meta"), MASKS, (torch.randn(5, 3),))
    with pytest.raises(PruningError, match=r"mask with values for 'two\.weight'"):
        compact(Two(), {"two.weight": MASKS["two.weight"].to("meta")}, (torch.randn(5, 3),))


def test_a_model_that_goes_backwards_on_its_examples_alone() -> None:
    class Fussy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            if x.dtype == torch.float64 and bool((x < 0).any()):
                raise ValueError("never seen")
            return gradients[0]

    class Picky(Two):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(Fussy.apply(x))  # type: ignore[no-untyped-call]

    with pytest.raises(CollapseError, match=r"runs backwards on random inputs.*never seen"):
        compact(Picky(), MASKS, (torch.ones(5, 3),))
