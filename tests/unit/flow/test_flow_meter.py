from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from infcop.core.edges import Edges, Layout
from infcop.core.mask import Masks
from infcop.errors import FlowError
from infcop.flow.information import correlation, signed_mean
from infcop.flow.meter import FlowMeter
from infcop.flow.sampling import Precision, covariances, distance_error
from infcop.flow.stream import InformationStream
from infcop.tasks.classification import Classification
from tests.reference.flow import (
    slow_correlation,
    slow_gradient_flow,
    slow_pool,
    slow_signed_mean,
)
from tests.reference.networks import BOTH, EDGES, WEIGHTS, network_of_everything


def small_network(seed=0):
    model = network_of_everything(seed)
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


def test_dead_units_are_counted(model):
    with torch.no_grad():
        model[4].weight[1:3] = 0
    reading = meter(model).read(TASK, BATCHES)
    assert reading.dead_units == {"0": 0, "4": 2, "8": 0}
    assert all(map(math.isfinite, reading.flows["information.signed"]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_activations_are_an_error_unless_asked_for(model, bad):
    with torch.no_grad():
        model[8].bias[0] = bad
    message = r"got NaN or infinity in '8' from batch 0 on, '0.weight' from batch 0 on, '4.w"
    with pytest.raises(FlowError, match=message):
        meter(model).read(TASK, BATCHES)
    reading = meter(model).read(TASK, BATCHES, strict=False)
    signed = reading.flows["information.signed"]
    assert [math.isfinite(entry) for entry in signed] == [True, False]
    assert not any(map(math.isfinite, reading.flows["gradient.norm"]))
    assert not reading.is_finite
    assert reading.non_finite == {"8": 0, **dict.fromkeys(WEIGHTS, 0)}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("example", [0, 7, 8, 18, 19])
def test_one_bad_example_names_its_layers_and_its_batch(model, example, empty):
    inputs, labels = examples()
    inputs[example, 0, 3, 3] = float("nan")
    batches = batched((inputs, labels), 8, 11, 1)
    if empty:
        batches.insert(0, (inputs[:0], labels[:0]))
    batch = sum(example >= border for border in (8, 19)) + empty
    reading = meter(model).read(TASK, batches, strict=False)
    assert reading.non_finite == dict.fromkeys(["0", "4", "8", *WEIGHTS], batch)
    with pytest.raises(FlowError, match=rf"'0' from batch {batch} on.* and 3 more .*count from 0"):
        meter(model).read(TASK, batches)


def test_a_finite_reading_has_nothing_non_finite(model):
    reading = meter(model).read(TASK, BATCHES)
    assert reading.is_finite
    assert reading.non_finite == {}


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
    with pytest.raises(FlowError, match="at least two examples of 0 -> 4, got 1"):
        meter(model).read(TASK, one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": []}, "expected kinds to hold"),
        ({"kinds": ["informations"]}, "expected kinds to hold"),
        ({"gradient": "ful"}, "did you mean 'full'"),
        ({"edges": []}, "needs an edge between two prunable layers"),
        ({"edges": [("0", "44")]}, "no layer '44' of an edge; did you mean '4'"),
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
    assert gradient.parameters == tuple(WEIGHTS)
    assert information.read(TASK, BATCHES).flows.keys() == {
        "information.signed",
        "information.absolute",
    }
    assert gradient.read(TASK, BATCHES).flows.keys() == {"gradient.norm", "gradient.mean"}


@pytest.mark.parametrize("gradient", ["full", "per-batch"])
def test_missing_mask_is_refused(model, gradient):
    masks = Masks({"0.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)})
    with pytest.raises(FlowError, match="mask of shape"):
        meter(model, gradient=gradient).read(TASK, BATCHES, masks)


def test_moments_and_errors_are_there_only_where_asked_for(model):
    plain = meter(model).read(TASK, BATCHES)
    assert plain.moments is None
    assert plain.standard_errors == {}
    asked = FlowMeter(
        model, edges=EDGES, kinds=["information"], keep_moments=True, standard_errors=True
    ).read(TASK, BATCHES)
    outputs = layer_outputs(model, examples()[0])
    np.testing.assert_allclose(
        correlation(asked.moments, EDGES[0]),
        slow_correlation(outputs["0"], outputs["4"]),
        atol=1e-10,
    )
    assert asked.flows["information.signed"] == plain.flows["information.signed"]
    assert asked.standard_errors.keys() == {"information.signed", "information.absolute"}
    assert all(0 < e < 1 for errors in asked.standard_errors.values() for e in errors)


def many_batches(count=32, size=16):
    return batched(examples(count * size, seed=8), *[size] * count)


def precise(model, within, at_least=32, reference=(0.0, 0.0), batches=None):
    wanted = Precision(reference, "information.signed", within, at_least)
    return meter(model, ["information"]).read(TASK, batches or many_batches(), precision=wanted)


def test_adaptive_probe_reads_the_less_the_looser_its_precision(model):
    seen = [precise(model, within).examples for within in (1.0, 0.03, 0.02, 0.015, 1e-9)]
    assert seen == sorted(seen)
    assert seen[0] == 32
    assert seen[-1] == 512
    assert len(set(seen)) > 3


@pytest.mark.parametrize(("at_least", "seen"), [(2, 16), (16, 16), (17, 32), (100, 112)])
def test_adaptive_probe_never_looks_before_it_is_told_to(model, at_least, seen):
    assert precise(model, 1.0, at_least).examples == seen


def test_adaptive_probe_that_runs_to_the_end_is_the_full_reading(model):
    adaptive = precise(model, 1e-9)
    full = meter(model, ["information"]).read(TASK, many_batches())
    assert adaptive.examples == full.examples
    for name, vector in full.flows.items():
        assert adaptive.flows[name] == pytest.approx(vector, abs=1e-12)


def test_adaptive_probe_is_the_full_reading_of_what_it_has_seen(model):
    adaptive = precise(model, 0.02)
    batches = many_batches()[: adaptive.examples // 16]
    assert 0 < len(batches) < 32
    full = meter(model, ["information"]).read(TASK, batches)
    for name, vector in full.flows.items():
        assert adaptive.flows[name] == pytest.approx(vector, abs=1e-12)
    assert precise(model, 0.02) == adaptive


def test_adaptive_probe_stops_at_the_precision_it_promises(model):
    """The error of the distance at the last look, and at the look before."""
    reference = (0.3, -0.2)
    stopped = precise(model, 0.02, reference=reference)
    looks = [32]
    while looks[-1] < 512:
        looks.append(16 * math.ceil(math.ceil(1.5 * looks[-1]) / 16))
    assert stopped.examples in looks[1:-1]

    def error(count):
        found = InformationStream(Edges.of(EDGES), keep=True)
        inputs = torch.cat([inputs for inputs, _ in many_batches()])[:count]
        outputs = {(n, 0): torch.as_tensor(v) for n, v in layer_outputs(model, inputs).items()}
        found.add([outputs])
        moments = found.flush()
        covariance = covariances(moments, Edges.of(EDGES), found.kept)["information.signed"]
        return distance_error(signed_mean(moments), reference, covariance)

    assert error(stopped.examples) <= 0.02
    assert error(looks[looks.index(stopped.examples) - 1]) > 0.02


@pytest.mark.parametrize("kinds", [["gradient"], BOTH])
def test_precision_is_for_information_alone(model, kinds):
    wanted = Precision((0.0, 0.0), "information.signed", 0.1)
    with pytest.raises(FlowError, match=r"kinds=\['information'\] with a precision, got kinds="):
        meter(model, kinds).read(TASK, BATCHES, precision=wanted)


def test_wrong_precision_is_refused_before_anything_runs(model):
    def unread():
        raise AssertionError
        yield

    with pytest.raises(FlowError, match="a reference of 2 entries"):
        meter(model, ["information"]).read(
            TASK, unread(), precision=Precision((0.0,), "information.signed", 0.1)
        )


class Branching(nn.Module):
    """Which of two layers runs depends on the first example."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, inputs):
        hidden = self.stem(inputs)
        return self.left(hidden) if inputs[0, 0] > 0 else self.right(hidden)


def branching(lefts):
    torch.manual_seed(1)
    model = Branching().double()
    batches = []
    for batch, left in enumerate(lefts):
        inputs = torch.randn(10 + batch, 4).double()
        inputs[0, 0] = 1.0 if left else -1.0
        batches.append((inputs, torch.zeros(10 + batch, dtype=torch.int64)))
    flow = FlowMeter(model, edges=[("stem", "left"), ("stem", "right")], kinds=["information"])
    return model, batches, flow


def test_a_layer_is_measured_on_the_batches_that_it_runs_for():
    lefts = [True, True, False, True, False]
    model, batches, flow = branching(lefts)
    reading = flow.read(TASK, batches)
    assert reading.examples == 60
    for index, (name, wanted) in enumerate([("left", True), ("right", False)]):
        inputs = torch.cat(
            [x for (x, _), left in zip(batches, lefts, strict=True) if left == wanted]
        )
        hidden = model.stem(inputs).detach()
        matrix = slow_correlation(hidden, getattr(model, name)(hidden).detach())
        assert reading.flows["information.signed"][index] == pytest.approx(matrix.mean(), abs=1e-12)


def test_a_layer_that_never_ran_is_an_error_that_names_its_edge():
    _, batches, flow = branching([True, True])
    with pytest.raises(
        FlowError, match=r"two examples of stem -> right, got 0.*leave the edge out"
    ):
        flow.read(TASK, batches)


def test_an_adaptive_probe_waits_for_a_layer_that_runs_late():
    _, batches, flow = branching([True, True, False, True])
    wanted = Precision((0.0, 0.0), "information.signed", 10.0, at_least=2)
    assert flow.read(TASK, batches, precision=wanted).examples == 33


class Siamese(nn.Module):
    """A trunk that runs for each of two inputs, and a head on each of the results."""

    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, both):
        one, other = (self.head(self.trunk(part).relu()) for part in both.unbind(1))
        return one - other


def test_several_calls_of_an_edge_are_its_joined_pairs():
    torch.manual_seed(0)
    model = Siamese().double()
    both = torch.randn(30, 2, 4).double()
    batches = [(part, torch.zeros(10, dtype=torch.int64)) for part in both.split(10)]
    edge = ("trunk", "head")
    edges = Edges((edge,), {edge: ((0, 0), (1, 1))})
    flow = FlowMeter(model, edges=edges, kinds=["information"], keep_moments=True)
    reading = flow.read(TASK, batches)
    with torch.no_grad():
        hidden = torch.cat([model.trunk(part) for part in both.unbind(1)])
        expected = slow_correlation(hidden, model.head(hidden.relu()))
    np.testing.assert_allclose(correlation(reading.moments, edge), expected, atol=1e-12)
    assert reading.examples == 30


class Windowed(nn.Module):
    """Folds the windows of an image into its batch axis, and works on tokens with time first."""

    def __init__(self):
        super().__init__()
        self.inside, self.across = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, inputs):
        windows = self.inside(inputs.reshape(-1, 2, 3))
        tokens = self.across(windows.reshape(len(inputs), -1, 4).transpose(0, 1).relu())
        return tokens.mean(0)


def test_folded_windows_and_time_first_are_measured_by_example():
    torch.manual_seed(0)
    model = Windowed().double()
    batches = [(torch.randn(n, 6, 3).double(), torch.zeros(n, dtype=torch.int64)) for n in (7, 9)]
    edge = ("inside", "across")
    layouts = {("inside", 0): Layout(fold=3), ("across", 0): Layout(axis=1)}
    edges = Edges((edge,), {}, layouts)
    reading = FlowMeter(model, edges=edges, kinds=["information"]).read(TASK, batches)
    inputs = torch.cat([inputs for inputs, _ in batches])
    with torch.no_grad():
        inside = model.inside(inputs)
        matrix = slow_correlation(inside.mean(1), model.across(inside.relu()).mean(1))
    assert reading.flows["information.signed"] == pytest.approx((matrix.mean(),), abs=1e-12)
    wrong = FlowMeter(model, edges=[edge], kinds=["information"])
    with pytest.raises(FlowError, match=r"expected 7 examples in the output of layer .inside."):
        wrong.read(TASK, batches)


def test_an_output_that_is_no_tensor_names_the_layer():
    model = nn.Sequential(nn.LSTM(3, 4))
    batches = [(torch.randn(2, 5, 3), torch.zeros(2, dtype=torch.int64))]
    flow = FlowMeter(model, edges=[("0", "0")], kinds=["information"])
    with pytest.raises(FlowError, match="layer '0' to return a tensor, got tuple"):
        flow.read(TASK, batches)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpoints_have_no_gradient_to_probe_but_information():
    class Checkpointed(nn.Module):
        def __init__(self, reentrant):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)
            self.reentrant = reentrant

        def forward(self, inputs):
            hidden = self.one(inputs)
            if self.reentrant is None:
                return self.three(self.two(hidden.relu()).relu())
            return self.three(
                checkpoint(
                    lambda h: self.two(h.relu()), hidden, use_reentrant=self.reentrant
                ).relu()
            )

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 4, generator=generator)
    batches = batched((inputs, torch.arange(12) % 3), 7, 5)

    def read(reentrant, kinds):
        torch.manual_seed(0)
        return FlowMeter(
            Checkpointed(reentrant),
            edges=[("one", "two"), ("two", "three")],
            parameters=["one.weight", "two.weight", "three.weight"],
            kinds=kinds,
        ).read(TASK, batches)

    plain = read(None, BOTH)
    assert read(False, BOTH) == plain
    information = read(True, ["information"])
    assert all(information.flows[name] == plain.flows[name] for name in information.flows)
    with pytest.raises(FlowError, match="use_reentrant=False, got a reentrant one"):
        read(True, BOTH)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_channels_last_gives_the_same(model, dtype):
    low = copy.deepcopy(model).to(dtype)
    expected = meter(low, ["information"]).read(TASK, [(x.to(dtype), y) for x, y in BATCHES])
    last = copy.deepcopy(low).to(memory_format=torch.channels_last)
    batches = [(x.to(dtype).contiguous(memory_format=torch.channels_last), y) for x, y in BATCHES]
    got = meter(last, ["information"]).read(TASK, batches)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for name, vector in expected.flows.items():
        assert got.flows[name] == pytest.approx(vector, abs=tolerance)


def test_in_place_activations_change_nothing(model):
    """The network has in-place activations right after its tapped layers."""
    other = copy.deepcopy(model)
    for index in (2, 5):
        other[index] = nn.ReLU(inplace=False)
    assert meter(model).read(TASK, BATCHES) == meter(other).read(TASK, BATCHES)


class Named:
    """A task whose model takes keyword arguments."""

    def __init__(self, task):
        self.task = task

    def training_step(self, model, batch):
        return nn.functional.cross_entropy(model(**self.inputs(batch)), batch[1])

    def inputs(self, batch):
        return {"input": batch[0]}

    def batch_size(self, batch):
        return len(batch[1])


def test_keyword_inputs_give_the_same_as_positional_ones(model):
    expected = meter(model).read(TASK, BATCHES)
    assert meter(model).read(Named(TASK), BATCHES) == expected
    information = meter(model, ["information"]).read(Named(TASK), BATCHES)
    assert information.flows["information.signed"] == expected.flows["information.signed"]


def test_wrappers_are_looked_through(model):
    expected = meter(model).read(TASK, BATCHES)
    compiled = torch.compile(model, backend="eager")
    for wrapped in (nn.DataParallel(model), compiled, nn.DataParallel(compiled)):
        flow = meter(wrapped)
        assert flow.model is model
        assert flow.read(TASK, BATCHES) == expected


def test_a_model_made_in_inference_mode_can_be_measured(model):
    with torch.inference_mode():
        inferring = small_network()
    expected = meter(model, ["information"]).read(TASK, BATCHES)
    assert meter(inferring, ["information"]).read(TASK, BATCHES) == expected
