"""A smaller network trains as the masked one does, and gives its values back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infcop.core.config import ExecutionConfig, TrainingConfig
from infcop.core.mask import Masks
from infcop.errors import CollapseError
from infcop.masking.apply import MaskEnforcer
from infcop.pipeline.shrunk import Shrunk, shrink_network
from infcop.rewinding.snapshot import Snapshot
from infcop.scoring.movement import MovementSum
from infcop.training.engine import Engine
from infcop.training.recipe import build_optimizer

RECIPES = {
    "sgd": TrainingConfig(lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": TrainingConfig(optimizer="adamw", lr=0.05, weight_decay=0.2),
}
CLIPPED = 0.3
INPUTS = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(ExecutionConfig(device="cpu"), double=True)


class Uneven(nn.Module):
    """Has a tied weight, a frozen layer, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.first.weight
        self.frozen = nn.Linear(6, 5).requires_grad_(False)
        self.idle = nn.Linear(5, 5)
        self.last = nn.Linear(5, 2)
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.first(inputs)).relu() + self.again(inputs)
        outputs: Tensor = self.last(self.frozen(hidden).tanh())
        return outputs


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def unread(model: nn.Module, weight: str, *columns: int) -> Masks:
    """Return masks with columns of a weight pruned, and some entries of the first one."""
    parameters = dict(model.named_parameters())
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in parameters.items() if p.ndim > 1}
    masks[weight][:, list(columns)] = False
    first = next(iter(masks))
    masks[first][1, ::2] = False
    return Masks(masks)


def prepared(make: Any, weight: str, *columns: int) -> tuple[nn.Module, Masks]:
    model = make().double()
    masks = unread(model, weight, *columns)
    MaskEnforcer(dict(model.named_parameters()), masks).apply()
    return model, masks


def found_for(
    model: nn.Module, masks: Masks, engine: Engine, movement: MovementSum | None = None
) -> Shrunk:
    found = shrink_network(
        model, Snapshot.take(model), masks, (INPUTS[0],), engine=engine, movement=movement
    )
    assert found is not None
    return found


def steps(model: nn.Module, recipe: TrainingConfig) -> Iterator[torch.optim.Optimizer]:
    """Yield after each backward pass; the optimiser's step is the caller's."""
    optimizer = build_optimizer(model.parameters(), recipe)
    for inputs in INPUTS.repeat(2, 1, 1):
        optimizer.zero_grad(set_to_none=True)
        model.train()
        model(inputs).square().mean().backward()
        yield optimizer


def norm_of(model: nn.Module) -> float:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return float(nn.utils.clip_grad_norm_(trainable, CLIPPED))


def train_masked(model: nn.Module, masks: Masks, recipe: TrainingConfig) -> list[float]:
    """Train the slow way; return the norms of the gradients."""
    enforcer = MaskEnforcer(dict(model.named_parameters()), masks)
    norms = []
    for optimizer in steps(model, recipe):
        enforcer.mask_gradients()
        norms.append(norm_of(model))
        optimizer.step()
        enforcer.apply()
    return norms


def train_smaller(small: Shrunk, recipe: TrainingConfig, *, moving: bool = False) -> list[float]:
    norms = []
    for optimizer in steps(small.trained, recipe):
        small.before_step(moving=moving)
        norms.append(norm_of(small.trained))
        optimizer.step()
        small.enforcer.apply()
    return norms


CASES = {
    "plain": (plain, "4.weight", 1, 2),
    "two layers": (plain, "2.weight", 0, 3),
    "uneven": (Uneven, "frozen.weight", 2, 4),
    "frozen": (Uneven, "last.weight", 0),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_trains_as_the_masked_network(case: Any, recipe: TrainingConfig, engine: Engine) -> None:
    model, masks = prepared(*case)
    small = found_for(model, masks, engine)
    twin = copy.deepcopy(model)
    assert small.size < sum(p.numel() for p in model.parameters())
    norms, expected = train_smaller(small, recipe), train_masked(twin, masks, recipe)
    assert norms == pytest.approx(expected, rel=1e-12)
    small.put_back()
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12, msg=name)
    # Stored statistics are used here.
    found, wanted = model.eval()(INPUTS[0]), twin.eval()(INPUTS[0])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_the_model_changes_only_when_values_are_put_back(engine: Engine) -> None:
    model, masks = prepared(plain, "4.weight", 1)
    before, state = Snapshot.take(model), torch.get_rng_state()
    small = found_for(model, masks, engine)
    assert torch.equal(torch.get_rng_state(), state)
    train_smaller(small, RECIPES["sgd"])
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    small.put_back()
    assert not torch.equal(before["0.weight"], model.get_parameter("0.weight"))
    assert list(model.state_dict()) == list(before)


def test_present_values_are_trained_on_not_earlier_ones(engine: Engine) -> None:
    model, masks = prepared(plain, "4.weight", 1, 2)
    earlier = Snapshot.take(plain().double())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    present = Snapshot.take(model)
    small = shrink_network(model, earlier, masks, (INPUTS[0],), engine=engine)
    assert small is not None
    small.trained.eval()
    torch.testing.assert_close(small.trained(INPUTS[0]), model.eval()(INPUTS[0]))
    small.put_back()
    assert all(torch.equal(present[name], value) for name, value in model.named_parameters())


def test_layouts_in_memory_make_no_difference(engine: Engine) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).double()
    model = model.to(memory_format=torch.channels_last)
    masks = unread(model, "3.weight", *range(4, 8))
    MaskEnforcer(dict(model.named_parameters()), masks).apply()
    small = shrink_network(
        model, Snapshot.take(model), masks, (torch.randn(2, 2, 4, 4).double(),), engine=engine
    )
    assert small is not None
    before = Snapshot.take(model)
    with torch.no_grad():
        for parameter in small.trained.parameters():
            parameter.mul_(2)
    small.put_back()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, 2 * before[name])
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_sums_of_movement_are_put_back(engine: Engine) -> None:
    model, masks = prepared(plain, "4.weight", 1, 2)
    own = MovementSum({name: model.get_parameter(name) for name in masks})
    begun = {name: torch.full_like(value, 3.0) for name, value in own.values().items()}
    own.load(begun)
    small = found_for(model, masks, engine, own)
    twin = copy.deepcopy(model)
    expected = MovementSum({name: twin.get_parameter(name) for name in masks})
    expected.load(begun)
    enforcer = MaskEnforcer(dict(twin.named_parameters()), masks)
    for optimizer in steps(twin, RECIPES["sgd"]):
        enforcer.mask_gradients()
        expected.add()
        norm_of(twin)
        optimizer.step()
        enforcer.apply()
    train_smaller(small, RECIPES["sgd"], moving=True)
    assert all(torch.equal(own.values()[name], sums) for name, sums in begun.items())
    small.put_back()
    for name, sums in expected.values().items():
        torch.testing.assert_close(own.values()[name], sums, rtol=0, atol=1e-12)


def test_sums_stay_where_movement_is_not_asked_for(engine: Engine) -> None:
    model, masks = prepared(plain, "4.weight", 1)
    own = MovementSum({name: model.get_parameter(name) for name in masks})
    small = found_for(model, masks, engine, own)
    train_smaller(small, RECIPES["sgd"])
    small.put_back()
    assert not any(bool(sums.any()) for sums in own.values().values())


def test_nothing_to_remove(engine: Engine) -> None:
    model = plain().double()
    masks = Masks.full({"0.weight": (5, 6)})
    values = Snapshot.take(model)
    assert shrink_network(model, values, masks, (INPUTS[0],), engine=engine) is None


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def test_statistics_that_would_change_are_told_from_constants(engine: Engine) -> None:
    model, masks = prepared(normalised, "3.weight", 1)
    assert found_for(model, masks, engine).leaves_statistics
    rows = masks["0.weight"].clone()
    rows[1] = False
    isolated = Masks({**masks, "0.weight": rows})
    MaskEnforcer(dict(model.named_parameters()), isolated).apply()
    assert not found_for(model, isolated, engine).leaves_statistics
    without, of_it = prepared(plain, "4.weight", 1)
    assert not found_for(without, of_it, engine).leaves_statistics


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = plain()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs if inputs.sum() > 0 else -inputs)
        return outputs


def test_what_can_not_be_followed_is_an_error(engine: Engine) -> None:
    model, masks = prepared(Branching, "layers.4.weight", 1)
    before = Snapshot.take(model)
    with pytest.raises(CollapseError):
        found_for(model, masks, engine)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
