"""Wrapped models, models called by name, and the kinds of layers."""

from __future__ import annotations

import subprocess
import sys
from collections import UserDict

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from infcop.errors import ModelError
from infcop.models.calling import call
from infcop.models.graph import trace_graph
from infcop.models.kinds import channel_axis, input_channels, layer_kind
from infcop.models.prunable import find_prunable, get_parameters, prunable_layers
from infcop.models.unwrap import unwrapped
from tests.reference.layer_edges import channels_by_intervention
from tests.unit.models.networks import NETWORKS


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = {
    "compiled": compiled,
    "data parallel": DataParallel,
    "distributed": DistributedDataParallel,
    "distributed, compiled": lambda model: compiled(DistributedDataParallel(model)),
    "compiled, distributed": lambda model: DistributedDataParallel(compiled(model)),
}


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["dense", "siamese"])
def test_a_wrapped_model_is_traced_as_the_one_inside(name, wrapper):
    model, inputs = NETWORKS[name]()
    prunable = find_prunable(model)
    graph = trace_graph(model, inputs, prunable)
    wrapped = WRAPPERS[wrapper](model)
    assert unwrapped(wrapped) is model
    assert find_prunable(wrapped) == prunable
    assert prunable_layers(wrapped, prunable) == prunable_layers(model, prunable)
    assert get_parameters(wrapped, prunable.names).keys() == set(prunable.names)
    assert trace_graph(wrapped, inputs, prunable) == graph


@pytest.mark.parametrize("in_place", [False, True])
def test_parts_that_were_compiled_and_run_before(in_place):
    model, inputs = NETWORKS["unet"]()
    expected = trace_graph(model, inputs, find_prunable(model))
    inner = nn.Sequential(model)
    if in_place:
        model.compile(backend="eager")
        prefix = "0."
    else:
        inner[0] = compiled(model)
        prefix = "0._orig_mod."
    # Now there is code that knows of no hook.
    inner(*inputs)
    graph = trace_graph(inner, inputs, find_prunable(inner))
    assert graph.edges == tuple((prefix + one, prefix + two) for one, two in expected.edges)


def test_the_wrapper_itself_is_not_run():
    # One that joins processes would wait for the others.
    model, inputs = NETWORKS["dense"]()
    wrapped, runs = DataParallel(model), []
    wrapped.register_forward_pre_hook(lambda *args: runs.append(args))
    assert trace_graph(wrapped, inputs, find_prunable(wrapped)).edges
    assert runs == []


def test_a_plain_model_is_its_own():
    model = nn.Linear(2, 2)
    assert unwrapped(model) is model


def test_tracing_does_not_load_the_compiler():
    code = (
        "import sys, torch\n"
        "from infcop.models.graph import trace_graph\n"
        "from infcop.models.prunable import find_prunable\n"
        "model = torch.nn.Linear(2, 2)\n"
        "trace_graph(model, (torch.ones(1, 2),), find_prunable(model))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- calling


def test_keyword_arguments_in_any_mapping():
    model, inputs = NETWORKS["mixed"]()
    expected = call(model, inputs)
    assert torch.equal(call(model, UserDict(inputs)), expected)
    graph = trace_graph(model, UserDict(inputs), find_prunable(model))
    assert graph == trace_graph(model, inputs, find_prunable(model))
    pairs = channels_by_intervention(model, inputs, graph.layers)
    assert {(one[0], other[0]) for one, other in pairs} == set(graph.edges)


def test_positional_arguments():
    layer, x = nn.Linear(2, 1), torch.ones(3, 2)
    assert torch.equal(call(layer, (x,)), layer(x))
    assert torch.equal(call(layer, [x]), layer(x))


def test_anything_else_is_refused():
    layer = nn.Linear(2, 1)
    message = "as a tuple of positional arguments or a mapping of keyword arguments, got Tensor"
    with pytest.raises(ModelError, match=message):
        call(layer, torch.ones(3, 2))
    with pytest.raises(ModelError, match=message):
        trace_graph(layer, torch.ones(3, 2), find_prunable(layer))


def test_a_wrong_name_is_told():
    model, inputs = NETWORKS["mixed"]()
    wrong = {"picture": inputs["image"]}
    message = r"rejected the inputs \(picture=float64 \[5, 1, 6, 6\]\).*TypeError"
    with pytest.raises(ModelError, match=message):
        trace_graph(model, wrong, find_prunable(model))


# --- kinds


@pytest.fixture
def conv1d():
    """A class as transformers defines it, under the name by which it is known."""

    class Conv1D(nn.Module):
        def __init__(self, outputs, inputs):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(inputs, outputs))
            self.bias = nn.Parameter(torch.zeros(outputs))

        def forward(self, x):
            flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
            return flat.view(*x.shape[:-1], -1)

    Conv1D.__module__ = "transformers.pytorch_utils"
    return Conv1D


def test_the_linear_layer_of_transformers(conv1d):
    class Special(conv1d):
        pass

    model = nn.Sequential(Special(5, 3), nn.GELU(), conv1d(2, 5)).double()
    found = find_prunable(model)
    assert found.shapes == {"0.weight": (3, 5), "2.weight": (5, 2)}
    assert found.excluded == {"0.bias": "bias", "2.bias": "bias"}
    inputs = (torch.randn(4, 6, 3, dtype=torch.float64),)
    graph = trace_graph(model, inputs, found)
    assert graph.channels == {("0", "2"): ((0, 5),)}
    assert (layer_kind(model[0]), channel_axis(model[0], 3)) == ("linear", 2)
    assert [input_channels(layer) for layer in (model[0], model[2])] == [3, 5]
    model[0].weight.requires_grad_(False)
    assert find_prunable(model).excluded["0.weight"] == "frozen: requires_grad is False"


def test_another_class_of_that_name_is_none():
    class Conv1D(nn.Module):
        pass

    assert layer_kind(Conv1D()) is None


@pytest.mark.parametrize(
    ("layer", "shape", "axis", "channels"),
    [
        (nn.Linear(3, 2), (5, 4, 3), 2, 3),
        (nn.Conv1d(4, 2, 1), (5, 4, 3), 1, 4),
        (nn.Conv1d(4, 2, 1), (4, 3), 0, 4),
        (nn.ConvTranspose2d(4, 2, 1), (5, 4, 3, 3), 1, 4),
        (nn.Conv3d(4, 2, 1, groups=2), (5, 4, 1, 1, 1), 1, 4),
    ],
    ids=str,
)
def test_channels_of_kinds(layer, shape, axis, channels):
    assert channel_axis(layer, len(shape)) == axis
    assert input_channels(layer) == shape[axis] == channels
    out = layer(torch.zeros(shape))
    assert out.shape[channel_axis(layer, out.ndim)] == 2
