"""What pruning tools are known to get wrong, asked of whole searches."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import infcop
from infcop.errors import TrainingError
from infcop.methods import METHODS
from tests.end_to_end.conftest import toy_batches

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-1},
}

MOMENTS = {"sgd": ["momentum_buffer"], "adamw": ["exp_avg", "exp_avg_sq"]}

ROUNDS: dict[str, Any] = {
    "density": 0.512,
    "method": {"name": "lth", "scope": "global"},
    "dense": {"passes": 2},
    "levels": {"max_passes": 2},
    "final": {"passes": 0},
    "execution": {"device": "cpu", "checkpoint_seconds": 0, "threads": 1},
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 36, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


class Tied(nn.Module):
    """A token model whose output head shares the weight of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.mix(self.embedding(tokens).mean(dim=1))))
        return logits


def run(folder: Path, model: nn.Module, batches: list[Any], **changes: Any) -> infcop.Result:
    task = infcop.Classification(batches, batches)
    return infcop.search(model, task, run_dir=folder, **{**ROUNDS, **changes})


@pytest.fixture(params=OPTIMIZERS)
def result(request: pytest.FixtureRequest, tmp_path: Path) -> infcop.Result:
    return run(tmp_path, net(), toy_batches(), training=OPTIMIZERS[request.param])


def test_three_rounds_of_20_percent_reach_what_they_promise(result: infcop.Result) -> None:
    total = result.outcome.prunable
    removed = [1 - level.kept / total for level in result.record.levels]
    assert removed == pytest.approx([0.2, 0.36, 0.488], abs=2 / total)


class StopsWorking(infcop.Classification):
    """A task that fails after so many training steps, as a disk or a sensor may."""

    steps_left = 33

    def training_step(self, model: nn.Module, batch: Any) -> torch.Tensor:
        if torch.is_grad_enabled():  # not when the task is tried out
            self.steps_left -= 1
            if self.steps_left < 0:
                raise OSError("gone")
        return super().training_step(model, batch)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruned_weights_and_their_moments_stay_zero(tmp_path: Path, optimizer: str) -> None:
    # Six batches a pass, two passes a phase: the last checkpoint lies in the middle of level 2.
    task = StopsWorking(toy_batches(), toy_batches())
    with pytest.raises(TrainingError, match="gone"):
        infcop.search(net(), task, run_dir=tmp_path, **ROUNDS, training=OPTIMIZERS[optimizer])
    state = load_file(tmp_path / "checkpoints" / "latest.safetensors")
    names = [name for name, _ in net().named_parameters()]
    pruned = 0
    for index, name in enumerate(names):
        mask = state.get(f"mask.{name}")
        if mask is None:
            continue
        pruned += int((~mask).sum())
        moments = [f"optimizer.{index}.{key}" for key in MOMENTS[optimizer]]
        for key in (f"model.{name}", *moments):
            assert bool((state[key][~mask] == 0).all()), key
            assert bool((state[key][mask] != 0).any()), key
    assert pruned > 0


def test_keys_and_size_are_those_of_the_plain_model(result: infcop.Result) -> None:
    plain = net()
    plain.load_state_dict(result.model.state_dict(), strict=True)
    ours = sum(t.numel() for t in result.model.state_dict().values())
    assert ours == sum(t.numel() for t in plain.state_dict().values())


def test_the_model_copies_and_pickles_after_a_forward_pass(result: infcop.Result) -> None:
    inputs = torch.randn(2, 1, 8, 8)
    expected = result.model(inputs)
    assert torch.equal(copy.deepcopy(result.model)(inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(result.model))(inputs), expected)


def test_biases_and_batch_norm_are_not_pruned(result: infcop.Result) -> None:
    assert set(result.masks) == {"0.weight", "4.weight", "6.weight"}
    excluded = result.record.model.excluded
    assert set(excluded) == {"0.bias", "1.weight", "1.bias", "4.bias", "6.bias"}
    assert all(excluded.values())


def test_a_tied_head_is_sparse_in_the_embedding_too(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 11, (64, 3), generator=generator)
    batches = [(tokens[i : i + 16], tokens[i : i + 16, 0]) for i in range(0, 64, 16)]
    result = run(tmp_path, Tied(), batches, training=OPTIMIZERS["sgd"])
    model = result.model
    assert isinstance(model, Tied)
    assert model.head.weight is model.embedding.weight
    assert set(result.masks) == {"mix.weight", "head.weight"}
    zeros = int((model.embedding.weight == 0).sum())
    assert zeros == int((~result.masks["head.weight"]).sum()) > 0


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute by hand with as many threads as the search does: sums round alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("rewind", ["initialisation", "warm-up", "none"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_level_is_plain_masked_training_from_the_ticket(
    tmp_path: Path, optimizer: str, rewind: str
) -> None:
    """Neither momentum nor anything else of the network before survives into a level."""
    recipe = OPTIMIZERS[optimizer]
    result = run(
        tmp_path,
        net(),
        toy_batches(),
        density=0.8,
        training=recipe,
        method={"name": "lth", "scope": "global", "rewind": {"to": rewind}},
    )
    store = result._store
    model = net()
    model.load_state_dict(store.read_tensors(store.values)[0])
    masks = store.read_tensors(store.masks)[0]
    plain = plain_optimizer(model, recipe)
    for _ in range(2):
        for inputs, labels in toy_batches():
            plain.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            for name, parameter in model.named_parameters():
                if name in masks and parameter.grad is not None:
                    parameter.grad *= masks[name]
            plain.step()
            with torch.no_grad():
                for name, mask in masks.items():
                    model.get_parameter(name).mul_(mask)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, result.model.state_dict()[name]), name


def plain_optimizer(model: nn.Module, recipe: dict[str, Any]) -> torch.optim.Optimizer:
    if recipe["optimizer"] == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=recipe["lr"],
            momentum=recipe["momentum"],
            weight_decay=recipe["weight_decay"],
        )
    return torch.optim.AdamW(
        model.parameters(), lr=recipe["lr"], weight_decay=recipe["weight_decay"]
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_promises(tmp_path: Path, method: str) -> None:
    # Long enough for the mask of early-bird to settle, and for entries to be exchanged.
    changes = {"method": method, "dense": {"passes": 6}, "final": {"passes": 2}}
    result = run(tmp_path, net(), toy_batches(), density=0.7, **changes)
    record = result.record
    assert result.outcome.kept == round(0.7 * result.outcome.prunable)
    kept = [level.kept for level in record.levels]
    assert kept == sorted(kept, reverse=True)
    for level in record.levels:
        assert sum(level.kept_per_layer.values()) == level.kept
        assert level.stopped_by is not None
    assert infcop.load_record(tmp_path) == record
