"""Measuring models that do unusual things, and settings that make no sense."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import infcop
from infcop.errors import ConfigError, FlowError, ModelError, NoEffectWarning
from infcop.models.prunable import find_prunable

torch.manual_seed(0)
INPUTS, LABELS = torch.randn(64, 4), torch.randint(0, 3, (64,))


def task(*sizes: int, inputs: Tensor = INPUTS) -> infcop.Classification:
    """Return a task whose probe has batches of these sizes."""
    batches = list(zip(inputs.split(sizes), LABELS.split(sizes), strict=True))
    return infcop.Classification(batches, batches, probe_loader=batches)


class Query(nn.Module):
    """One of its layers gives the same vector for a whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.p, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.query = nn.Parameter(torch.randn(6))

    def forward(self, inputs: Tensor) -> Any:
        return self.c(self.a(inputs) * self.p(self.query))


def test_a_layer_without_examples_in_its_output_is_listed_and_left_out() -> None:
    with pytest.warns(NoEffectWarning, match=r"1 of 2 edges were not measured.*p -> c"):
        found = infcop.measure(Query(), task(32, 32))
    by_ends = {edge.ends: edge for edge in found.edges}
    assert set(by_ends) == {("a", "c"), ("p", "c")}
    assert by_ends["p", "c"].signed is None
    assert by_ends["a", "c"].signed is not None


class Adapted(nn.Linear):
    """A layer that holds others, which run inside of it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Linear(inputs, 2), nn.Linear(2, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        adapted: Tensor = self.up(self.down(inputs))
        return super().forward(inputs) + adapted


def test_layers_inside_of_layers_keep_their_own_units() -> None:
    found = infcop.measure(nn.Sequential(Adapted(4, 8), nn.ReLU(), nn.Linear(8, 3)), task(64))
    assert {layer.name: layer.units for layer in found.layers} == {
        "0": 8,
        "0.down": 2,
        "0.up": 8,
        "2": 3,
    }


class TimeFirst(nn.Module):
    """Swaps examples and time steps before its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Any:
        return self.b(self.a(inputs.transpose(0, 1)).relu()).mean(dim=0)


def test_a_first_batch_of_one_example_does_not_hide_where_examples_are() -> None:
    inputs = torch.randn(64, 7, 2)
    model = TimeFirst()
    first_alone = infcop.measure(model, task(1, 63, inputs=inputs))
    together = infcop.measure(model, task(64, inputs=inputs))
    assert first_alone.edges[0].signed == pytest.approx(together.edges[0].signed, abs=1e-6)
    assert [layer.pooling[0].examples for layer in first_alone.layers] == [1, 1]


def test_batches_of_one_example_each_are_refused_where_examples_can_not_be_told() -> None:
    with pytest.raises(FlowError, match="expected 1 examples in the output of layer 'a'"):
        infcop.measure(TimeFirst(), task(*[1] * 64, inputs=torch.randn(64, 7, 2)))


class Branching(nn.Module):
    """Runs one of its layers for batches of 32 only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Any:
        hidden = self.a(inputs)
        return self.c(self.b(hidden) if len(inputs) == 32 else hidden)


def test_edges_of_a_branch_say_how_few_examples_they_have() -> None:
    with pytest.warns(NoEffectWarning, match=r"fewer samples than the 64 examples.*a -> b \(32\)"):
        found = infcop.measure(Branching(), task(32, 20, 12))
    assert {edge.ends: edge.samples for edge in found.edges} == {("a", "b"): 32, ("b", "c"): 32}


def test_layers_that_share_the_beginning_of_their_memory_are_told_apart() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 3, bias=False))
    memory = torch.randn(12)
    model[0].weight = nn.Parameter(memory.view(3, 4))
    model[1].weight = nn.Parameter(memory[:9].view(3, 3))
    found = infcop.measure(model, task(64))
    assert [layer.parameter for layer in found.layers] == ["0.weight", "1.weight"]


def test_scripted_parts_are_passed_through_and_scripted_models_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        part = torch.jit.script(nn.Sequential(nn.Linear(5, 5), nn.ReLU()))
        whole = torch.jit.script(nn.Linear(4, 3))
    model = nn.Sequential(nn.Linear(4, 5), part, nn.Linear(5, 3))
    found = infcop.measure(model, task(64))
    assert [edge.ends for edge in found.edges] == [("0", "2")]
    with pytest.raises(ModelError, match="got a scripted one"):
        find_prunable(whole)


class Mapped(nn.Module):
    """Runs a layer inside of vmap, where the examples can't be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Any:
        return self.c(self.b(torch.vmap(self.a)(inputs)))


def test_a_layer_inside_of_vmap_does_not_stop_the_measuring() -> None:
    found = infcop.measure(Mapped(), task(64))
    assert [edge.ends for edge in found.edges] == [("b", "c")]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"edges": None}, FlowError, "expected edges to be 'graph'"),
        ({"edges": [1, 2]}, FlowError, "expected edges to be 'graph'"),
        ({"seed": "a"}, ConfigError, "whole numbers, got seed='a'"),
        ({"seed": 1.5}, ConfigError, "whole numbers, got seed=1.5"),
        ({"examples": "10"}, ConfigError, "examples='10'"),
        ({"examples": 1}, ConfigError, "at least 2 examples"),
    ],
)
def test_settings_that_make_no_sense(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        infcop.measure(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), task(64), **settings)
