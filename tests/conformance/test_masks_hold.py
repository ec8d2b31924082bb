"""Masks hold: what other pruning tools are known to break, as tests of ours.

Each test is named after the defect. They use masking and rewinding with plain PyTorch training
loops and optimisers, the way a user without the pipeline would.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from infcop.core.mask import Masks
from infcop.core.method import Fraction, MethodConfig
from infcop.masking.apply import MaskEnforcer
from infcop.models.prunable import find_prunable, get_parameters
from infcop.rewinding.snapshot import Snapshot
from infcop.scoring.magnitude import magnitude
from tests.reference.pruning import prune_level

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: Adam(parameters, lr=0.01, weight_decay=0.01),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=0.1, amsgrad=True),
}


class Tied(nn.Module):
    """A language model in miniature, whose output head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = (inputs.abs().sum(dim=(1, 2, 3)) * 10).long() % 9
        # Not a ReLU: at 80 % sparsity it may die, and then no gradient would test the masks.
        return self.head(self.body(self.embed(tokens)).tanh())


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 9)
    )


MODELS: dict[str, Callable[[], nn.Module]] = {"convolutional": convolutional, "tied": Tied}

every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def full_masks(model: nn.Module) -> Masks:
    return Masks.full(find_prunable(model).shapes)


def enforcer_of(model: nn.Module, masks: Masks) -> MaskEnforcer:
    enforcer = MaskEnforcer(get_parameters(model, masks), masks)
    enforcer.apply()
    return enforcer


def prune(model: nn.Module, masks: Masks, remove: float = 0.2) -> Masks:
    weights = {name: p.detach() for name, p in get_parameters(model, masks).items()}
    scores = {name: magnitude(weight, None, masks[name]) for name, weight in weights.items()}
    method = MethodConfig(name="lth", schedule=Fraction(remove=remove), keep_per_layer=1)
    return prune_level(weights, scores, masks, method, level=1, target_kept=1)


def train(
    model: nn.Module, optimizer: Optimizer, enforcer: MaskEnforcer | None, steps: int = 5
) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(8, 1, 5, 5, generator=generator)
        labels = torch.randint(9, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        if enforcer is not None:
            enforcer.mask_gradients()
        optimizer.step()
        if enforcer is not None:
            enforcer.apply()
            enforcer.check()


def pruned_values(model: nn.Module, masks: Masks) -> Tensor:
    parameters = get_parameters(model, masks)
    return torch.cat([parameters[name].detach()[~mask] for name, mask in masks.items()])


def pruned_states(model: nn.Module, masks: Masks, optimizer: Optimizer) -> dict[str, Tensor]:
    """Momentum, moments and so on of the pruned entries."""
    return {
        f"{name}.{key}": value[~masks[name]]
        for name, parameter in get_parameters(model, masks).items()
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }


@every_model
@every_optimizer
def test_pruned_weights_do_not_drift_and_gather_no_momentum(
    build: Callable[[], nn.Module], make: MakeOptimizer
) -> None:
    model = seeded(build)
    train(model, make(model.parameters()), None)
    masks = prune(model, full_masks(model), remove=0.8)
    enforcer = enforcer_of(model, masks)
    optimizer = make(model.parameters())
    weights = get_parameters(model, masks)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    train(model, optimizer, enforcer, steps=20)
    assert pruned_values(model, masks).count_nonzero() == 0
    states = pruned_states(model, masks, optimizer)
    assert len(states) >= len(masks)
    assert all(state.count_nonzero() == 0 for state in states.values())
    assert any((weights[n] != before[n])[masks[n]].any() for n in masks)


def build_like(build: Callable[[], nn.Module], values: Snapshot) -> nn.Module:
    model = build()
    values.restore(model)
    return model


@every_model
@every_optimizer
def test_one_more_step_with_the_same_optimizer_revives_nothing(
    build: Callable[[], nn.Module], make: MakeOptimizer
) -> None:
    model = seeded(build)
    optimizer = make(model.parameters())
    train(model, optimizer, None)
    masks = prune(model, full_masks(model), remove=0.8)
    # The optimiser still carries the momentum of the weights that are gone.
    assert any(s.count_nonzero() for s in pruned_states(model, masks, optimizer).values())
    enforcer = enforcer_of(model, masks)
    train(model, optimizer, enforcer, steps=1)
    assert pruned_values(model, masks).count_nonzero() == 0
    train(model, optimizer, enforcer, steps=20)
    assert pruned_values(model, masks).count_nonzero() == 0


@every_model
def test_state_dict_is_that_of_the_plain_model(build: Callable[[], nn.Module]) -> None:
    model, plain = seeded(build), build()
    masks = prune(model, full_masks(model))
    train(model, OPTIMIZERS["sgd"](model.parameters()), enforcer_of(model, masks))
    state, plain_state = model.state_dict(), plain.state_dict()
    assert list(state) == list(plain_state)
    assert all(state[n].shape == plain_state[n].shape for n in state)
    assert serialized_size(state) == serialized_size(plain_state)
    plain.load_state_dict(state, strict=True)
    assert pruned_values(plain, masks).count_nonzero() == 0


def serialized_size(state: dict[str, Tensor]) -> int:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return len(buffer.getvalue())


@every_model
def test_copying_and_pickling_work_after_a_forward(build: Callable[[], nn.Module]) -> None:
    model = seeded(build)
    masks = prune(model, full_masks(model))
    train(model, OPTIMIZERS["adamw"](model.parameters()), enforcer_of(model, masks))
    inputs = torch.randn(4, 1, 5, 5)
    model.eval()
    expected = model(inputs)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(inputs), expected)
        assert pruned_values(twin, masks).count_nonzero() == 0


@every_optimizer
def test_a_tied_output_head_is_sparse_in_the_embedding_too(make: MakeOptimizer) -> None:
    model = seeded(Tied)
    snapshot = Snapshot.take(model)
    masks = prune(model, full_masks(model), remove=0.8)
    assert "head.weight" in masks
    assert "embed.weight" not in masks
    for _ in range(2):
        train(model, make(model.parameters()), enforcer_of(model, masks))
        assert model.embed.weight is model.head.weight
        assert model.embed.weight.detach()[~masks["head.weight"]].count_nonzero() == 0
        assert int(model.embed.weight.count_nonzero()) <= masks.kept_per_layer["head.weight"]
        snapshot.restore(model, masks)
    assert model.embed.weight.detach()[~masks["head.weight"]].count_nonzero() == 0


@every_optimizer
def test_biases_and_batch_norm_are_left_alone(make: MakeOptimizer) -> None:
    model = seeded(convolutional)
    masks = full_masks(model)
    assert list(masks) == ["0.weight", "4.weight"]
    for _ in range(5):
        masks = prune(model, masks, remove=0.6)
        train(model, make(model.parameters()), enforcer_of(model, masks))
    assert masks.density < 0.02
    for name in ("0.bias", "1.weight", "1.bias", "4.bias"):
        assert bool((model.get_parameter(name) != 0).all()), name


@every_model
@every_optimizer
def test_three_rounds_of_a_fifth_add_up(
    build: Callable[[], nn.Module], make: MakeOptimizer
) -> None:
    model = seeded(build)
    masks = full_masks(model)
    sparsities = []
    for _ in range(3):
        masks = prune(model, masks)
        train(model, make(model.parameters()), enforcer_of(model, masks))
        weights = get_parameters(model, masks).values()
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        assert zeros == masks.total - masks.kept
        sparsities.append(zeros / masks.total)
    assert sparsities == pytest.approx([0.2, 0.36, 0.488], abs=3 / masks.total)


@every_model
@every_optimizer
def test_masks_survive_saving_and_training_goes_on_as_if_nothing_had_happened(
    build: Callable[[], nn.Module], make: MakeOptimizer, tmp_path: Path
) -> None:
    model = seeded(build)
    masks = prune(model, full_masks(model), remove=0.7)
    optimizer = make(model.parameters())
    train(model, optimizer, enforcer_of(model, masks))
    save_file(dict(masks), tmp_path / "masks.safetensors")
    save_file(dict(Snapshot.take(model)), tmp_path / "values.safetensors")
    state = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, enforcer_of(model, masks))

    resumed = build()
    Snapshot(load_file(tmp_path / "values.safetensors")).restore(resumed)
    loaded = Masks(load_file(tmp_path / "masks.safetensors"))
    assert loaded.kept_per_layer == masks.kept_per_layer
    optimizer = make(resumed.parameters())
    optimizer.load_state_dict(state)
    train(resumed, optimizer, enforcer_of(resumed, loaded))
    assert pruned_values(resumed, masks).count_nonzero() == 0
    for name, value in Snapshot.take(model).items():
        assert torch.equal(value, Snapshot.take(resumed)[name]), name


@every_model
@every_optimizer
def test_momentum_does_not_survive_a_rewind(
    build: Callable[[], nn.Module], make: MakeOptimizer
) -> None:
    """A rewind and a fresh optimiser give what a new process would from the ticket alone."""
    model = seeded(build)
    start = Snapshot.take(model)
    optimizer = make(model.parameters())
    train(model, optimizer, None)
    masks = prune(model, full_masks(model), remove=0.5)
    start.restore(model, masks)
    optimizer = make(model.parameters())
    assert not optimizer.state
    train(model, optimizer, enforcer_of(model, masks))

    newborn = build_like(build, start)
    train(newborn, make(newborn.parameters()), enforcer_of(newborn, masks))
    for name, value in Snapshot.take(model).items():
        assert torch.equal(value, Snapshot.take(newborn)[name]), name
