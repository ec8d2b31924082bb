from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from infcop.core.edges import Edges
from infcop.core.mask import Masks
from infcop.errors import FlowError
from infcop.flow.information import correlation
from infcop.flow.meter import FlowMeter
from infcop.tasks.classification import Classification
from tests.reference.flow import slow_correlation

EDGES = [("0", "3"), ("3", "6")]
WEIGHTS = ["0.weight", "3.weight", "6.weight"]
INFORMATION = ["information.signed", "information.absolute"]
GRADIENT = ["gradient.norm", "gradient.mean"]


def network(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(45, 3),
    ).double()


def batches(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 1, 7, 7, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for size in sizes
    ]


BATCHES = batches(8, 11, 1, 6)
TASK = Classification(BATCHES, BATCHES)


def meter(model, kinds=("information", "gradient"), **options):
    return FlowMeter(model, edges=EDGES, parameters=WEIGHTS, kinds=kinds, **options)


def train(model, watch=None, data=BATCHES, lr=0.0, called=None):
    """Plain steps of SGD with momentum; with ``lr=0`` nothing moves."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for batch in data:
        optimizer.zero_grad()
        TASK.training_step(called or model, batch).backward()
        if watch is not None:
            watch.after_backward(len(batch[1]))
        optimizer.step()


def watched(model, data=BATCHES, masks=None, called=None, lr=0.0, **options):
    with meter(model, **options).watch(masks) as watch:
        train(model.train(), watch, data, lr, called)
    return watch.reading()


def assert_same_flows(got, expected, tolerance=1e-12):
    assert got.flows.keys() == expected.flows.keys()
    for name, vector in expected.flows.items():
        assert got.flows[name] == pytest.approx(vector, abs=tolerance), name


@pytest.fixture
def model():
    return network()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gradient", ["full", "per-batch"])
def test_equals_the_probe_where_the_mode_does_not_matter_and_nothing_moves(model, gradient, masked):
    masks = None
    if masked:
        generator = torch.Generator().manual_seed(3)
        shapes = {name: p.shape for name, p in model.named_parameters() if name in WEIGHTS}
        masks = Masks({n: torch.rand(s, generator=generator) < 0.5 for n, s in shapes.items()})
    got = watched(model, masks=masks, gradient=gradient, standard_errors=True)
    expected = meter(model, gradient=gradient, standard_errors=True).read(TASK, BATCHES, masks)
    assert_same_flows(got, expected)
    assert got.dead_units == expected.dead_units
    for name, errors in expected.standard_errors.items():
        assert got.standard_errors[name] == pytest.approx(errors, rel=1e-9)


def test_costs_no_pass_of_its_own(model):
    reading = watched(model)
    assert reading.source == "training"
    assert (reading.examples, reading.forward_examples, reading.gradient_examples) == (26, 0, 0)
    assert meter(model).read(TASK, BATCHES).source == "probe"


@pytest.mark.parametrize("kind", ["information", "gradient"])
def test_one_kind_alone(model, kind):
    both = watched(model)
    reading = watched(model, kinds=[kind])
    assert set(reading.flows) == set(INFORMATION if kind == "information" else GRADIENT)
    assert_same_flows(
        reading,
        type(both)(
            **{
                **vars(both),
                "flows": {
                    name: vector for name, vector in both.flows.items() if name.startswith(kind)
                },
            }
        ),
    )


def test_measures_the_moving_network_as_it_trains(model):
    """Against the outputs and gradients of every step, gathered by hand."""
    twin, outputs, gradients = copy.deepcopy(model), {"0": [], "3": []}, []
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5, momentum=0.9)
    for batch in BATCHES:
        with torch.no_grad():
            outputs["0"].append(twin[:1](batch[0]).mean((2, 3)))
            outputs["3"].append(twin[:4](batch[0]).mean((2, 3)))
        optimizer.zero_grad()
        TASK.training_step(twin, batch).backward()
        gradients.append(len(batch[1]) / 26 * twin[3].weight.grad)
        optimizer.step()
    reading = watched(model, lr=0.5, keep_moments=True)
    expected = slow_correlation(*(torch.cat(rows) for rows in outputs.values()))
    np.testing.assert_allclose(correlation(reading.moments, ("0", "3")), expected, atol=1e-10)
    norm = float(sum(gradients).norm())
    assert reading.flows["gradient.norm"][1] == pytest.approx(norm, abs=1e-12)


@pytest.mark.parametrize("source", ["batch norm", "dropout"])
def test_training_mode_is_what_is_measured(source):
    torch.manual_seed(0)
    noisy = nn.BatchNorm2d(4) if source == "batch norm" else nn.Dropout(0.5)
    model = network()
    model[1] = noisy.double()
    reading, probe = watched(model), meter(model).read(TASK, BATCHES)
    assert reading.flows["information.absolute"] != pytest.approx(
        probe.flows["information.absolute"], rel=1e-3
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("kinds", [["information"], ["gradient"], ["information", "gradient"]])
def test_training_is_bit_for_bit_the_same_with_and_without_a_watch(dropout, kinds):
    results = []
    for watching in (False, True):
        model = network(dropout=dropout)
        torch.manual_seed(4)
        if watching:
            reading = watched(model, lr=0.1, kinds=kinds)
            assert reading.is_finite
        else:
            train(model, lr=0.1)
        results.append([*model.state_dict().values(), torch.get_rng_state()])
        results[-1] += [parameter.grad for parameter in model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_evaluation_inside_the_loop_is_not_listened_to(model):
    expected = watched(model)
    with meter(model).watch() as watch:
        for batch in BATCHES:
            train(model.train(), watch, [batch])
            TASK.evaluate(model.eval(), batches(50, seed=9))
    assert watch.reading() == expected


def test_a_probe_inside_the_loop_is_not_listened_to_and_does_not_disturb(model):
    expected, probe = watched(model), meter(model).read(TASK, BATCHES)
    with meter(model).watch() as watch:
        for batch in BATCHES:
            train(model, watch, [batch])
            assert_same_flows(meter(model).read(TASK, BATCHES), probe, tolerance=0)
    assert watch.reading() == expected


def test_two_watches_at_once_see_the_same(model):
    with meter(model).watch() as outer, meter(model).watch() as inner:
        for batch in BATCHES:
            train(model, outer, [batch])
            inner.after_backward(len(batch[1]))
    assert outer.reading() == inner.reading() == watched(model)


def test_reading_twice_is_the_same_and_more_steps_go_on(model):
    with meter(model, keep_moments=True).watch() as watch:
        train(model, watch, BATCHES[:2])
        first, second = watch.reading(), watch.reading()
        assert second.flows == first.flows
        samples = {edge: part.n for edge, part in first.moments.parts.items()}
        assert samples == dict.fromkeys(EDGES, 19)
        train(model, watch, BATCHES[2:])
        last = watch.reading()
    assert last.examples == 26
    assert_same_flows(last, watched(model))
    # What was handed over earlier does not move with the training.
    assert {edge: part.n for edge, part in first.moments.parts.items()} == samples
    assert watch.reading().flows == last.flows


def test_unused_parameter_counts_zero(model):
    model.register_parameter("spare", nn.Parameter(torch.ones(2, 2).double()))
    flow = FlowMeter(model, parameters=["0.weight", "spare"], kinds=["gradient"])
    with flow.watch() as watch:
        train(model, watch)
    reading = watch.reading()
    assert model.spare.grad is None
    assert reading.flows["gradient.norm"][0] > 0
    assert reading.flows["gradient.norm"][1] == reading.flows["gradient.mean"][1] == 0


def test_gradients_are_copied_before_they_change(model):
    with meter(model, ["gradient"]).watch() as watch:
        train(model, watch)
        for parameter in model.parameters():
            parameter.grad.fill_(1e6)
    assert_same_flows(watch.reading(), watched(model, kinds=["gradient"]), tolerance=0)


class Unstable(nn.Sequential):
    """Fails after its layers have run, when asked to."""

    fails = False

    def forward(self, inputs):
        output = super().forward(inputs)
        if self.fails:
            raise ZeroDivisionError
        return output


def test_an_exception_in_a_step_leaves_no_hook_and_nothing_of_that_step():
    model = Unstable(*network())
    with meter(model).watch() as watch:
        train(model, watch, BATCHES[:2])
        model.fails = True
        with pytest.raises(ZeroDivisionError):
            train(model, watch, BATCHES[:1])
        model.fails = False
        train(model, watch, BATCHES[2:])
    assert_same_flows(watch.reading(), watched(network()))
    model.fails = True

    def fail():
        with meter(model).watch() as watch:
            train(model, watch)

    with pytest.raises(ZeroDivisionError):
        fail()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)
        self.reentrant = reentrant

    def middle(self, hidden):
        return self.two(hidden.relu()).relu()

    def forward(self, inputs):
        hidden = self.one(inputs)
        if self.reentrant is None:
            return self.three(self.middle(hidden))
        return self.three(checkpoint(self.middle, hidden, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_count_once(reentrant):
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(9, 4, generator=generator), torch.arange(9) % 3) for _ in range(3)]
    readings = []
    for kind in (None, reentrant):
        model = Checkpointed(kind)
        flow = FlowMeter(
            model,
            edges=[("one", "two"), ("two", "three")],
            parameters=["one.weight", "two.weight", "three.weight"],
            kinds=["information", "gradient"],
        )
        with flow.watch() as watch:
            train(model, watch, data, lr=0.1)
        readings.append(watch.reading())
    assert_same_flows(readings[1], readings[0], tolerance=1e-6)
    assert min(readings[1].flows["gradient.norm"]) > 0


@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_model_is_listened_to(model, warm):
    expected = watched(model)
    compiled = torch.compile(model, backend="eager")
    if warm:
        train(model, called=compiled)
    for _ in range(2):  # A second time, too, when code of the first is around.
        with meter(compiled).watch() as watch:
            train(model, watch, called=compiled)
        assert_same_flows(watch.reading(), expected)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(compiled(BATCHES[0][0]), model(BATCHES[0][0]))


def test_several_calls_of_a_layer_are_its_joined_pairs():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, both):
            one, other = (self.head(self.trunk(part)) for part in both.unbind(1))
            return one - other

    torch.manual_seed(0)
    model, both, edge = Siamese().double(), torch.randn(30, 2, 4).double(), ("trunk", "head")
    edges = Edges((edge,), {edge: ((0, 0), (1, 1))})
    data = [(part, torch.zeros(10, dtype=torch.int64)) for part in both.split(10)]
    with FlowMeter(model, edges=edges, kinds=["information"]).watch() as watch:
        train(model, watch, data)
    with torch.no_grad():
        hidden = torch.cat([model.trunk(part) for part in both.unbind(1)])
        expected = slow_correlation(hidden, model.head(hidden)).mean()
    assert watch.reading().flows["information.signed"] == pytest.approx((expected,), abs=1e-12)


def test_autocast_and_low_precision_are_close_to_float64(model):
    expected = watched(model)
    low = [(inputs.float(), labels) for inputs, labels in BATCHES]
    single = copy.deepcopy(model).float()
    assert_same_flows(watched(single, low), expected, tolerance=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_flows(watched(single, low), expected, tolerance=0.05)
    half = [(inputs.bfloat16(), labels) for inputs, labels in BATCHES]
    assert_same_flows(watched(copy.deepcopy(model).bfloat16(), half), expected, tolerance=0.1)


@pytest.mark.parametrize("place", [0, 7, 8, 25])
def test_one_bad_example_names_its_layers_and_its_batch(model, place):
    inputs = torch.cat([inputs for inputs, _ in BATCHES])
    inputs[place, 0, 3, 3] = float("nan")
    data = list(zip(inputs.split([8, 11, 1, 6]), (labels for _, labels in BATCHES), strict=True))
    with meter(model).watch() as watch:
        train(model, watch, data)
    batch = sum(place >= border for border in (8, 19, 20))
    reading = watch.reading(strict=False)
    assert {name: reading.non_finite[name] for name in "036"} == dict.fromkeys("036", batch)
    assert set(WEIGHTS) <= set(reading.non_finite)
    with pytest.raises(FlowError, match=f"'0' from batch {batch} on"):
        watch.reading()


def test_nothing_taken_in_is_refused(model):
    with (
        meter(model).watch() as watch,
        pytest.raises(FlowError, match="at least one batch with an example, got none"),
    ):
        watch.reading()


def test_a_model_left_in_evaluation_mode_is_refused(model):
    with meter(model).watch() as watch, pytest.raises(FlowError, match="in training mode before"):
        train(model.eval(), watch)


def test_missing_mask_is_refused(model):
    masks = Masks({"0.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)})
    with pytest.raises(FlowError, match=r"mask of shape .* for '3.weight', got none"):
        watched(model, masks=masks)
