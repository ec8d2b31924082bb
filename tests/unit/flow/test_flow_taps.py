from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from infcop.core.edges import Edges, Layout
from infcop.errors import FlowError
from infcop.flow.taps import pooled, tapped
from tests.reference.flow import slow_layout, slow_pool


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def hooks_of(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def paired(*layers, pairs=((0, 0),), layouts=None):
    """One edge between two layers, or of a layer with itself."""
    edge = (layers[0], layers[-1])
    return Edges((edge,), {edge: pairs}, layouts or {})


@pytest.mark.parametrize(
    ("module", "inputs", "channel_axis"),
    [
        (nn.Conv1d(2, 3, 2), (5, 2, 7), 1),
        (nn.Conv2d(2, 3, 2), (5, 2, 6, 7), 1),
        (nn.Conv3d(2, 3, 2), (5, 2, 3, 4, 5), 1),
        (nn.ConvTranspose2d(2, 3, 2), (5, 2, 6, 7), 1),
        (nn.Conv2d(2, 3, 1), (5, 2, 1, 1), 1),
        (nn.Linear(2, 3), (5, 2), -1),
        (nn.Linear(2, 3), (5, 4, 2), -1),
        (nn.Linear(2, 3), (5, 4, 6, 2), -1),
        (nn.BatchNorm1d(3), (5, 3), -1),
    ],
)
def test_pools_everything_but_examples_and_channels(module, inputs, channel_axis):
    output = module.eval()(normal(*inputs)).detach()
    result = pooled(module, output)
    assert result.shape == (5, 3)
    np.testing.assert_allclose(result, slow_pool(output, channel_axis), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("shape", [(4, 3), (4, 50, 3)])
def test_pools_in_float32_at_least(dtype, kept, shape):
    output = normal(*shape, dtype=dtype)
    result = pooled(nn.Linear(2, 3), output)
    assert result.dtype == kept
    exact = output.double() if len(shape) == 2 else output.double().mean(dim=1)
    torch.testing.assert_close(result.double(), exact, atol=1e-6, rtol=1e-6)


def test_half_precision_mean_does_not_overflow():
    output = torch.full((2, 1, 64, 64), 60000.0, dtype=torch.float16)
    assert pooled(nn.Conv2d(1, 1, 1), output).tolist() == [[60000.0], [60000.0]]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1, 1)])
def test_result_is_a_detached_copy(shape):
    output = normal(*shape).requires_grad_()
    module = nn.Linear(2, 3) if len(shape) == 2 else nn.Conv2d(2, 3, 1)
    result = pooled(module, output)
    assert not result.requires_grad
    with torch.no_grad():
        output.zero_()
    assert bool((result != 0).all())


@pytest.mark.parametrize(
    ("module", "output"),
    [
        (nn.Conv2d(1, 3, 1), torch.zeros(3, 4, 4)),
        (nn.Linear(2, 3), torch.zeros(3)),
        (nn.Embedding(2, 3), torch.zeros(4, 5, 3)),
        (nn.Linear(2, 3), torch.zeros(4, 3, dtype=torch.complex64)),
    ],
)
def test_outputs_without_a_known_batch_and_channel_axis_are_refused(module, output):
    with pytest.raises(FlowError, match=re.escape(f"got {tuple(output.shape)}")):
        pooled(module, output)


@pytest.mark.parametrize(
    ("module", "shape", "channel_axis", "layout"),
    [
        (nn.Linear(2, 3), (12, 5, 3), -1, Layout(fold=4)),
        (nn.Linear(2, 3), (12, 5, 3), -1, Layout(fold=4, example_first=False)),
        (nn.Linear(2, 3), (12, 3), -1, Layout(fold=4)),
        (nn.Linear(2, 3), (12, 3), -1, Layout(fold=4, example_first=False)),
        (nn.Linear(2, 3), (7, 4, 3), -1, Layout(axis=1)),
        (nn.Linear(2, 3), (2, 7, 6, 3), -1, Layout(axis=2, fold=2)),
        (nn.Linear(2, 3), (7, 6, 3), -1, Layout(axis=1, fold=3, example_first=False)),
        (nn.Conv1d(2, 3, 1), (12, 3, 5), 1, Layout(fold=6)),
        (nn.Conv2d(2, 3, 1), (12, 3, 4, 5), 1, Layout(fold=3, example_first=False)),
        (nn.Conv1d(2, 3, 1), (5, 3, 8), 1, Layout(axis=2, fold=2)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_layouts_say_which_entries_belong_to_an_example(module, shape, channel_axis, layout, dtype):
    output = normal(*shape, dtype=dtype)
    result = pooled(module, output, layout)
    expected = slow_layout(output.double(), channel_axis, *vars(layout).values())
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-14 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("layout", [Layout(axis=1), Layout(fold=2), Layout(axis=1, fold=2)])
@pytest.mark.parametrize("rest", [(), (1,)])
def test_result_with_a_layout_is_a_copy_too(layout, rest):
    module = nn.Conv1d(2, 3, 1) if rest and layout.axis == 0 else nn.Linear(2, 3)
    output = normal(4, 6, 3) if layout.axis else normal(4, 3, *rest)
    result = pooled(module, output, layout)
    before = result.clone()
    output.zero_()
    assert torch.equal(result, before)


@pytest.mark.parametrize(
    ("module", "shape", "layout"),
    [
        (nn.Linear(2, 3), (7, 3), Layout(fold=2)),
        (nn.Linear(2, 3), (6, 3), Layout(axis=1)),
        (nn.Conv2d(2, 3, 1), (6, 3, 2, 2), Layout(axis=1)),
    ],
)
def test_layouts_that_do_not_fit_are_refused(module, shape, layout):
    with pytest.raises(FlowError, match=re.escape(f"along axis {layout.axis}, {layout.fold} ent")):
        pooled(module, torch.zeros(shape), layout)


def test_in_place_activation_does_not_change_what_was_collected():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    inputs = normal(6, 3)
    with torch.no_grad(), tapped(model, Edges.of([("0", "2")])) as taps:
        output = model(inputs)
        (taken,) = taps.take()
    assert torch.equal(taken["0", 0], model[0](inputs).detach())
    assert bool((taken["0", 0] < 0).any())
    assert torch.equal(taken["2", 0], output)


def test_takes_every_batch_anew():
    model = nn.Linear(2, 3)
    first, second = normal(4, 2), normal(5, 2)
    with tapped(model, paired("")) as taps:
        model(first)
        one = taps.take()
        model(second)
        two = taps.take()
        assert taps.take() == []
    assert [len(one[0]["", 0]), len(two[0]["", 0])] == [4, 5]


def test_several_passes_between_two_takes_stay_apart():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with tapped(model, Edges.of([("0", "1")])) as taps:
        for examples in (4, 1, 6):
            model(normal(examples, 2))
        passes = taps.take()
    assert [len(one["0", 0]) for one in passes] == [4, 1, 6]


def test_layers_that_run_without_the_model_count_as_one_pass_per_take():
    model = nn.ModuleDict({"one": nn.Linear(2, 3), "two": nn.Linear(3, 2)})
    with tapped(model, Edges.of([("one", "two")])) as taps:
        for examples in (4, 5):
            model["two"](model["one"](normal(examples, 2)))
            (one,) = taps.take()
            assert {tap: len(rows) for tap, rows in one.items()} == {
                ("one", 0): examples,
                ("two", 0): examples,
            }


class Failing(nn.Module):
    """Fails between its two layers when asked to."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.fails = nn.Linear(2, 3), nn.Linear(3, 2), False

    def forward(self, inputs):
        hidden = self.one(inputs)
        if self.fails:
            raise ZeroDivisionError
        return self.two(hidden)


def test_a_pass_that_failed_in_the_middle_is_forgotten():
    model = Failing()
    with tapped(model, Edges.of([("one", "two")])) as taps:
        model.fails = True
        with pytest.raises(ZeroDivisionError):
            model(normal(4, 2))
        model.fails = False
        model(normal(5, 2))
        (one,) = taps.take()
    assert {tap: len(rows) for tap, rows in one.items()} == {("one", 0): 5, ("two", 0): 5}


def test_hooks_are_removed_also_after_an_exception():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    kept = model[0].register_forward_hook(lambda *_: None)
    edges = Edges.of([("0", "1")])
    with tapped(model, edges):
        assert hooks_of(model) == 5
    assert hooks_of(model) == 1
    with pytest.raises(ZeroDivisionError), tapped(model, edges):
        1 / 0  # noqa: B018
    assert hooks_of(model) == 1
    kept.remove()


def test_no_edges_need_no_hooks():
    model = nn.Sequential(nn.Linear(2, 3))
    with tapped(model, Edges(())) as taps:
        assert hooks_of(model) == 0
        model(normal(4, 2))
        assert taps.take() == []


def test_unknown_layer_is_refused_with_the_nearest_and_no_hook_is_left():
    model = nn.ModuleDict({"stem": nn.Linear(2, 2)})
    edges = Edges.of([("stem", "steam")])
    with pytest.raises(FlowError, match="no layer 'steam' of an edge; did you mean 'stem'"):
        tapped(model, edges).__enter__()
    assert hooks_of(model) == 0


def test_output_that_is_no_tensor_names_the_layer():
    model = nn.Sequential(nn.LSTM(2, 3))
    with (
        pytest.raises(FlowError, match="layer '0' to return a tensor, got tuple"),
        tapped(model, paired("0")),
    ):
        model(torch.zeros(4, 5, 2))
    assert hooks_of(model) == 0


class Twice(nn.Module):
    """A trunk that runs twice, and a head that takes both results."""

    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.head(self.trunk(inputs) + self.trunk(2 * inputs))


def test_calls_of_a_layer_are_kept_apart():
    model, inputs = Twice(), normal(5, 2)
    with torch.no_grad(), tapped(model, paired("trunk", "head", pairs=((0, 0), (1, 0)))) as taps:
        for _ in range(2):  # The count starts anew in every pass.
            model(inputs)
        passes = taps.take()
        expected = [model.trunk(inputs), model.trunk(2 * inputs)]
    for one in passes:
        assert list(one) == [("trunk", 0), ("trunk", 1), ("head", 0)]
        assert torch.equal(one["trunk", 0], expected[0])
        assert torch.equal(one["trunk", 1], expected[1])


def test_calls_that_no_traced_edge_asks_for_are_ignored():
    model, inputs = Twice(), normal(5, 2)
    with torch.no_grad(), tapped(model, paired("trunk", "head", pairs=((1, 0),))) as taps:
        model(inputs)
        (one,) = taps.take()
        assert list(one) == [("trunk", 1), ("head", 0)]
        assert torch.equal(one["trunk", 1], model.trunk(2 * inputs))


def test_a_second_call_is_ambiguous_without_traced_pairs():
    model = Twice()
    with (
        pytest.raises(FlowError, match="'trunk' to run once per forward pass, but it ran again"),
        tapped(model, Edges.of([("trunk", "head")])),
    ):
        model(normal(5, 2))
    assert hooks_of(model) == 0


def test_a_layer_that_did_not_run_is_not_in_the_pass():
    model = nn.ModuleDict({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)})
    with tapped(model, Edges.of([("one", "two")])) as taps:
        model["one"](torch.zeros(3, 2))
        (one,) = taps.take()
    assert list(one) == [("one", 0)]


def test_layouts_belong_to_calls():
    """The second call has its windows folded into the first axis."""
    model = nn.ModuleDict({"one": nn.Linear(2, 2)})
    layouts = {("one", 1): Layout(fold=3)}
    with tapped(model, paired("one", pairs=((0, 1),), layouts=layouts)) as taps:
        model["one"](normal(4, 2))
        model["one"](normal(12, 2))
        (one,) = taps.take()
    assert {tap: len(rows) for tap, rows in one.items()} == {("one", 0): 4, ("one", 1): 4}


@pytest.mark.parametrize("training_only", [False, True])
def test_evaluation_can_be_ignored(training_only):
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 2))
    with tapped(model, Edges.of([("0", "2")]), training_only=training_only) as taps:
        model(normal(4, 2))
        model.eval()(normal(5, 2))
        model.train()(normal(6, 2))
        sizes = [len(one["0", 0]) for one in taps.take()]
    assert sizes == ([4, 6] if training_only else [4, 5, 6])


class Checkpointed(nn.Module):
    """Computes its middle layers again during the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 2)
        self.reentrant, self.runs = reentrant, 0

    def middle(self, hidden):
        self.runs += 1
        return self.two(hidden.relu()).relu()

    def forward(self, inputs):
        hidden = checkpoint(self.middle, self.one(inputs), use_reentrant=self.reentrant)
        return self.three(hidden)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_checkpoint_computes_again_is_collected_once(reentrant):
    model = Checkpointed(reentrant)
    with tapped(model, Edges.of([("one", "two"), ("two", "three")])) as taps:
        for examples in (4, 5):
            model(normal(examples, 2)).sum().backward()
            (one,) = taps.take()
            assert {tap: len(rows) for tap, rows in one.items()} == {
                ("one", 0): examples,
                ("two", 0): examples,
                ("three", 0): examples,
            }
    assert model.runs == 4


def test_fused_attention_blocks_still_run_their_linear_layers():
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad(), tapped(block, Edges.of([("linear1", "linear2")])) as taps:
        block(normal(3, 5, 8))
        (taken,) = taps.take()
    assert taken["linear1", 0].shape == (3, 16)
