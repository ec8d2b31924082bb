"""What is promised of flow, for every model of the zoo, both sources and three number types.

Tolerances against the slow twins, which take the same activations in NumPy's float64:

========  ========  ========================================================================
type      entries   why
========  ========  ========================================================================
float64   1e-10     rounding of the sums alone
float32   2e-6      pooling rounds once per output, in float32; the rest is float64
autocast  2e-6      activations are bfloat16, but are pooled in float32 too
========  ========  ========================================================================

Against the float64 model the types themselves show, since every layer rounds: 2e-3 for float32
and 0.15 for autocast, as correlations of a few examples amplify what deep layers have lost. Of
gradients these are fractions of the largest norm, and autocast is left out: through 56 layers
bfloat16 changes them as a whole.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from infcop.core.edges import Edges
from infcop.core.mask import Masks
from infcop.errors import FlowError
from infcop.flow.information import correlation
from infcop.flow.meter import FlowMeter
from infcop.flow.reading import FlowReading
from infcop.models.graph import select_edges, trace_graph
from infcop.models.prunable import find_prunable
from infcop.models.zoo import ZOO
from infcop.tasks.classification import Classification
from tests.reference.flow import slow_gradient_flow, slow_information, slow_pool

EXAMPLES, CLASSES = 14, 4

SMALL: dict[str, dict[str, Any]] = {
    "lenet-300-100": {"image_size": 4},
    "lenet-5": {"image_size": 16, "width": 0.5},
    "vgg-16": {"image_size": 32, "width": 0.03125},
    "resnet-20": {"image_size": 8, "width": 0.25},
    "resnet-56": {"image_size": 4, "width": 0.25},
    "resnet-18": {"image_size": 8, "width": 0.0625},
}
"""Options that make the models small: what is promised does not depend on widths."""

TYPES = ("float64", "float32", "autocast")
SOURCES = ("probe", "training")
ENTRIES = {"float64": 1e-10, "float32": 2e-6, "autocast": 2e-6}
CLOSE = {"float32": 2e-3, "autocast": 0.15}

every_model = pytest.mark.parametrize("name", ZOO)
every_source = pytest.mark.parametrize("source", SOURCES)
every_type = pytest.mark.parametrize("dtype", TYPES)


@dataclass(frozen=True)
class Case:
    """A small model, what flow is measured on, and examples.

    Normalisation is frozen and there is no dropout: then training computes what a probe does, and
    one slow twin serves both sources.
    """

    model: nn.Module
    edges: Edges
    parameters: tuple[str, ...]
    inputs: Tensor
    labels: Tensor
    autocast: bool

    @property
    def task(self) -> Classification:
        return Classification(self.batches(EXAMPLES), self.batches(EXAMPLES))

    def batches(self, *sizes: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.inputs.split(sizes), self.labels.split(sizes), strict=True))

    def context(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast:
            return torch.autocast("cpu", torch.bfloat16)
        return contextlib.nullcontext()


class Frozen(nn.BatchNorm2d):
    """Batch normalisation by its stored statistics in every mode."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def freeze(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = Frozen


@functools.cache
def _case(name: str, dtype: str) -> Case:
    torch.manual_seed(0)
    model = ZOO[name].factory(in_channels=1, num_classes=CLASSES, **SMALL[name]).double()
    generator = torch.Generator().manual_seed(1)
    size = SMALL[name]["image_size"]
    inputs = torch.randn(EXAMPLES, 1, size, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (EXAMPLES,), generator=generator)
    # Statistics that fit the activations, as after training; else deep models explode.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(inputs)
    freeze(model)
    prunable = find_prunable(model)
    edges = select_edges(trace_graph(model, (inputs[:3],), prunable), "graph")
    if dtype != "float64":
        model, inputs = model.float(), inputs.float()
    return Case(model, edges, tuple(prunable.shapes), inputs, labels, dtype == "autocast")


def case_of(name: str, dtype: str = "float64") -> Case:
    """Return a case that a test may change."""
    return copy.deepcopy(_case(name, dtype))


def measure(
    case: Case,
    source: str,
    batches: list[tuple[Tensor, Tensor]] | None = None,
    masks: Masks | None = None,
    **options: Any,
) -> FlowReading:
    """Read both kinds, in the mode that belongs to the source; with training, nothing moves."""
    batches = case.batches(5, 8, 1) if batches is None else batches
    options = {"kinds": ["information", "gradient"], **options}
    meter = FlowMeter(case.model, edges=case.edges, parameters=case.parameters, **options)
    with case.context():
        if source == "probe":
            return meter.read(case.task, batches, masks, strict=False)
        case.model.train()
        with meter.watch(masks) as watch:
            for batch in batches:
                case.model.zero_grad()
                case.task.training_step(case.model, batch).backward()
                watch.after_backward(len(batch[1]))
        case.model.zero_grad()
        return watch.reading(strict=False)


def twin_information(case: Case, inputs: Tensor | None = None) -> dict[str, tuple[float, ...]]:
    """Information flow by loops over what the layers give for all examples at once."""
    outputs: dict[tuple[str, int], Any] = {}
    hooks = []
    for layer in case.edges.layers:

        def keep(module: nn.Module, _inputs: Any, output: Tensor, layer: str = layer) -> None:
            outputs[layer, 0] = slow_pool(output.detach().double().numpy(), 1)

        hooks.append(case.model.get_submodule(layer).register_forward_hook(keep))
    with torch.no_grad(), case.context():
        case.model.eval()(case.inputs if inputs is None else inputs)
    for hook in hooks:
        hook.remove()
    pairs = {edge: case.edges.pairs.get(edge, ((0, 0),)) for edge in case.edges.edges}
    signed, absolute = slow_information(outputs, pairs)
    return {"information.signed": signed, "information.absolute": absolute}


def assert_flows(
    got: FlowReading, expected: dict[Any, tuple[float, ...]], tolerance: float
) -> None:
    """Compare information as it is, and gradients as fractions of the largest."""
    for name, vector in expected.items():
        scale = max(1.0, *vector) if name.startswith("gradient") else 1.0
        np.testing.assert_allclose(
            got.flows[name], vector, atol=tolerance * scale, rtol=0, err_msg=name
        )


def information(reading: FlowReading) -> dict[str, tuple[float, ...]]:
    return {name: v for name, v in reading.flows.items() if name.startswith("information")}


@every_model
@every_source
@every_type
def test_information_is_that_of_the_slow_twin(name: str, source: str, dtype: str) -> None:
    """(g) 1, 6, 7, 8: corrcoef and its means, in [-1, 1], dead layers 0, low precision."""
    case = case_of(name, dtype)
    reading = measure(case, source, [case.batches(EXAMPLES)[0]], keep_moments=True)
    assert_flows(reading, twin_information(case), ENTRIES[dtype])
    assert len(reading.flows["information.signed"]) == len(case.edges.edges)
    for edge in case.edges.edges:
        matrix = correlation(reading.moments, edge)  # type: ignore[arg-type]
        assert matrix.dtype == torch.float64
        assert bool((matrix.abs() <= 1 + 1e-9).all())
    # (g) 13
    assert reading.examples == EXAMPLES
    own = 0 if source == "training" else EXAMPLES
    assert (reading.forward_examples, reading.gradient_examples) == (0, own)


@every_model
@every_source
@pytest.mark.parametrize("dtype", CLOSE)
def test_low_precision_is_close_to_float64(name: str, source: str, dtype: str) -> None:
    """(g) 8."""
    exact, low = measure(case_of(name), source), measure(case_of(name, dtype), source)
    assert_flows(low, exact.flows if dtype == "float32" else information(exact), CLOSE[dtype])


@every_model
@every_source
@every_type
def test_batches_and_order_do_not_matter(name: str, source: str, dtype: str) -> None:
    """(g) 2, 9: any split, a last batch of one example, any order; per-batch is as documented.

    With autocast the kernels round differently for different batch sizes, by bfloat16's 4e-3.
    """
    tolerance = {"float64": 1e-10, "float32": 1e-4, "autocast": 0.15}[dtype]
    case = case_of(name, dtype)
    expected = measure(case, source, case.batches(EXAMPLES))
    for sizes in ((5, 8, 1), (1, 1, 1, 11)):
        assert_flows(measure(case, source, case.batches(*sizes)), expected.flows, tolerance)
    order = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(2))
    shuffled = list(
        zip(case.inputs[order].split([6, 8]), case.labels[order].split([6, 8]), strict=True)
    )
    assert_flows(measure(case, source, shuffled), expected.flows, tolerance)


@every_model
@every_source
@every_type
def test_gradients_are_those_of_the_slow_twin(name: str, source: str, dtype: str) -> None:
    """(g) 9, 10, 11: full and per batch, masked entries 0.

    The twin of ``full`` joins the batches, so with autocast it computes something else, and sums
    of float32 are rounded otherwise.
    """
    case = case_of(name, dtype)
    generator = torch.Generator().manual_seed(3)
    parameters = dict(case.model.named_parameters())
    masks = Masks(
        {n: torch.rand(parameters[n].shape, generator=generator) < 0.4 for n in case.parameters}
    )
    batches = case.batches(5, 8, 1)
    for given_masks in (None, masks):
        with case.context():
            twin = slow_gradient_flow(case.model, case.task, batches, case.parameters, given_masks)
        split = []
        for gradient in ("full", "per-batch"):
            options = {"kinds": ["gradient"], "gradient": gradient}
            reading = measure(case, source, batches, given_masks, **options)
            split.append(reading.flows["gradient.norm"])
            if gradient == "full" and dtype == "autocast":
                continue
            norms, means = twin[gradient]
            tolerance = 1e-10 if dtype == "float64" else 1e-4
            assert_flows(reading, {"gradient.norm": norms, "gradient.mean": means}, tolerance)
        assert split[1] != pytest.approx(split[0], rel=1e-2)


@every_model
@every_source
def test_other_batches_give_other_gradients(name: str, source: str) -> None:
    """(g) 10: nothing stale is read."""
    case = case_of(name)
    case.task.training_step(case.model, case.batches(EXAMPLES)[0]).backward()
    first, second = case.batches(7, 7)
    one, other = measure(case, source, [first]), measure(case, source, [second])
    assert one.flows["gradient.norm"] != pytest.approx(other.flows["gradient.norm"], rel=1e-3)
    assert measure(case, source, [first]).flows == one.flows


class Scaled(Classification):
    """The mean cross-entropy times -3."""

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        return -3 * super().training_step(model, batch)


@every_model
@every_source
def test_scaling_the_loss_scales_the_gradient_flow(
    name: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(g) 11."""
    case = case_of(name)
    plain = measure(case, source)
    batches = case.batches(EXAMPLES)
    monkeypatch.setattr(Case, "task", property(lambda _: Scaled(batches, batches)))
    scaled = measure(case, source)
    for flow in ("gradient.norm", "gradient.mean"):
        np.testing.assert_allclose(scaled.flows[flow], 3 * np.array(plain.flows[flow]), atol=1e-10)
    assert information(scaled) == information(plain)


def change_outputs(case: Case, layer: str, change: Any) -> contextlib.AbstractContextManager[Any]:
    """Change what a layer gives."""
    module = case.model.get_submodule(layer)

    def replace(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return change(output)  # type: ignore[no-any-return]

    stack = contextlib.ExitStack()
    stack.callback(module.register_forward_hook(replace).remove)
    return stack


def widths(case: Case) -> dict[str, int]:
    weights = {layer: case.model.get_submodule(layer).weight for layer in case.edges.layers}
    return {layer: len(weight) for layer, weight in weights.items()}  # type: ignore[arg-type]


def last_layer(case: Case) -> str:
    """A layer with no other behind it: what it gives changes nothing else."""
    return case.edges.edges[-1][1]


def along_channels(values: Tensor, output: Tensor) -> Tensor:
    return values.to(output.dtype).reshape(-1, *[1] * (output.ndim - 2))


@every_model
@every_source
@every_type
@settings(deadline=None, max_examples=2)
@given(
    factors=st.lists(st.floats(0.01, 100), min_size=CLASSES, max_size=CLASSES),
    shifts=st.lists(st.floats(-10, 10), min_size=CLASSES, max_size=CLASSES),
)
def test_rescaling_channels_changes_nothing(
    name: str, source: str, dtype: str, factors: list[float], shifts: list[float]
) -> None:
    """(g) 3: alpha x + beta with alpha > 0. Shifts cost float32 digits: 1e-7 x 10 / 0.01 at most.

    Under autocast the shifted outputs would be rounded to bfloat16, so they are widened first.
    """
    case = case_of(name, dtype)
    meter_options = {"kinds": ["information"]}
    before = information(measure(case, "probe", **meter_options))

    def rescale(output: Tensor) -> Tensor:
        wide = output.double() if dtype == "autocast" else output
        scale, shift = (along_channels(torch.tensor(v).double(), wide) for v in (factors, shifts))
        return wide * scale + shift

    with change_outputs(case, last_layer(case), rescale):
        after = information(measure(case, source, **meter_options))
    tolerance = 1e-9 if dtype == "float64" else 2e-2 if dtype == "float32" else 0.15
    for flow, vector in before.items():
        np.testing.assert_allclose(after[flow], vector, atol=tolerance, rtol=0)


@every_model
@every_source
def test_flipping_and_permuting_channels(name: str, source: str) -> None:
    """(g) 3: a flipped channel changes the signed mean only; permuting changes neither."""
    case = case_of(name)
    options = {"kinds": ["information"], "keep_moments": True}
    before = measure(case, source, **options)
    signs = torch.ones(CLASSES).double()
    signs[1] = -2.0
    with change_outputs(case, last_layer(case), lambda out: out * along_channels(signs, out)):
        flipped = measure(case, source, **options)
    with change_outputs(case, last_layer(case), lambda out: out.flip(1)):
        permuted = measure(case, source, **options)
    signed, absolute = "information.signed", "information.absolute"
    assert_flows(flipped, {absolute: before.flows[absolute]}, 1e-10)
    assert_flows(permuted, information(before), 1e-10)
    edge = case.edges.edges[-1]
    matrices = [correlation(reading.moments, edge) for reading in (before, flipped, permuted)]
    torch.testing.assert_close(matrices[1], matrices[0] * signs.sign())
    torch.testing.assert_close(matrices[2], matrices[0].flip(1))
    lost = 2 * float(matrices[0][:, 1].sum()) / matrices[0].numel()
    assert flipped.flows[signed][-1] == pytest.approx(before.flows[signed][-1] - lost, abs=1e-10)


@every_model
@every_source
@every_type
def test_dead_layers_give_zero_and_are_counted(name: str, source: str, dtype: str) -> None:
    """(g) 7: constant channels, among others a whole layer; never NaN."""
    case = case_of(name, dtype)
    last, first = last_layer(case), case.edges.edges[0][0]
    with torch.no_grad():
        module = case.model.get_submodule(last)
        module.weight.zero_()
        case.model.get_submodule(first).weight[0] = 0
    reading = measure(case, source)
    assert reading.is_finite
    assert reading.dead_units[last] == widths(case)[last]
    assert reading.dead_units[first] == 1
    for edge, signed, absolute in zip(
        case.edges.edges, *information(reading).values(), strict=True
    ):
        assert (signed == absolute == 0) == (edge[1] == last)


@every_model
@every_source
@settings(deadline=None, max_examples=2)
@given(shift=st.sampled_from([1e4, -1e4]), deviation=st.sampled_from([1e-2, 1e-1]))
def test_huge_means_cost_no_digits(name: str, source: str, shift: float, deviation: float) -> None:
    """(g) 7: means of 1e4 with deviations of 1e-2, in float64."""
    case = case_of(name)
    before = information(measure(case, source, kinds=["information"]))
    with change_outputs(case, last_layer(case), lambda out: out * deviation + shift):
        after = information(measure(case, source, kinds=["information"]))
    for flow, vector in before.items():
        np.testing.assert_allclose(after[flow], vector, atol=1e-6, rtol=0)


@every_model
@every_source
@settings(deadline=None, max_examples=2)
@given(border=st.integers(2, EXAMPLES - 2))
def test_moments_of_any_two_shares_merge_to_those_of_all(
    name: str, source: str, border: int
) -> None:
    """(g) 4."""
    case = case_of(name)
    options = {"kinds": ["information"], "keep_moments": True}
    whole, first, second = (
        measure(case, source, batches, **options).moments
        for batches in (
            case.batches(EXAMPLES),
            case.batches(border, EXAMPLES - border)[:1],
            case.batches(border, EXAMPLES - border)[1:],
        )
    )
    assert whole is not None
    assert first is not None
    assert second is not None
    merged = first.merge(second)
    for edge in case.edges.edges:
        np.testing.assert_allclose(correlation(merged, edge), correlation(whole, edge), atol=1e-10)


@every_model
@every_source
@every_type
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_example_names_its_layers_and_batch(
    name: str, source: str, dtype: str, bad: float
) -> None:
    case = case_of(name, dtype)
    case.inputs[6] = bad
    reading = measure(case, source)
    first = case.edges.edges[0][0]
    assert reading.non_finite[first] == 1
    assert not reading.is_finite
    assert {
        reading.non_finite[layer] for layer in case.edges.layers if layer in reading.non_finite
    } == {1}
    meter = FlowMeter(case.model, edges=case.edges, kinds=["information"])
    with pytest.raises(FlowError, match=f"'{first}' from batch 1 on"), case.context():
        meter.read(case.task, case.batches(5, 8, 1))


@every_model
@every_type
@pytest.mark.parametrize("gradient", ["full", "per-batch"])
@pytest.mark.parametrize("raises", [False, True])
def test_a_probe_leaves_no_trace_and_repeats_exactly(
    name: str, dtype: str, gradient: str, raises: bool
) -> None:
    """(g) 12."""
    case = case_of(name, dtype)
    case.model.train()
    case.task.training_step(case.model, case.batches(EXAMPLES)[0]).backward()
    before = trace_of(case.model)

    def batches() -> Any:
        yield from case.batches(5, 8, 1)
        if raises:
            raise OSError("disk gone")

    meter = FlowMeter(
        case.model,
        edges=case.edges,
        parameters=case.parameters,
        kinds=["information", "gradient"],
        gradient=gradient,  # type: ignore[arg-type]
    )
    readings = []
    for _ in range(2):
        with case.context():
            if raises:
                with pytest.raises(OSError, match="disk gone"):
                    meter.read(case.task, batches())
            else:
                readings.append(meter.read(case.task, batches()))
        assert trace_of(case.model) == before
    assert readings[:1] == readings[1:]


def trace_of(model: nn.Module) -> Any:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return (
        {n: (id(t), t._version, t.detach().numpy().tobytes()) for n, t in tensors.items()},
        [None if p.grad is None else (id(p.grad), p.grad._version) for p in model.parameters()],
        [module.training for module in model.modules()],
        [
            [len(hooks) for key, hooks in vars(module).items() if key.endswith("_hooks")]
            for module in model.modules()
        ],
        torch.get_rng_state().numpy().tobytes(),
    )
