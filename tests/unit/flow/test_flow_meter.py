from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from infcop.core.mask import Masks
from infcop.errors import FlowError
from infcop.flow.meter import FlowMeter
from infcop.tasks.classification import Classification
from tests.reference.flow import (
    slow_correlation,
    slow_gradient_flow,
    slow_pool,
    slow_signed_mean,
)

EDGES = [("0", "4"), ("4", "8")]
WEIGHTS = ["0.weight", "4.weight", "8.weight"]
BOTH = ["information", "gradient"]


def small_network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    model[1].running_mean.normal_()
    model[3].eval()  # Flags that differ must come back as they were.
    return model.double()


def examples(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 1, 7, 7, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (count,), generator=generator)


def batched(data, *sizes):
    inputs, labels = data
    return list(zip(inputs.split(list(sizes)), labels.split(list(sizes)), strict=True))


BATCHES = batched(examples(), 8, 11, 1)
TASK = Classification(BATCHES, BATCHES)


def meter(model, kinds=BOTH, gradient="full", edges=EDGES, parameters=WEIGHTS):
    return FlowMeter(model, edges=edges, parameters=parameters, kinds=kinds, gradient=gradient)


def half_masks(model):
    generator = torch.Generator().manual_seed(3)
    parameters = dict(model.named_parameters())
    return Masks(
        {name: torch.rand(parameters[name].shape, generator=generator) < 0.5 for name in WEIGHTS}
    )


def layer_outputs(model, inputs):
    """Outputs of the tapped layers, from prefixes of a copy of the model."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return {
            name: slow_pool(model[: int(name) + 1](inputs).numpy(), 1) for name in ("0", "4", "8")
        }


def snapshot(model):
    """Everything that a reading must leave alone, as comparable values."""
    return {
        "tensors": {name: value.tolist() for name, value in model.state_dict().items()},
        "identities": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "generators": (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        ),
        "grad_mode": torch.is_grad_enabled(),
    }


@pytest.fixture
def model():
    return small_network()


def test_information_equals_the_slow_twin(model):
    reading = meter(model).read(TASK, BATCHES)
    outputs = layer_outputs(model, examples()[0])
    pairs = [(outputs[p], outputs[c]) for p, c in EDGES]
    signed = [slow_signed_mean(*pair) for pair in pairs]
    absolute = [np.abs(slow_correlation(*pair)).mean() for pair in pairs]
    assert reading.flows["information.signed"] == pytest.approx(signed, abs=1e-10)
    assert reading.flows["information.absolute"] == pytest.approx(absolute, abs=1e-10)
    assert reading.dead_units == {"0": 0, "4": 0, "8": 0}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gradient", ["full", "per-batch"])
def test_gradient_equals_the_slow_twin(model, gradient, masked):
    masks = half_masks(model) if masked else None
    reading = meter(model, gradient=gradient).read(TASK, BATCHES, masks)
    norms, means = slow_gradient_flow(model, TASK, BATCHES, WEIGHTS, masks)[gradient]
    assert reading.flows["gradient.norm"] == pytest.approx(norms, abs=1e-10)
    assert reading.flows["gradient.mean"] == pytest.approx(means, abs=1e-10)


@pytest.mark.parametrize("sizes", [(20,), (1,) * 20, (19, 1), (3, 3, 14)])
def test_split_does_not_matter_but_for_per_batch(model, sizes):
    other = batched(examples(), *sizes)
    expected, got = meter(model).read(TASK, BATCHES), meter(model).read(TASK, other)
    for name, vector in expected.flows.items():
        assert got.flows[name] == pytest.approx(vector, abs=1e-10)
    split = meter(model, gradient="per-batch")
    assert split.read(TASK, other).flows["gradient.norm"] != pytest.approx(
        split.read(TASK, BATCHES).flows["gradient.norm"], rel=1e-3
    )


def test_order_of_examples_does_not_matter(model):
    inputs, labels = examples()
    turned = batched((inputs.flip(0), labels.flip(0)), 8, 11, 1)
    expected, got = meter(model).read(TASK, BATCHES), meter(model).read(TASK, turned)
    for name, vector in expected.flows.items():
        assert got.flows[name] == pytest.approx(vector, abs=1e-10)


@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH])
def test_counts_examples_by_what_they_cost(model, kinds):
    reading = meter(model, kinds).read(TASK, BATCHES)
    backward = 20 if "gradient" in kinds else 0
    assert reading.examples == 20
    assert (reading.forward_examples, reading.gradient_examples) == (20 - backward, backward)
    assert {name.split(".")[0] for name in reading.flows} == set(kinds)
    assert bool(reading.dead_units) == ("information" in kinds)


def test_one_forward_serves_both_kinds(model):
    calls = []
    model[0].register_forward_pre_hook(lambda *_: calls.append(1))
    both = meter(model).read(TASK, BATCHES)
    assert len(calls) == len(BATCHES)
    for kind in BOTH:
        for name, vector in meter(model, [kind]).read(TASK, BATCHES).flows.items():
            assert both.flows[name] == vector


def test_stale_gradients_are_not_what_is_read(model):
    model.train()
    TASK.training_step(model, BATCHES[0]).backward()
    other = batched(examples(seed=5), 8, 11, 1)
    one, two = meter(model).read(TASK, BATCHES), meter(model).read(TASK, other)
    assert one.flows["gradient.norm"] != pytest.approx(two.flows["gradient.norm"], rel=1e-3)
    model.zero_grad()
    assert meter(model).read(TASK, BATCHES) == one


@pytest.mark.parametrize("gradient", ["full", "per-batch"])
@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH])
def test_reading_leaves_no_trace_and_repeats_exactly(model, kinds, gradient):
    model.train()
    TASK.training_step(model, BATCHES[0]).backward()
    before = snapshot(model)
    first = meter(model, kinds, gradient).read(TASK, BATCHES, half_masks(model))
    assert snapshot(model) == before
    assert meter(model, kinds, gradient).read(TASK, BATCHES, half_masks(model)) == first


@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH])
def test_loader_that_raises_midway_leaves_no_trace(model, kinds):
    def broken():
        yield BATCHES[0]
        torch.rand(3), random.random(), np.random.rand()
        raise OSError("disk gone")

    model.train()
    TASK.training_step(model, BATCHES[0]).backward()
    before = snapshot(model)
    with pytest.raises(OSError, match="disk gone"):
        meter(model, kinds).read(TASK, broken())
    assert snapshot(model) == before


def test_shuffling_loader_draws_nothing_from_the_callers_generator(model):
    loader = DataLoader(TensorDataset(*examples()), batch_size=6, shuffle=True)
    before = snapshot(model)
    first = meter(model).read(TASK, loader)
    assert snapshot(model) == before
    assert meter(model).read(TASK, loader) == first


def test_dead_units_are_counted(model):
    with torch.no_grad():
        model[4].weight[1:3] = 0
    reading = meter(model).read(TASK, BATCHES)
    assert reading.dead_units == {"0": 0, "4": 2, "8": 0}
    assert all(map(math.isfinite, reading.flows["information.signed"]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_activations_are_read_not_raised(model, bad):
    with torch.no_grad():
        model[8].bias[0] = bad
    reading = meter(model).read(TASK, BATCHES)
    signed = reading.flows["information.signed"]
    assert [math.isfinite(entry) for entry in signed] == [True, False]
    assert not any(map(math.isfinite, reading.flows["gradient.norm"]))


def test_unused_parameter_counts_zero(model):
    model.register_parameter("spare", nn.Parameter(torch.ones(2, 2).double()))
    reading = meter(model, ["gradient"], parameters=["0.weight", "spare"]).read(TASK, BATCHES)
    assert reading.flows["gradient.norm"][0] > 0
    assert reading.flows["gradient.norm"][1] == reading.flows["gradient.mean"][1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_in_low_precision_close_to_float64(model, dtype):
    exact = meter(model).read(TASK, BATCHES)
    low = copy.deepcopy(model).to(dtype)
    batches = [(inputs.to(dtype), labels) for inputs, labels in BATCHES]
    got = meter(low).read(TASK, batches)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    for name, vector in exact.flows.items():
        assert got.flows[name] == pytest.approx(vector, abs=tolerance)


def test_runs_under_the_callers_autocast_also_twice_in_one_context(model):
    single = copy.deepcopy(model).float()
    batches = [(inputs.float(), labels) for inputs, labels in BATCHES]
    plain = meter(single).read(TASK, batches)
    with torch.autocast("cpu", torch.bfloat16):
        information = meter(single, ["information"]).read(TASK, batches)
        both = meter(single).read(TASK, batches)
    assert information.flows["information.signed"] == both.flows["information.signed"]
    assert all(norm > 0 for norm in both.flows["gradient.norm"])
    for name, vector in plain.flows.items():
        assert both.flows[name] == pytest.approx(vector, abs=0.1)
        assert both.flows[name] != vector


def test_reading_works_where_the_caller_has_switched_gradients_off(model):
    expected = meter(model).read(TASK, BATCHES)
    with torch.no_grad():
        assert meter(model).read(TASK, BATCHES) == expected
        assert not torch.is_grad_enabled()


class Regression:
    """Linear least squares: ``mean over n of (w x - y)^2``."""

    train_loader = held_out_loader = ()
    test_loader = probe_loader = None

    def training_step(self, model, batch):
        inputs, targets = batch
        return ((model(inputs) - targets) ** 2).mean()

    def evaluate(self, model, loader):
        raise NotImplementedError

    def inputs(self, batch):
        return (batch[0],)

    def batch_size(self, batch):
        return len(batch[0])


def test_linear_regression_has_the_closed_form():
    layer = nn.Linear(1, 1, bias=False)
    inputs, targets = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[1.0], [0.0], [3.0]])
    batches = [(inputs[:2], targets[:2]), (inputs[2:], targets[2:])]
    weight = layer.weight.item()
    expected = abs(2 * (6 * weight - (1 - 3)) / 3)  # 2 (w sum x^2 - sum x y) / n
    reading = meter(layer, ["gradient"], parameters=["weight"]).read(Regression(), batches)
    assert reading.flows["gradient.norm"] == pytest.approx((expected,), rel=1e-6)


def test_batches_without_examples_are_skipped(model):
    empty = (torch.zeros(0, 1, 7, 7).double(), torch.zeros(0, dtype=torch.int64))
    padded = [empty, *BATCHES, empty]
    per_batch = meter(model, gradient="per-batch")
    assert per_batch.read(TASK, padded) == per_batch.read(TASK, BATCHES)


@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH])
def test_empty_probe_is_refused(model, kinds):
    exhausted = iter(BATCHES)
    list(exhausted)
    for batches in ([], exhausted):
        with pytest.raises(FlowError, match="at least one batch with an example"):
            meter(model, kinds).read(TASK, batches)


def test_one_example_is_refused_for_information_only(model):
    one = batched(examples(1), 1)
    assert meter(model, ["gradient"]).read(TASK, one).examples == 1
    with pytest.raises(FlowError, match="at least two examples, got 1"):
        meter(model).read(TASK, one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": []}, "expected kinds to hold"),
        ({"kinds": ["informations"]}, "expected kinds to hold"),
        ({"gradient": "ful"}, "did you mean 'full'"),
        ({"edges": []}, "needs an edge between two prunable layers"),
        ({"edges": [("0", "44")]}, "no layer '44'"),
        ({"parameters": []}, "needs a prunable parameter"),
        ({"parameters": ["0.wieght"]}, "did you mean '0.weight'"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(model, arguments, message):
    with pytest.raises(FlowError, match=message):
        meter(model, **arguments)


def test_frozen_parameter_is_refused(model):
    model[4].weight.requires_grad_(False)
    with pytest.raises(FlowError, match=r"'4.weight' to be trainable, but it is frozen"):
        meter(model)
    assert meter(model, ["information"]).read(TASK, BATCHES).examples == 20


def test_what_is_not_measured_is_not_asked_for(model):
    information = meter(model, ["information"], parameters=[])
    gradient = meter(model, ["gradient"], edges=[])
    assert information.parameters == ()
    assert gradient.edges == ()
    assert gradient.parameters == tuple(WEIGHTS)


def test_missing_mask_is_refused_and_leaves_no_trace(model):
    masks = Masks({"0.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)})
    before = snapshot(model)
    for gradient in ("full", "per-batch"):
        with pytest.raises(FlowError, match="mask of shape"):
            meter(model, gradient=gradient).read(TASK, BATCHES, masks)
    assert snapshot(model) == before
