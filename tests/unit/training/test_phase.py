from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from infcop.core.config import ExecutionConfig, TrainingConfig
from infcop.errors import DataError, TrainingError
from infcop.pipeline.store import RunStore
from infcop.tasks.classification import Classification
from infcop.training.clock import Clock
from infcop.training.engine import Engine
from infcop.training.phase import Phase
from tests.reference.training import (
    BATCH,
    CLASSES,
    EXAMPLES,
    FEATURES,
    LOADERS,
    batches,
    plain_loop,
)

CPU = ExecutionConfig(device="cpu")
RECIPES = {
    "momentum": TrainingConfig(lr=0.1, momentum=0.9, weight_decay=0.01),
    "plain sgd": TrainingConfig(lr=0.1, momentum=0.0, weight_decay=0.0),
    "adamw": TrainingConfig(optimizer="adamw", lr=0.01, weight_decay=0.1),
}
every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
every_loader = pytest.mark.parametrize("kind", LOADERS)


def network(dropout: float = 0.3) -> nn.Module:
    """Return the same network each time, with dropout and a batch norm."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(FEATURES, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(8, CLASSES),
    )


def phase_of(model, loader, recipe=RECIPES["momentum"], *, double=False, **settings) -> Phase:
    engine = Engine(CPU, double=double)
    task = Classification(loader, loader)
    options = {"rate": lambda passes: recipe.lr, "seed": 0, "label": ("level", 3), **settings}
    return Phase(engine, engine.wrap(model), task, recipe, **options)


def falling(passes: float) -> float:
    return 0.1 / (1 + passes)


def equal(a: nn.Module, b: nn.Module) -> bool:
    """Whether all parameters and buffers are the same, bit for bit."""
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


@every_recipe
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_trains_as_a_plain_loop_does(recipe, dtype) -> None:
    model, twin = (network(dropout=0).to(dtype) for _ in range(2))
    loader = [(inputs.to(dtype), labels) for inputs, labels in batches()]
    phase = phase_of(model, loader, recipe, rate=falling, double=dtype == torch.float64)
    loss = phase.advance(3 * len(loader))
    optimizer = {
        "sgd": lambda: torch.optim.SGD(
            twin.parameters(), lr=1, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        ),
        "adamw": lambda: torch.optim.AdamW(
            twin.parameters(), lr=1, betas=(0.9, 0.999), weight_decay=recipe.weight_decay
        ),
    }[recipe.optimizer]()
    losses = plain_loop(twin, optimizer, falling, passes=3)
    assert equal(model, twin)
    assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_the_mean_loss_is_that_of_the_steps_made() -> None:
    model, twin = (network(dropout=0) for _ in range(2))
    phase = phase_of(model, batches(), RECIPES["plain sgd"])
    losses = [phase.advance(2), phase.advance(5)]
    by_hand = plain_loop(twin, torch.optim.SGD(twin.parameters(), lr=1), lambda _: 0.1, passes=1)
    assert losses == pytest.approx([sum(by_hand[:2]) / 2, sum(by_hand[2:]) / 3], rel=1e-6)


STOPS = [2, 5, 8, 10, 13]
"""In the middle of a pass, at the end of one, and across the border of two."""


def carry_on(phase: Phase, after: int = 0) -> list[float]:
    return [phase.advance(stop) for stop in STOPS if stop > after]


@every_loader
@pytest.mark.parametrize("cut", STOPS[:-1])
def test_resumed_equals_uninterrupted(kind, cut, tmp_path) -> None:
    straight = network()
    phase = phase_of(straight, LOADERS[kind]())
    assert phase.steps_per_pass == 5
    losses = carry_on(phase)

    model = network()
    first = phase_of(model, LOADERS[kind]())
    for stop in STOPS[: STOPS.index(cut) + 1]:
        first.advance(stop)
    tensors, rest = first.state()
    store = RunStore(tmp_path)
    store.write_tensors(store.latest, {**model.state_dict(), **tensors}, rest)

    # Another process: nothing is left but the file.
    torch.manual_seed(999)
    saved, rest = store.read_tensors(store.latest)
    resumed = network()
    resumed.load_state_dict({name: saved[name] for name in resumed.state_dict()})
    second = phase_of(resumed, LOADERS[kind]())
    second.load_state({name: saved[name] for name in tensors}, rest)
    assert carry_on(second, after=cut) == losses[STOPS.index(cut) + 1 :]
    assert equal(resumed, straight)
    assert (second.step, second.examples) == (phase.step, phase.examples)


@every_recipe
def test_the_state_of_every_optimizer_is_carried_over(recipe) -> None:
    straight, model = network(), network()
    phase = phase_of(straight, batches(), recipe)
    carry_on(phase)
    first = phase_of(model, batches(), recipe)
    first.advance(2)
    state, values = copy.deepcopy(first.state()), copy.deepcopy(model.state_dict())
    resumed = network()
    resumed.load_state_dict(values)
    second = phase_of(resumed, batches(), recipe)
    second.load_state(*state)
    carry_on(second, after=2)
    assert equal(resumed, straight)
    fresh = network()
    fresh.load_state_dict(values)
    without = phase_of(fresh, batches(), recipe)
    without.load_state({}, {**state[1], "optimizer": {}})
    carry_on(without, after=2)
    assert equal(fresh, straight) == (not state[0]), "a fresh optimizer must make a difference"


@every_loader
def test_what_happens_between_two_advances_does_not_matter(kind) -> None:
    straight, disturbed = network(), network()
    carry_on(phase_of(straight, LOADERS[kind]()))
    phase = phase_of(disturbed, LOADERS[kind]())
    for stop in STOPS:
        phase.advance(stop)
        torch.manual_seed(torch.seed() % 2**32)
        disturbed.eval()
        next(iter(LOADERS[kind]()))
    assert equal(straight, disturbed)


@every_loader
def test_a_phase_can_be_repeated(kind) -> None:
    models = [network(), network()]
    loader = LOADERS[kind]()
    losses = [carry_on(phase_of(model, loader)) for model in models]
    assert losses[0] == losses[1]
    assert equal(*models)


@pytest.mark.parametrize("other", [{"seed": 1}, {"label": ("level", 4)}, {"label": ("final",)}])
@pytest.mark.parametrize("kind", ["list", "in memory", "shuffling", "own generator"])
def test_another_seed_or_place_trains_differently(kind, other) -> None:
    one, two = network(), network()
    carry_on(phase_of(one, LOADERS[kind]()))
    carry_on(phase_of(two, LOADERS[kind](), **other))
    assert not equal(one, two)


def seen_orders(kind: str, passes: int) -> list[list[float]]:
    """Return the first input of every example, pass by pass, as training sees them."""
    seen: list[list[float]] = [[]]

    class Watched(Classification):
        def training_step(self, model, batch):
            seen[-1] += batch[0].flatten(1)[:, 0].tolist()
            return super().training_step(model, batch)

    loader = LOADERS[kind]()
    task, engine, recipe = Watched(loader, loader), Engine(CPU), RECIPES["momentum"]
    wrapped = engine.wrap(network())
    phase = Phase(engine, wrapped, task, recipe, rate=lambda _: 0.1, seed=0, label=("dense",))
    for done in range(1, passes + 1):
        phase.advance(done * phase.steps_per_pass)
        seen.append([])
    return seen[:-1]


@pytest.mark.parametrize("kind", ["shuffling", "own generator", "own batch sampler", "lazy"])
def test_every_pass_sees_every_example_in_its_own_order(kind) -> None:
    orders = seen_orders(kind, passes=3)
    expected = sorted(float(inputs[0]) for batch, _ in batches() for inputs in batch)
    assert all(sorted(order) == pytest.approx(expected) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_places_are_counted_in_steps_passes_and_examples() -> None:
    phase = phase_of(network(), batches())
    phase.advance(7)
    assert (phase.step, phase.passes) == (7, 7 / 5)
    assert phase.examples == EXAMPLES + 2 * BATCH


@settings(deadline=None, max_examples=100)
@given(passes=st.floats(0, 200), steps_per_pass=st.integers(1, 500))
def test_the_step_of_a_place_is_the_first_that_reaches_it(passes, steps_per_pass) -> None:
    step = Clock(steps_per_pass).steps_at(passes)
    assert step / steps_per_pass >= passes - 1e-9
    assert step == 0 or (step - 1) / steps_per_pass < passes


@pytest.mark.parametrize("steps_per_pass", [3, 7, 10, 49])
def test_multiples_of_a_fraction_fall_on_whole_steps(steps_per_pass) -> None:
    clock = Clock(steps_per_pass)
    unit = 1 / steps_per_pass
    assert [clock.steps_at(unit * k) for k in range(500)] == list(range(500))


class Recorder:
    """Notes what the parameter and its gradient are like at each event."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter, self.log, self.asked = parameter, [], []

    def before_step(self, phase: Phase) -> bool:
        self.log.append(("before", self.parameter.grad.clone(), self.parameter.detach().clone()))
        self.asked.append(phase.step)
        return True

    def after_step(self) -> None:
        self.log.append(("after", self.parameter.grad.clone(), self.parameter.detach().clone()))

    def on_step(self, step: int) -> None:
        self.log.append(("step", step))


def test_events_surround_the_optimizer_step() -> None:
    model = network()
    recorder = Recorder(model[1].weight)
    recipe = RECIPES["plain sgd"]
    phase = phase_of(
        model, batches(), recipe, rate=falling, events=recorder, on_step=recorder.on_step
    )
    phase.advance(7)
    assert [entry[0] for entry in recorder.log] == ["before", "after", "step"] * 7
    assert [entry[1] for entry in recorder.log[2::3]] == list(range(1, 8))
    assert recorder.asked == list(range(7))
    for step in range(7):
        (_, gradient, before), (_, _, after) = recorder.log[3 * step : 3 * step + 2]
        assert gradient.count_nonzero()
        expected = before - falling(step / 5) * gradient
        assert torch.allclose(after, expected, rtol=1e-6, atol=1e-8)


class Masking:
    """Zeroes a part of the gradient and blows up the rest, as a rude pipeline might."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter

    def before_step(self, phase: Phase) -> bool:
        self.parameter.grad.mul_(1e6)[0] = 0
        return True

    def after_step(self) -> None:
        pass


class Refusing:
    """Leaves out every third step."""

    def before_step(self, phase: Phase) -> bool:
        return phase.step % 3 != 0

    def after_step(self) -> None:
        pass


def test_a_step_that_the_events_leave_out_changes_nothing() -> None:
    model = network()
    recipe = RECIPES["momentum"]
    phase = phase_of(model, batches(), recipe, events=Refusing())
    for step in range(6):
        before = copy.deepcopy(model.state_dict())
        phase.advance(step + 1)
        moved = not torch.equal(before["1.weight"], model.state_dict()["1.weight"])
        assert moved == (step % 3 != 0)


def test_what_the_optimizer_remembers_can_be_forgotten_in_part() -> None:
    model = network()
    phase = phase_of(model, batches(), RECIPES["momentum"])
    phase.advance(3)
    weight = model[1].weight
    where = torch.zeros_like(weight, dtype=torch.bool)
    where[0] = True
    phase.forget(weight, where)
    (momentum,) = [t for name, t in phase.state()[0].items() if t.shape == weight.shape]
    assert momentum[0].count_nonzero() == 0
    assert momentum[1:].count_nonzero() > 0


def test_clipping_sees_what_the_events_left_of_the_gradient() -> None:
    model = network()
    before = copy.deepcopy(model)
    recipe = TrainingConfig(lr=0.1, momentum=0, weight_decay=0, clip_norm=0.5)
    phase_of(model, batches(), recipe, events=Masking(model[1].weight)).advance(1)
    moved = [a - b for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    length = math.sqrt(sum(float(difference.detach().square().sum()) for difference in moved))
    assert length == pytest.approx(0.1 * 0.5, rel=1e-4)
    assert moved[0][0].count_nonzero() == 0
    assert moved[0][1:].count_nonzero() > 0


def test_a_generous_clip_changes_nothing() -> None:
    free, clipped = network(), network()
    phase_of(free, batches()).advance(5)
    recipe = RECIPES["momentum"].model_copy(update={"clip_norm": 1e6})
    phase_of(clipped, batches(), recipe).advance(5)
    assert equal(free, clipped)


def test_frozen_parameters_stay() -> None:
    model = network()
    model[1].requires_grad_(False)
    before = copy.deepcopy(model)
    phase_of(model, batches()).advance(5)
    assert torch.equal(model[1].weight, before[1].weight)
    assert not torch.equal(model[5].weight, before[5].weight)


@pytest.mark.parametrize(("value", "said"), [(math.nan, "nan"), (math.inf, "nan|inf")])
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_place(value, said) -> None:
    loader = batches()
    loader[3] = (torch.full_like(loader[3][0], value), loader[3][1])
    phase = phase_of(network(), loader)
    phase.advance(2)
    message = (
        rf"the training loss became ({said}) in level 3, between pass 0\.40 and 1\.00; expected a "
        r"finite loss\. Lower training\.lr \(now 0\.1\), set training\.clip_norm"
    )
    with pytest.raises(TrainingError, match=message):
        phase.advance(5)


class Short:
    """Says that it gives 5 batches and gives 3."""

    def __len__(self) -> int:
        return 5

    def __iter__(self):
        return iter(batches()[:3])


def test_a_loader_that_ends_early_is_an_error() -> None:
    message = (
        "the training loader ended after 3 batches of a pass; expected 5, its length. "
        "A loader must give as many batches as it says"
    )
    with pytest.raises(DataError, match=message):
        phase_of(network(), Short()).advance(5)


def test_a_loader_that_ends_before_the_place_of_resuming_is_an_error() -> None:
    phase = phase_of(network(), batches())
    phase.advance(4)
    resumed = phase_of(network(), Short())
    resumed.load_state(*phase.state())
    with pytest.raises(DataError, match="ended after 4 batches of a pass; expected 5"):
        resumed.advance(5)


class Empty(Short):
    def __iter__(self):
        return iter(())


def test_a_loader_without_any_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="ended after 0 batches of a pass; expected 5"):
        phase_of(network(), Empty()).advance(5)


class Long(Short):
    def __len__(self) -> int:
        return 3

    def __iter__(self):
        return iter(batches())


def test_batches_beyond_the_length_are_not_trained_on() -> None:
    model, twin = network(), network()
    phase_of(model, Long()).advance(6)
    phase_of(twin, batches()[:3]).advance(6)
    assert equal(model, twin)


def test_training_mode_is_set_whatever_the_mode_was() -> None:
    model, twin = network().eval(), network()
    phase_of(model, batches()).advance(3)
    phase_of(twin, batches()).advance(3)
    assert model[4].training
    assert equal(model, twin)
