"""Models whose code relies on sizes: attributes are set anew, or the sizes stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infcop.collapse import repair as repair_module
from tests.reference.collapse import collapsed, spared, without


class Heads(nn.Module):
    """Attention in miniature, whose attributes state its sizes."""

    def __init__(self, heads: int = 4, size: int = 3, width: int = 5) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.inner = heads, size, heads * size
        self.name, self.flag = "heads", True
        self.value, self.out = nn.Linear(width, self.inner), nn.Linear(self.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.value(x).view(len(x), self.num_heads, self.head_dim)
        return self.out(parts.tanh().reshape(len(x), self.inner))


class Stack(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.last = nn.ModuleList(layers), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.last(x)


def test_attributes_that_state_sizes_are_set_anew() -> None:
    model = Stack(Heads(), Heads())
    masks = {"layers.1.out.weight": without((5, 12), 1, 3, 4, 5)}
    result = collapsed(model, masks, torch.randn(4, 5))
    one, other = result.model.layers
    assert (one.num_heads, one.head_dim, one.inner) == (4, 3, 12)
    assert (other.num_heads, other.head_dim, other.inner) == (3, 3, 9)
    assert (other.name, other.flag) == ("heads", True)
    assert spared(result) == []
    assert model.layers[1].num_heads == 4


def test_lists_of_sizes_are_set_anew() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes, self.names = [4, 4], ["one", "other"]
            self.up, self.down = nn.Linear(5, 8), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            one, other = self.up(x).split(self.sizes, dim=1)
            return self.down(one * other)

    masks = {"layers.0.down.weight": without((5, 4), 1, 2)}
    result = collapsed(Stack(Split()), masks, torch.randn(4, 5))
    assert result.model.layers[0].sizes == [3, 3]
    assert result.model.layers[0].names == ["one", "other"]


def test_equal_sizes_are_told_apart_by_name() -> None:
    """As many heads as dimensions: only the number of heads changes."""
    masks = {"layers.0.out.weight": without((5, 9), 1, 0, 1, 2)}
    result = collapsed(Stack(Heads(heads=3)), masks, torch.randn(4, 5))
    head = result.model.layers[0]
    assert (head.num_heads, head.head_dim, head.inner) == (2, 3, 6)


def test_one_attribute_can_not_state_two_sizes() -> None:
    """Values could lose a dimension that gates need; the head that is dead goes all the same."""

    class Gates(Heads):
        def __init__(self) -> None:
            super().__init__(heads=4, size=3)
            self.gate = nn.Linear(5, 12)

        def forward(self, x: Tensor) -> Tensor:
            value = self.value(x).view(len(x), -1, self.head_dim)
            gate = self.gate(x).view(len(x), -1, self.head_dim).mean(2, keepdim=True)
            return self.out((value * gate).flatten(1))

    masks = {"layers.0.out.weight": without((5, 12), 1, 0, 1, 2, 4, 7, 10)}
    result = collapsed(Stack(Gates()), masks, torch.randn(4, 5))
    gates = result.model.layers[0]
    assert (gates.head_dim, gates.value.out_features, gates.gate.out_features) == (3, 9, 9)


def test_sizes_in_the_code_stay() -> None:
    class Fixed(Heads):
        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.value(x).view(-1, 4, 3).tanh().reshape(-1, 12))

    model = Stack(Fixed(), nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 5)))
    masks = {
        "layers.0.out.weight": without((5, 12), 1, 3, 4, 5),
        "layers.1.2.weight": without((5, 8), 1, 1, 6),
    }
    result = collapsed(model, masks, torch.randn(4, 5))
    assert result.model.layers[0].value.out_features == 12
    assert result.model.layers[1][0].out_features == 6, "the rest is collapsed all the same"
    reasons = {x.name: x.reason for x in result.report.layers}
    assert reasons["layers.0.value"].startswith("its code relies on sizes; without these it fails:")


def test_a_size_that_enters_the_arithmetic_stays() -> None:
    """It runs with fewer units, and gives something else."""

    class Divided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(5, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.up(x).relu()
            return self.down(hidden / hidden.shape[-1])

    model = Stack(Divided(), nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 5)))
    masks = {
        "layers.0.down.weight": without((5, 8), 1, 2),
        "layers.1.2.weight": without((5, 8), 1, 1, 6),
    }
    result = collapsed(model, masks, torch.randn(4, 5))
    assert result.model.layers[0].up.out_features == 8
    assert result.model.layers[1][0].out_features == 6
    assert "layers.0.up" in spared(result)


def test_numbers_that_are_no_sizes_are_put_back() -> None:
    """They are equal by chance."""

    class Patient(Heads):
        def __init__(self) -> None:
            super().__init__()
            self.patience, self.retry_heads = 4, [4, 12]

    masks = {f"layers.{at}.out.weight": without((5, 12), 1, 3, 4, 5) for at in range(2)}
    result = collapsed(Stack(Patient(), Patient()), masks, torch.randn(4, 5))
    for layer in result.model.layers:
        assert (layer.num_heads, layer.inner) == (3, 9)
        assert (layer.patience, layer.retry_heads) == (4, [4, 12])
    assert set(result.report.changed) == {
        f"layers.{at}.{change}"
        for at in range(2)
        for change in ("num_heads: 4 to 3", "inner: 12 to 9")
    }
    assert "attribute layers.0.num_heads: 4 to 3" in str(result.report)


def test_few_attempts_are_made(monkeypatch) -> None:
    attempts = []
    original = repair_module._Search.attempt

    def counted(self):
        attempts.append(1)
        return original(self)

    monkeypatch.setattr(repair_module._Search, "attempt", counted)
    model = Stack(*(Heads() for _ in range(6)))
    masks = {f"layers.{at}.out.weight": without((5, 12), 1, 3, 4, 5) for at in range(6)}
    collapsed(model, masks, torch.randn(4, 5))
    assert len(attempts) == 2, "modules of the same class are mended together"
