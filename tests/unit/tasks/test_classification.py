from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from infcop.errors import ConfigError, DataError
from infcop.tasks.base import Loader, Metrics
from infcop.tasks.classification import Classification

BATCHES = [(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))]


class Logits(nn.Module):
    """Returns its inputs: tests then choose the logits themselves."""

    def forward(self, inputs):
        return inputs


def drawn(examples: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(examples, classes, generator=generator, dtype=torch.float64) * 3
    return logits, torch.randint(classes, (examples,), generator=generator)


def slow_losses(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> list[float]:
    """Return (1 - s) CE(label) + s mean_c CE(c) of each example, by hand."""
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        entropies = [log_sum - value for value in row]
        mean = sum(entropies) / len(entropies)
        losses.append((1 - smoothing) * entropies[label] + smoothing * mean)
    return losses


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 9),
    st.integers(2, 6),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.1, 0.5, 0.999]),
)
def test_the_loss_is_the_formula(examples, classes, seed, smoothing) -> None:
    logits, labels = drawn(examples, classes, seed)
    task = Classification(BATCHES, BATCHES, label_smoothing=smoothing)
    expected = sum(slow_losses(logits, labels, smoothing)) / examples
    loss = task.training_step(Logits(), (logits, labels))
    assert loss.shape == ()
    assert float(loss) == pytest.approx(expected, rel=1e-10)


def test_the_loss_carries_the_gradient() -> None:
    logits, labels = drawn(4, 3, 0)
    logits.requires_grad_()
    Classification(BATCHES, BATCHES).training_step(Logits(), (logits, labels)).backward()
    one_hot = torch.eye(3, dtype=torch.float64)[labels]
    assert torch.allclose(logits.grad, (logits.detach().softmax(1) - one_hot) / 4)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(2, 6), st.integers(0, 99), st.integers(1, 20))
def test_metrics_are_those_by_hand_however_the_examples_are_split(n, classes, seed, size) -> None:
    logits, labels = drawn(n, classes, seed)
    logits = logits.float()
    loader = list(zip(logits.split(size), labels.split(size), strict=True))
    metrics = Classification(BATCHES, BATCHES, label_smoothing=0.3).evaluate(Logits(), loader)
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True))
    assert metrics.values["accuracy"] == right / n, "exact, however the examples are split"
    expected = sum(slow_losses(logits.double(), labels)) / n
    assert metrics.values["loss"] == pytest.approx(expected, rel=1e-5), "without smoothing"
    assert metrics.examples == n
    assert metrics.main_value == metrics.values["accuracy"]
    assert metrics.higher_is_better


def test_evaluating_keeps_no_graph_and_trains_nothing() -> None:
    model = nn.Linear(3, 3)
    metrics = Classification(BATCHES, BATCHES).evaluate(model, BATCHES)
    assert all(isinstance(value, float) for value in metrics.values.values())
    assert model.weight.grad is None
    assert torch.is_grad_enabled()


def test_low_precision_logits_are_judged_in_float32() -> None:
    logits, labels = drawn(7, 4, 0)
    low = logits.bfloat16()
    metrics = Classification(BATCHES, BATCHES).evaluate(Logits(), [(low, labels)])
    exact = sum(slow_losses(low.double(), labels)) / 7
    assert metrics.values["loss"] == pytest.approx(exact, rel=1e-5)


def test_the_model_is_called_with_the_inputs_alone() -> None:
    task = Classification(BATCHES, BATCHES)
    assert task.inputs(BATCHES[0]) == (BATCHES[0][0],)
    assert task.batch_size(BATCHES[0]) == 4


@pytest.mark.parametrize("label", [3, 77, -1])
def test_a_label_out_of_range_is_named(label) -> None:
    task = Classification(BATCHES, BATCHES)
    batch = (torch.zeros(2, 3), torch.tensor([1, label]))
    low, high = min(1, label), max(1, label)
    message = rf"expected labels in \[0, 3\), the classes of the model, got {low} to {high}; "
    with pytest.raises(DataError, match=message):
        task.training_step(Logits(), batch)
    with pytest.raises(DataError, match=message):
        task.evaluate(Logits(), [batch])


@pytest.mark.parametrize("smoothing", [-0.1, 1, 1.5, math.nan])
def test_smoothing_out_of_range_is_refused(smoothing) -> None:
    with pytest.raises(ConfigError, match=r"Classification: expected label_smoothing in \[0, 1\)"):
        Classification(BATCHES, BATCHES, label_smoothing=smoothing)


NAMES = ["train_loader", "held_out_loader", "test_loader", "probe_loader"]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_loader_is_refused_by_name(name) -> None:
    loaders = {"train_loader": BATCHES, "held_out_loader": BATCHES, name: []}
    message = f"Classification: {name} is empty; it must give at least one batch"
    with pytest.raises(DataError, match=message):
        Classification(**loaders)
    dataset = TensorDataset(torch.zeros(3, 2))
    loaders[name] = DataLoader(dataset, batch_size=8, drop_last=True)
    with pytest.raises(DataError, match=message):
        Classification(**loaders)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loader", [iter(BATCHES), 3, (batch for batch in BATCHES)])
def test_a_loader_without_a_length_is_refused_by_name(name, loader) -> None:
    loaders = {"train_loader": BATCHES, "held_out_loader": BATCHES, name: loader}
    message = f"Classification: expected {name} to be iterable with a length, got "
    with pytest.raises(DataError, match=message):
        Classification(**loaders)


def test_optional_loaders_may_be_left_out() -> None:
    task = Classification(BATCHES, BATCHES)
    assert task.test_loader is None
    assert task.probe_loader is None


@pytest.mark.parametrize(
    ("loader", "fits"),
    [
        (BATCHES, True),
        (DataLoader(TensorDataset(torch.zeros(3))), True),
        (iter([]), False),
        (3, False),
    ],
)
def test_a_loader_is_iterable_and_has_a_length(loader, fits) -> None:
    assert isinstance(loader, Loader) == fits


def test_the_main_metric_is_one_of_the_values() -> None:
    metrics = Metrics({"loss": 0.5, "f1": 0.7}, main="loss", higher_is_better=False, examples=3)
    assert metrics.main_value == 0.5
    with pytest.raises(AttributeError):
        metrics.main = "f1"
