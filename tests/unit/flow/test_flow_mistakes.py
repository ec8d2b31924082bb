"""Misuse and odd models: an error says what to change, or the numbers are right all the same."""

from __future__ import annotations

import copy
import gc
import io
import math
import re
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from infcop.core.edges import Edges, Layout
from infcop.errors import FlowError
from infcop.flow.information import correlation
from infcop.flow.meter import FlowMeter
from infcop.flow.sampling import Precision
from infcop.tasks.classification import Classification
from tests.reference.flow import slow_correlation, slow_pool

EDGES = [("0", "2"), ("2", "4")]
WEIGHTS = ["0.weight", "2.weight", "4.weight"]
BOTH = ["information", "gradient"]
INFORMATION = ["information.signed", "information.absolute"]
GRADIENT = ["gradient.norm", "gradient.mean"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)
    ).double()


def batches(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(size, 6, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for size in sizes
    ]


BATCHES = batches(16, 16, 8)
TASK = Classification(BATCHES, BATCHES)


def meter(model, kinds=BOTH, **options):
    return FlowMeter(model, **{"edges": EDGES, "parameters": WEIGHTS, "kinds": kinds} | options)


def step(model, batch, watch=None, examples=None):
    """A training step that moves nothing, so that its gradients are those of a probe."""
    model.zero_grad()
    TASK.training_step(model, batch).backward()
    if watch is not None:
        watch.after_backward(len(batch[1]) if examples is None else examples)


# -- what is measured is given once --------------------------------------------------------------


def test_an_edge_given_twice_is_refused():
    with pytest.raises(FlowError, match=r"\('0', '2'\) is given 2 times"):
        meter(network(), edges=[*EDGES, EDGES[0]])


def test_a_parameter_given_twice_is_refused():
    with pytest.raises(FlowError, match=r"parameter '2\.weight' is given twice"):
        meter(network(), parameters=[*WEIGHTS, "2.weight"])


def test_names_of_layers_are_no_edges():
    with pytest.raises(FlowError, match=r"expected pairs of layer names .* got '0'"):
        meter(network(), edges=["0", "2"])


# -- too few examples ----------------------------------------------------------------------------


class Halved(nn.Module):
    """Runs its last layer in batches of one example only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.rare = nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, inputs):
        hidden = self.two(self.one(inputs))
        return self.rare(hidden) if len(inputs) == 1 else hidden


def test_one_example_is_refused_where_it_is_asked_for_and_said_of_every_edge_otherwise():
    model, one = network(), batches(1)
    with pytest.raises(FlowError, match="at least two examples"):
        meter(model, ["information"]).read(TASK, one)
    reading = meter(model, ["information"], standard_errors=True).read(TASK, one, strict=False)
    assert set(reading.flows) == set(INFORMATION)
    for vector in reading.flows.values():
        assert len(vector) == 2
        assert all(math.isnan(value) for value in vector)
    assert reading.non_finite == {"2": None, "4": None}
    assert (reading.examples, reading.forward_examples) == (1, 1)


def test_one_example_of_training_makes_a_reading_that_decides_nothing():
    model = network()
    with meter(model).watch() as watch:
        step(model, batches(1)[0], watch)
    reading = watch.reading(strict=False)
    assert set(reading.flows) == {*INFORMATION, *GRADIENT}
    assert [len(reading.flows[name]) for name in (*INFORMATION, *GRADIENT)] == [2, 2, 3, 3]
    assert all(math.isnan(value) for name in INFORMATION for value in reading.flows[name])
    # A gradient needs no second example.
    norms = [float(model.get_parameter(name).grad.norm()) for name in WEIGHTS]
    assert reading.flows["gradient.norm"] == pytest.approx(norms)
    assert set(reading.non_finite) == {"2", "4"}
    assert (reading.source, reading.examples, reading.forward_examples) == ("training", 1, 0)
    with pytest.raises(FlowError, match="at least two examples"):
        watch.reading()


def test_only_the_layers_that_saw_too_few_are_named():
    data = batches(8, 1)
    flow = FlowMeter(
        Halved().double(), edges=[("one", "two"), ("two", "rare")], kinds=["information"]
    )
    assert list(flow.read(TASK, data, strict=False).non_finite) == ["rare"]
    with pytest.raises(FlowError, match="at least two examples"):
        flow.read(TASK, data)


# -- overflow ------------------------------------------------------------------------------------


def test_sums_that_overflow_are_not_blamed_on_another_process():
    """Every activation is finite; their squares are not."""
    model = network()
    with torch.no_grad():
        for index in (0, 2, 4):
            model[index].weight.mul_(1e60 if index else 1e160)
    with pytest.raises(FlowError, match="sums of finite numbers overflow") as caught:
        meter(model, ["information"]).read(TASK, BATCHES)
    assert "process" not in str(caught.value)


# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [["gradient"], BOTH])
def test_gradients_that_were_zeroed_are_missed(kinds):
    model = network()
    with meter(model, kinds).watch() as watch:
        TASK.training_step(model, BATCHES[0]).backward()
        model.zero_grad()
        with pytest.raises(FlowError, match=r"got none in any parameter.* before zero_grad"):
            watch.after_backward(16)


@pytest.mark.parametrize("kinds", [["gradient"], BOTH])
def test_a_copy_of_the_model_that_is_trained_is_noticed(kinds):
    model = network()
    with (
        meter(copy.deepcopy(model), kinds).watch() as watch,
        pytest.raises(FlowError, match="the model that is trained rather than a copy"),
    ):
        step(model, BATCHES[0], watch)


def test_a_parameter_without_a_gradient_beside_one_with_counts_as_zero():
    model = network()
    with meter(model, ["gradient"]).watch() as watch:
        for batch in BATCHES:
            model.zero_grad()
            TASK.training_step(model, batch).backward()
            model[0].weight.grad = None
            watch.after_backward(len(batch[1]))
    norms = watch.reading().flows["gradient.norm"]
    assert norms[0] == 0
    assert min(norms[1:]) > 0


@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH])
def test_a_watch_that_has_ended_takes_in_nothing_more(kinds):
    model = network()
    with meter(model, kinds).watch() as watch:
        step(model, BATCHES[0], watch)
    reading = watch.reading()
    with pytest.raises(FlowError, match="after_backward was called when the context had ended"):
        step(model, BATCHES[1], watch)
    assert watch.reading() == reading
    assert reading.examples == 16


def test_a_watch_that_ended_in_an_exception_has_ended_too():
    model, kept = network(), []

    def fail():
        with meter(model).watch() as watch:
            kept.append(watch)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(FlowError, match="the context had ended"):
        step(model, BATCHES[0], kept[0])


@pytest.mark.parametrize("examples", [0, -12])
def test_a_step_has_at_least_one_example(examples):
    model = network()
    with meter(model).watch() as watch:
        step(model, BATCHES[0], watch)
        with pytest.raises(FlowError, match=f"at least one example per step, got {examples}"):
            step(model, BATCHES[1], watch, examples)
    assert watch.reading().examples == 16


def test_gradient_accumulation_with_one_call_per_optimiser_step():
    """At a learning rate of 0 the sum over all steps is the probe's gradient."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    micro = batches(8, 8, 8, 4, 4, 2)
    with meter(model).watch() as watch:
        for group in (micro[:2], micro[2:3], micro[3:]):
            optimizer.zero_grad()
            examples = sum(len(batch[1]) for batch in group)
            for batch in group:
                (TASK.training_step(model, batch) * len(batch[1]) / examples).backward()
            watch.after_backward(examples)
            optimizer.step()
    expected = meter(model).read(TASK, micro)
    reading = watch.reading()
    assert reading.examples == expected.examples == 34
    for name, vector in expected.flows.items():
        assert reading.flows[name] == pytest.approx(vector, abs=1e-12), name


# -- copies that are made while it is watched ----------------------------------------------------


def test_copies_made_while_watching_are_not_listened_to():
    """An average of the weights or a best state so far is copied in the middle of training."""
    model, twin = network(), network()
    with meter(twin).watch() as alone:
        for batch in BATCHES:
            step(twin, batch, alone)
    with meter(model).watch() as watch:
        others = [copy.deepcopy(model)]
        others += [copy.deepcopy(others[0])]
        for batch in BATCHES:
            TASK.training_step(others[0].train(), (batch[0] * 5, batch[1])).backward()
            step(model, batch, watch)
            others[1].eval()(batch[0] * 5)
    assert watch.reading() == alone.reading()


def test_copies_made_while_watching_work_and_hold_nothing():
    model = network()
    with meter(model).watch() as watch:
        step(model, BATCHES[0], watch)
        other = copy.deepcopy(model)
        for saved in (model, other):
            torch.save(saved, io.BytesIO())
    assert torch.equal(other(BATCHES[0][0]), model(BATCHES[0][0]))
    again = copy.deepcopy(other)
    assert torch.equal(again(BATCHES[0][0]), model(BATCHES[0][0]))
    # They can be measured like any model, and a copy of theirs is saved without error.
    assert meter(other).read(TASK, BATCHES) == meter(model).read(TASK, BATCHES)
    taps = weakref.ref(watch._taps)
    del watch
    gc.collect()
    assert taps() is None, "a copy holds on to what was watched"


# -- odd models ----------------------------------------------------------------------------------


class Windows(nn.Module):
    """Folds two halves of the input into the batch before its layers see it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, inputs):
        folded = inputs.reshape(-1, 3)
        return self.two(self.one(folded)).reshape(len(inputs), -1).sum(1, keepdim=True)


@pytest.mark.parametrize("kinds", [["information"], BOTH])
def test_inputs_of_another_size_than_the_traced_are_refused(kinds):
    layouts = {(name, 0): Layout(fold=2) for name in ("one", "two")}
    edges = Edges((("one", "two"),), layouts=layouts)

    class Squares(Classification):
        def training_step(self, model, batch):
            return model(batch[0]).square().mean()

    task = Squares(BATCHES, BATCHES)
    flow = FlowMeter(Windows().double(), edges=edges, parameters=["one.weight"], kinds=kinds)
    assert flow.read(task, BATCHES).examples == 40
    wide = [(torch.randn(16, 12, dtype=torch.float64), torch.zeros(16, dtype=torch.int64))]
    message = "expected 16 examples in the output of layer 'one', as many as in the batch, got 32"
    with pytest.raises(FlowError, match=re.escape(message)):
        flow.read(task, wide)


def scripted_part():
    """A scripted part holds buffers, but none of the layers that are listened to."""
    torch.manual_seed(0)
    middle = torch.jit.script(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(5)))
    return nn.Sequential(nn.Linear(6, 5), middle, nn.Linear(5, 3)).double()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH])
def test_a_model_with_a_scripted_part_is_read_and_left_alone(kinds):
    model = scripted_part()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flow = FlowMeter(model, edges=[("0", "2")], parameters=["0.weight"], kinds=kinds)
    first = flow.read(TASK, BATCHES)
    assert flow.read(TASK, BATCHES) == first
    plain = nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.ReLU(), nn.BatchNorm1d(5)))
    plain = nn.Sequential(*plain, nn.Linear(5, 3)).double()
    plain.load_state_dict(before)
    expected = FlowMeter(plain, edges=[("0", "2")], parameters=["0.weight"], kinds=kinds)
    for name, vector in expected.read(TASK, BATCHES).flows.items():
        assert first.flows[name] == pytest.approx(vector, abs=1e-12)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_exception_of_a_model_with_a_scripted_part_is_not_hidden():
    def loader():
        yield BATCHES[0]
        raise OSError("disk gone")

    flow = FlowMeter(scripted_part(), edges=[("0", "2")], kinds=["information"])
    with pytest.raises(OSError, match="disk gone"):
        flow.read(TASK, loader())


# -- large means ---------------------------------------------------------------------------------


class Beside(nn.Module):
    """Two convolutions of the same images, whose outputs have a given mean and spread."""

    def __init__(self, mean, gain):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 5, 3)
        with torch.no_grad():
            for layer in (self.one, self.two):
                layer.weight.mul_(gain)
                layer.bias.fill_(mean)

    def forward(self, inputs):
        return self.one(inputs).mean((2, 3))[:, :3] + self.two(inputs).mean((2, 3))[:, :3]


def images(dtype, sizes=(32, 32)):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, 1, 8, 8, generator=generator)
    inputs = (inputs + torch.randn(64, 1, 1, 1, generator=generator)).to(dtype)
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in inputs.split(sizes)]


@pytest.mark.parametrize("sizes", [(32, 32), (7, 25, 32)])
@pytest.mark.parametrize("source", ["probe", "training"])
@pytest.mark.parametrize(
    ("dtype", "mean", "gain", "tolerance"),
    [
        (torch.float32, 0, 1, 1e-6),
        (torch.float32, 1e3, 1, 1e-6),
        (torch.float32, 1e3, 1e-2, 1e-6),
        (torch.float32, 1e4, 1, 1e-6),
        (torch.float32, 1e4, 1e-2, 1e-6),
        # Deviations of a few steps of the type: what there is of them is kept.
        (torch.bfloat16, 1e3, 10, 1e-6),
        (torch.bfloat16, 1e3, 100, 1e-5),
        (torch.bfloat16, 1e4, 100, 1e-6),
        (torch.bfloat16, 1e4, 1000, 1e-5),
    ],
)
def test_large_means_cost_convolutions_no_digits(dtype, mean, gain, tolerance, source, sizes):
    """Against the same outputs, pooled and correlated by NumPy in float64."""
    model = Beside(mean, gain).to(dtype)
    data = images(dtype, sizes)
    flow = FlowMeter(model, edges=[("one", "two")], kinds=["information"], keep_moments=True)
    if source == "probe":
        reading = flow.read(Classification(data, data), data)
    else:
        with flow.watch() as watch:
            for inputs, _ in data:
                model.train()(inputs).sum().backward()
                watch.after_backward(len(inputs))
        reading = watch.reading()
    with torch.no_grad():
        outputs = [
            slow_pool(torch.cat([layer(inputs).double() for inputs, _ in data]).numpy(), 1)
            for layer in (model.one, model.two)
        ]
    assert reading.dead_units == {"one": 0, "two": 0}
    got = correlation(reading.moments, ("one", "two")).numpy()
    np.testing.assert_allclose(got, slow_correlation(*outputs), rtol=0, atol=tolerance)


# -- adaptive probes -----------------------------------------------------------------------------


class Unrelated(nn.Module):
    """Two layers that see different inputs: every correlation is 0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, inputs):
        return self.one(inputs[:, :4]) + self.two(inputs[:, 4:])


@pytest.mark.parametrize("within", [0.04, 0.02])
def test_few_examples_do_not_pass_for_flow_in_an_adaptive_probe(within):
    """The mean size of correlations that are 0 is 0.8 / sqrt(N): no distance to a reference."""
    inputs = torch.randn(8000, 8, generator=torch.Generator().manual_seed(0))
    data = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in inputs.split(64)]
    flow = FlowMeter(Unrelated(), edges=[("one", "two")], kinds=["information"])
    task = Classification(data, data)
    wanted = Precision((0.0,), "information.absolute", within)
    reading = flow.read(task, data, precision=wanted)
    assert math.sqrt(2 / math.pi / reading.examples) < within
    assert reading.examples < 8000
    assert reading.flows["information.absolute"][0] < within
    # Signs cancel, so the signed mean is soon known as well.
    signed = flow.read(task, data, precision=Precision((0.0,), "information.signed", within))
    assert signed.examples < reading.examples
