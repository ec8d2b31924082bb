"""Misuse, and models that do what they should not: clear errors, nothing silent."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from infcop.errors import FlowError
from infcop.flow.information import correlation
from infcop.flow.meter import FlowMeter
from infcop.flow.moments import CoMoments
from infcop.flow.sampling import Precision, bias_bounds
from infcop.tasks.classification import Classification


def batches_of(inputs, size=16):
    labels = torch.arange(len(inputs)) % 3
    return list(zip(inputs.split(size), labels.split(size), strict=True))


INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
BATCHES = batches_of(INPUTS)
TASK = Classification(BATCHES, BATCHES)
KINDS = ["information", "gradient"]


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def meter_of(model, kinds=KINDS, **options):
    return FlowMeter(
        model, edges=[("0", "2")], parameters=["0.weight", "2.weight"], kinds=kinds, **options
    )


def train_step(model, batch):
    inputs, labels = batch
    nn.functional.cross_entropy(model(inputs), labels).backward()


# -- what is asked for -------------------------------------------------------------------------


def test_an_edge_given_twice_is_refused():
    with pytest.raises(FlowError, match=r"\('0', '2'\) is given 2 times"):
        FlowMeter(small(), edges=[("0", "2"), ("0", "2")], kinds=["information"])


def test_a_parameter_given_twice_is_refused():
    with pytest.raises(FlowError, match=r"'0.weight' is given twice"):
        FlowMeter(small(), parameters=["0.weight", "0.weight"], kinds=["gradient"])


@pytest.mark.parametrize("edges", [["0", "2"], [("0", "1", "2")], [("0", 2)], [0]])
def test_edges_that_are_no_pairs_are_refused(edges):
    with pytest.raises(FlowError, match="expected pairs of layer names"):
        FlowMeter(small(), edges=edges, kinds=["information"])


# -- listening to training ---------------------------------------------------------------------


def test_gradients_that_are_not_there_are_not_taken_for_zero():
    model = small()
    with meter_of(model).watch() as watch:
        train_step(model, BATCHES[0])
        model.zero_grad()
        with pytest.raises(FlowError, match="after backward and before zero_grad"):
            watch.after_backward(16)
    measured = copy.deepcopy(model)
    with meter_of(measured, ["gradient"]).watch() as watch:
        train_step(model, BATCHES[0])
        with pytest.raises(FlowError, match="the model that is trained rather than a copy"):
            watch.after_backward(16)


@pytest.mark.parametrize("examples", [0, -12])
def test_a_step_has_examples(examples):
    model = small()
    with meter_of(model).watch() as watch:
        train_step(model, BATCHES[0])
        with pytest.raises(FlowError, match=f"at least one example per step, got {examples}"):
            watch.after_backward(examples)


def test_nothing_is_taken_in_after_the_end():
    model = small()
    with meter_of(model).watch() as watch:
        train_step(model, BATCHES[0])
        watch.after_backward(16)
    before = watch.reading()
    with pytest.raises(FlowError, match="inside the with block"):
        watch.after_backward(16)
    assert watch.reading() == before


def test_a_step_made_of_several_batches_is_one():
    """At a learning rate of 0: the gradient of the mean loss over all, as a probe reads it."""
    model = small()
    with meter_of(model).watch() as watch:
        for first, second in ((0, 1), (2, 3)):
            model.zero_grad()
            for batch in (BATCHES[first], BATCHES[second]):
                inputs, labels = batch
                (nn.functional.cross_entropy(model(inputs), labels) / 2).backward()
            watch.after_backward(32)
    reading = watch.reading()
    probe = meter_of(model).read(TASK, BATCHES)
    assert reading.examples == probe.examples == 64
    assert reading.flows["gradient.norm"] == pytest.approx(probe.flows["gradient.norm"], rel=1e-5)
    key = "information.signed"
    assert reading.flows[key] == pytest.approx(probe.flows[key], abs=1e-12)


def test_copies_of_a_watched_model_are_silent_and_clean():
    model = small()
    with meter_of(model).watch() as watch:
        other = copy.deepcopy(model)
        again = pickle.loads(pickle.dumps(model))
        for copied in (other, again):
            copied(torch.randn(500, 4))
        train_step(model, BATCHES[0])
        watch.after_backward(16)
    alone = meter_of(model, ["information"]).read(TASK, BATCHES[:1])
    assert watch.reading().flows["information.signed"] == alone.flows["information.signed"]
    pickle.dumps(other)
    assert torch.equal(again(INPUTS), model(INPUTS))


# -- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_far_from_zero_lose_no_digits(mean, dtype):
    """Held against NumPy on the same outputs, averaged over positions in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Conv2d(5, 4, 3)).to(dtype)
    with torch.no_grad():
        for layer in model:
            # In bfloat16 the deviations must be a good part of the mean to be there at all.
            layer.weight.mul_(0.1 if dtype == torch.float32 else 1 + mean / 10)
            layer.bias.add_(mean)
    inputs = torch.randn(256, 1, 9, 9).to(dtype)
    batches = batches_of(inputs, 50)
    outputs = []
    with torch.no_grad():
        for images, _ in batches:
            first = model[0](images)
            outputs.append((first, model[1](first)))
    rows = [
        torch.cat([pair[i].double().mean(dim=(2, 3)) for pair in outputs]).numpy() for i in (0, 1)
    ]
    exact = np.corrcoef(*rows, rowvar=False)[:5, 5:]
    flow = FlowMeter(model, edges=[("0", "1")], kinds=["information"], keep_moments=True)
    reading = flow.read(Classification(batches, batches), batches)
    found = correlation(reading.moments, ("0", "1")).numpy()
    assert np.abs(found - exact).max() < 1e-5
    if mean:
        assert np.abs(found - exact).max() < 1e-6
    assert set(reading.dead_units.values()) == {0}


def test_a_reading_on_too_few_examples_says_nothing_where_it_may_not_raise():
    reading = meter_of(small()).read(TASK, [(INPUTS[:1], torch.tensor([0]))], strict=False)
    assert not reading.is_finite
    assert all(np.isnan(reading.flows["information.signed"]))
    assert len(reading.flows["gradient.norm"]) == 2
    assert reading.non_finite == {"2": None}


def test_another_resolution_than_the_traced_one_is_refused():
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    batches = [(torch.randn(8, 4, 4), torch.zeros(8, dtype=torch.int64))]
    with pytest.raises(FlowError, match=r"expected 8 examples in .* layer '1'.*got 32"):
        FlowMeter(model, edges=[("1", "3")], kinds=["information"]).read(TASK, batches)


def test_overflow_in_one_process_is_not_blamed_on_another():
    model = small().double()
    with torch.no_grad():
        model[0].weight.mul_(1e200)
    batches = batches_of(INPUTS.double())
    with pytest.raises(FlowError, match="sums of finite numbers overflow"):
        meter_of(model, ["information"]).read(TASK, batches)


# -- an adaptive probe -------------------------------------------------------------------------


def test_the_bound_of_the_bias_covers_that_of_independent_channels():
    sizes = []
    for seed in range(40):
        torch.manual_seed(seed)
        moments = CoMoments([("a", "b")])
        moments.update({"a": torch.randn(200, 6), "b": torch.randn(200, 5)})
        sizes.append(float(correlation(moments, ("a", "b")).abs().mean()))
    bound = float(bias_bounds(moments)[0])
    assert np.mean(sizes) == pytest.approx(bound, rel=0.05)


def test_dead_and_clear_correlations_have_no_bias():
    torch.manual_seed(0)
    moments = CoMoments([("a", "b")])
    step = torch.randn(200, 1)
    moments.update({"a": torch.cat([step, torch.zeros(200, 3)], dim=1), "b": step})
    assert bias_bounds(moments).tolist() == [0.0]


def test_absolute_means_are_not_called_precise_while_they_are_biased():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 30))
    batches = batches_of(torch.randn(8192, 30), 64)
    flow = FlowMeter(model, edges=[("0", "2")], kinds=["information"])
    name = "information.absolute"
    reference = flow.read(TASK, batches).flows[name]
    first = flow.read(TASK, batches[:4]).flows[name]
    assert first[0] - reference[0] > 0.006, "256 examples look far more correlated"
    wanted = Precision(reference, name, within=0.006)
    reading = flow.read(TASK, batches, precision=wanted)
    assert reading.examples > 1000
    assert abs(reading.flows[name][0] - reference[0]) <= 0.006
