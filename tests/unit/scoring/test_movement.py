from __future__ import annotations

import pytest
import torch
from torch import nn

from infcop.core.score import Movement
from infcop.errors import PruningError
from infcop.scoring.gather import gather
from infcop.scoring.movement import MovementSum
from infcop.tasks.classification import Classification


def trained(steps, dtype=torch.float32, moved=None):
    """Train a layer and return it with the sums, and with the same sums in float64."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).to(dtype)
    parameters = {"weight": layer.weight}
    moved = moved or MovementSum(parameters)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    slow = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.randn(8, 3, dtype=dtype)).square().mean().backward()
        moved.add()
        slow -= layer.weight.detach().double() * layer.weight.grad.double()
        optimizer.step()
    return layer, moved, slow


def gathered(movement, model=None):
    task = Classification([0], [0])
    model = model or nn.Linear(3, 2)
    return gather(Movement(), model, ["weight"], task, list, seed=0, movement=movement)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-14)])
def test_sums_over_steps(dtype, tolerance):
    _, moved, slow = trained(20, dtype)
    values = moved.values()["weight"]
    assert values.dtype == dtype
    assert not values.requires_grad
    torch.testing.assert_close(values.double(), slow, rtol=tolerance, atol=tolerance)


def test_weights_that_move_away_from_zero_score_high():
    weight = nn.Parameter(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    # The optimiser's step goes against the gradient.
    weight.grad = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    moved = MovementSum({"w": weight})
    moved.add()
    assert moved.values()["w"].tolist() == [1.0, 1.0, -1.0, -1.0]


def test_values_are_copies_and_can_be_loaded():
    _, moved, _ = trained(3)
    values = moved.values()
    kept = values["weight"].clone()
    values["weight"].fill_(9.0)
    assert torch.equal(moved.values()["weight"], kept)
    other = MovementSum({"weight": nn.Linear(3, 2).weight})
    other.load({"weight": kept, "bias": torch.zeros(2)})
    assert torch.equal(other.values()["weight"], kept)
    kept.fill_(9.0)
    assert not torch.equal(other.values()["weight"], kept)


def test_half_weights_are_summed_in_float32_and_no_gradient_is_no_movement():
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    moved = MovementSum({"w": weight})
    moved.add()
    assert moved.values()["w"].tolist() == [0.0, 0.0]
    weight.grad = torch.full((2,), 1 / 256, dtype=torch.bfloat16)
    for _ in range(512):
        moved.add()
    assert moved.values()["w"].tolist() == [-2.0, -2.0]
    assert moved.values()["w"].dtype == torch.float32


@pytest.mark.parametrize(
    ("sums", "got"),
    [
        ({}, "got none; nothing is known"),
        ({"weigth": torch.zeros(2, 3)}, "got none; did you mean 'weigth'"),
        ({"weight": torch.zeros(3, 2)}, r"got shape \(3, 2\)"),
    ],
)
def test_sums_of_something_else_are_refused(sums, got):
    moved = MovementSum({"weight": nn.Linear(3, 2).weight})
    with pytest.raises(PruningError, match=rf"shape \(2, 3\) for 'weight', {got}"):
        moved.load(sums)
    with pytest.raises(PruningError, match=rf"shape \(2, 3\) for 'weight', {got}"):
        gathered(sums)


def test_evidence_is_what_was_summed_up_and_costs_nothing():
    layer, moved, _ = trained(3)
    evidence = gathered(moved.values(), layer)
    assert torch.equal(evidence.values["weight"], moved.values()["weight"])
    assert evidence.cost.forward_equivalents == 0


def test_before_training_nothing_has_moved():
    with pytest.raises(PruningError, match="nothing has been trained yet, so no weight has moved"):
        gathered(None)


def test_sums_have_to_be_finite():
    with pytest.raises(PruningError, match="NaN or infinity for 'weight'"):
        gathered({"weight": torch.full((2, 3), float("nan"))})
