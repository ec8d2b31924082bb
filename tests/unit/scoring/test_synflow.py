from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from infcop.core.mask import Masks
from infcop.core.score import SynFlow
from infcop.errors import PruningError
from infcop.models.prunable import find_prunable
from infcop.scoring.gather import gather, score_all
from infcop.tasks.classification import Classification
from tests.reference.scores import slow_synflow


def perceptron(sizes=(5, 7, 6, 3), bias=False, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def pruned(model, keep=0.6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in find_prunable(model).names:
            weight = model.get_parameter(name)
            weight.mul_(torch.rand(weight.shape, generator=generator) < keep)
    return model


def scored(model, inputs, score=None):
    score = score or SynFlow()
    names = find_prunable(model).names
    batch = (inputs, torch.zeros(len(inputs), dtype=torch.int64))
    task = Classification([batch], [batch])
    evidence = gather(score, model, names, task, lambda: [batch], seed=0)
    weights = {name: model.get_parameter(name) for name in names}
    masks = Masks({name: weight != 0 for name, weight in weights.items()})
    return score_all(score, weights, evidence.values, masks)


def flow(model, inputs, double=False):
    """The sum of the outputs of the network of absolute values, for ones."""
    positive = copy.deepcopy(model).eval()
    if double:
        positive.double()
    for parameter in positive.parameters():
        parameter.data = parameter.data.abs()
    with torch.no_grad():
        return float(positive(torch.ones_like(inputs[:1])).sum())


@settings(deadline=None, max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    seed=st.integers(0, 99),
    keep=st.sampled_from([1.0, 0.8]),
)
def test_scores_of_a_perceptron_are_the_closed_form(sizes, seed, keep):
    model = pruned(perceptron(sizes, seed=seed), keep, seed)
    names = find_prunable(model).names
    weights = [model.get_parameter(name).detach().numpy() for name in names]
    expected, total = slow_synflow(weights)
    inputs = torch.zeros(2, sizes[0], dtype=torch.float64)
    if total == 0:
        with pytest.raises(PruningError, match="expected flow from the input to the output"):
            scored(model, inputs)
        return
    found = scored(model, inputs)
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-10, atol=1e-300)
        assert float(found[name].sum()) == pytest.approx(total, rel=1e-6)


def test_what_enters_a_neuron_leaves_it():
    found = scored(pruned(perceptron(), 0.8), torch.zeros(1, 5, dtype=torch.float64))
    for before, after in (("0.weight", "2.weight"), ("2.weight", "4.weight")):
        torch.testing.assert_close(found[before].sum(dim=1), found[after].sum(dim=0))


def test_with_biases_the_flow_of_later_ones_is_added():
    model = perceptron(bias=True)
    inputs = torch.zeros(1, 5, dtype=torch.float64)
    found = scored(model, inputs)
    total = flow(model, inputs)
    positive = copy.deepcopy(model)
    for parameter in positive.parameters():
        parameter.data = parameter.data.abs()
    positive(torch.ones_like(inputs)).sum().backward()
    biases = [
        float(positive[place].bias.detach() @ positive[place].bias.grad) for place in (0, 2, 4)
    ]
    for layer, name in enumerate(find_prunable(model).names):
        assert float(found[name].sum()) + sum(biases[layer:]) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_of_a_convolutional_network_sum_to_the_flow(pool, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        pool,
        nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6, 3, bias=False),
    ).to(dtype)
    inputs = torch.randn(3, 2, 12, 12, dtype=dtype)
    found = scored(model, inputs)
    total = flow(model, inputs)
    for values in found.values():
        assert float(values.sum()) == pytest.approx(
            total, rel=1e-9 if dtype.itemsize == 8 else 1e-5
        )


def test_parallel_branches_share_the_flow():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.head = nn.Linear(4, 2, bias=False)

        def forward(self, inputs):
            return self.head(functional.relu(self.a(inputs)) + self.b(inputs))

    torch.manual_seed(0)
    model, inputs = Residual().double(), torch.zeros(1, 4, dtype=torch.float64)
    found = {name: float(values.sum()) for name, values in scored(model, inputs).items()}
    assert found["head.weight"] == pytest.approx(flow(model, inputs))
    assert found["a.weight"] + found["b.weight"] == pytest.approx(flow(model, inputs))


def test_a_trained_batch_norm_is_its_positive_scale():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    torch.manual_seed(0)
    norm = model[1]
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_(std=100)
        norm.running_var.uniform_(0.5, 2)
    scale = norm.weight.detach().abs() / (norm.running_var + norm.eps).sqrt()
    plain = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2)).double()
    with torch.no_grad():
        plain[0].weight.copy_(model[0].weight * scale[:, None])
        plain[1].weight.copy_(model[2].weight)
        plain[1].bias.copy_(model[2].bias)
    inputs = torch.zeros(2, 3, dtype=torch.float64)
    found, expected = scored(model, inputs), scored(plain, inputs)
    torch.testing.assert_close(list(found.values()), list(expected.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_and_data_do_not_matter(dtype):
    model = perceptron(bias=True, dtype=dtype)
    found = scored(model, torch.randn(4, 5, dtype=dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0))
    again = scored(model, torch.full((2, 5), 1e6, dtype=dtype))
    for name, values in found.items():
        assert torch.equal(values, again[name])


def test_scaling_a_layer_scales_all_scores_alike():
    model, inputs = perceptron(), torch.zeros(1, 5, dtype=torch.float64)
    found = scored(model, inputs)
    with torch.no_grad():
        model[2].weight.mul_(7)
    for name, values in scored(model, inputs).items():
        torch.testing.assert_close(values, 7 * found[name])


def test_a_shared_weight_carries_the_flow_of_all_its_uses():
    model, inputs = perceptron((4, 4, 4)), torch.zeros(1, 4, dtype=torch.float64)
    model[2].weight = model[0].weight
    found = scored(model, inputs)
    assert list(found) == ["0.weight"]
    assert float(found["0.weight"].sum()) == pytest.approx(2 * flow(model, inputs))


# Overflow and underflow.


@pytest.mark.parametrize("size", [1e30, 1e-30, 1e12, 1e-12])
def test_float32_networks_that_leave_their_range_are_scored_in_float64(size):
    model = perceptron(dtype=torch.float32)
    inputs = torch.zeros(1, 5)
    with torch.no_grad():
        for layer in (0, 2, 4):
            model[layer].weight.mul_(size)
    weights = [model[layer].weight.detach().numpy() for layer in (0, 2, 4)]
    expected, total = slow_synflow(weights)
    found = scored(model, inputs)
    for values, slow in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(values.numpy(), slow, rtol=1e-4)
    assert total > 0


def test_a_flow_beyond_float64_is_an_error():
    model = perceptron()
    with torch.no_grad():
        for layer in (0, 2, 4):
            model[layer].weight.mul_(1e200)
    with pytest.raises(PruningError, match="expected a finite flow, got inf in float64 too"):
        scored(model, torch.zeros(1, 5, dtype=torch.float64))


def test_a_flow_that_only_overflows_when_scaled_is_no_matter_of_activations():
    model = perceptron()
    inputs = torch.zeros(1, 5, dtype=torch.float64)
    with torch.no_grad():
        model[4].weight.mul_(1e305 / flow(model, inputs))
    assert flow(model, inputs) == pytest.approx(1e305)
    with pytest.raises(PruningError, match="expected a finite flow, got inf in float64 too"):
        scored(model, inputs)
    assert scored(model, inputs, SynFlow(any_activation=True))


# Networks that are refused.


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_without_a_path_is_dead(bias, dtype):
    model = perceptron(bias=bias, dtype=dtype)
    with torch.no_grad():
        model[2].weight.zero_()
    for score in (SynFlow(), SynFlow(any_activation=True)):
        with pytest.raises(PruningError, match="dead, or pruned until no path is left"):
            scored(model, torch.zeros(1, 5, dtype=dtype), score)


def test_a_layer_off_the_paths_scores_nothing_and_is_no_error():
    model = perceptron((3, 3, 3, 2))
    with torch.no_grad():
        model[0].weight[1:] = 0
        model[2].weight[:, 1:] = 0
        model[2].weight[1:] = 0
        model[4].weight[:, 1:] = 0
        model[4].weight[0, 1] = 1.0
    found = scored(model, torch.zeros(1, 3, dtype=torch.float64))
    assert found["4.weight"][0, 1] == 0
    assert found["4.weight"][0, 0] > 0


class Functional(nn.Module):
    def __init__(self, function, size=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)
        self._function = function
        with torch.no_grad():
            self.a.weight.mul_(size)

    def forward(self, inputs):
        return self.b(self._function(self.a(inputs)))


CURVED = {
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: functional.softmax(x, dim=-1),
    "layer norm": lambda x: functional.layer_norm(x, (6,)),
    "silu": functional.silu,
    "relu6": functional.relu6,
    "square": torch.square,
    "norm": lambda x: functional.normalize(x, dim=-1),
}


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("size", [1.0, 1e4, 1e-4])
def test_activations_that_are_not_homogeneous_are_found(name, size):
    model, inputs = Functional(CURVED[name], size), torch.zeros(2, 6)
    with pytest.raises(PruningError, match=r"positively homogeneous.*set score.any_activation"):
        scored(model, inputs)


def test_any_activation_can_be_scored_on_demand():
    model, inputs = Functional(functional.gelu), torch.zeros(2, 6)
    found = scored(model, inputs, SynFlow(any_activation=True))
    assert all(float(values.sum()) > 0 for values in found.values())


@pytest.mark.parametrize(
    "function", [functional.relu, lambda x: functional.leaky_relu(x, 0.2), lambda x: x, torch.abs]
)
def test_homogeneous_activations_pass(function):
    assert scored(Functional(function), torch.zeros(2, 6))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_have_to_be_finite(value):
    model = perceptron(bias=True)
    with torch.no_grad():
        model[2].bias[0] = value
    with pytest.raises(PruningError, match=r"finite parameters, got NaN or infinity in '2.bias'"):
        scored(model, torch.zeros(1, 5, dtype=torch.float64))


def test_parameters_have_to_be_real():
    model = perceptron()
    model.phase = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    with pytest.raises(PruningError, match=r"real and finite parameters, got complex.*'phase'"):
        scored(model, torch.zeros(1, 5, dtype=torch.float64))


@pytest.mark.parametrize("kept", [4, 6])
def test_a_hundred_small_cuts_never_empty_a_layer(kept):
    """Down to a single weight per layer, as maximal critical compression demands."""
    model = perceptron((20, 64, 64, 64, 8))
    inputs = torch.zeros(1, 20, dtype=torch.float64)
    names = find_prunable(model).names
    total = sum(model.get_parameter(name).numel() for name in names)
    for step in range(1, 101):
        scores = scored(model, inputs)
        removed = int((1 - (kept / total) ** (step / 100)) * total + 1e-6)
        flat = torch.cat([scores[name].flatten() for name in names])
        gone = torch.zeros(total, dtype=torch.bool)
        gone[flat.argsort(stable=True)[:removed]] = True
        parts = gone.split([scores[name].numel() for name in names])
        with torch.no_grad():
            for name, part in zip(names, parts, strict=True):
                weight = model.get_parameter(name)
                weight[part.view(weight.shape)] = 0
    left = [int((model.get_parameter(name) != 0).sum()) for name in names]
    assert sum(left) == kept
    assert min(left) >= 1
    assert flow(model, inputs) > 0


class Named(nn.Module):
    """Takes several inputs by keyword, and gives its output in a mapping."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 2, bias=False), nn.Linear(4, 2, bias=False)

    def forward(self, *, left, right, scale=1):
        return {"logits": self.left(left) + scale * self.right(right), "note": "text"}


class KeywordTask(Classification):
    def __init__(self, inputs):
        super().__init__([inputs], [inputs])

    def inputs(self, batch):
        return batch

    def batch_size(self, batch):
        return 2


def gathered(model, inputs):
    names = find_prunable(model).names
    return gather(SynFlow(), model, names, KeywordTask(inputs), lambda: [inputs], seed=0)


def test_every_input_by_keyword_becomes_ones():
    model = Named()
    evidence = gathered(model, {"left": torch.zeros(2, 3), "right": torch.zeros(2, 4), "scale": 3})
    assert torch.equal(evidence.values["left.weight"], torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(evidence.values["right.weight"], torch.full((2, 4), 3.0).double())


def test_inputs_of_other_kinds_are_refused():
    with pytest.raises(PruningError, match=r"floating-point inputs.*got int64 \[2, 3\]"):
        gathered(Named(), (torch.zeros(2, 3, dtype=torch.int64),))
    with pytest.raises(PruningError, match=r"floating-point inputs.*got str"):
        gathered(Named(), ("text",))


def test_a_model_that_rejects_ones_is_told():
    with pytest.raises(PruningError, match=r"rejected an example of ones \(float32 \[1, 7\]\)"):
        scored(perceptron(dtype=torch.float32), torch.zeros(2, 7))


def test_outputs_without_tensors_or_gradients_are_refused():
    class Other(nn.Module):
        def __init__(self, pack):
            super().__init__()
            self.fc, self.pack = nn.Linear(3, 2), pack

        def forward(self, inputs):
            return self.pack(self.fc(inputs))

    inputs = torch.zeros(1, 3)
    with pytest.raises(PruningError, match=r"expected the model to return tensors.*got str"):
        scored(Other(str), inputs)
    with pytest.raises(PruningError, match="depend on the weights, got detached ones"):
        scored(Other(torch.detach), inputs)


def test_models_that_cannot_be_copied_are_refused():
    model = perceptron()
    model.held = model[0].weight * 2
    with pytest.raises(PruningError, match=r"can be copied, but copy.deepcopy says"):
        scored(model, torch.zeros(1, 5, dtype=torch.float64))


def test_integer_buffers_and_frozen_statistics_are_handled():
    class Frozen(nn.Module):
        """Normalises by buffers, as detectors do."""

        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.tensor([-2.0, 3.0]))
            self.register_buffer("bias", torch.tensor([5.0, -5.0]))
            self.register_buffer("running_mean", torch.tensor([9.0, -9.0]))
            self.register_buffer("running_var", torch.tensor([1.0, 4.0]))
            self.register_buffer("order", torch.tensor([1, -2]))

        def forward(self, inputs):
            assert self.order.tolist() == [1, -2]
            scale = self.weight / self.running_var.sqrt()
            return inputs * scale + self.bias - self.running_mean * scale

    model = nn.Sequential(nn.Linear(1, 2, bias=False), Frozen())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    assert scored(model, torch.zeros(1, 1))["0.weight"].flatten().tolist() == [2.0, 1.5]


def test_cost_counts_passes_of_one_example():
    model = perceptron()
    batch = torch.zeros(9, 5, dtype=torch.float64), torch.zeros(9, dtype=torch.int64)
    task = Classification([batch], [batch])
    for score, measuring in ((SynFlow(), 4), (SynFlow(any_activation=True), 0)):
        cost = gather(score, model, ["0.weight"], task, lambda: [batch], seed=0).cost
        assert (cost.measuring, cost.measuring_gradient) == (measuring, 1)


def test_what_was_checked_before_is_not_checked_again():
    model = pruned(perceptron(dtype=torch.float32))
    batch = torch.zeros(9, 5), torch.zeros(9, dtype=torch.int64)
    names, task = find_prunable(model).names, Classification([batch], [batch])
    first, again = (
        gather(SynFlow(), model, names, task, lambda: [batch], seed=0, checked=checked)
        for checked in (False, True)
    )
    assert (again.cost.measuring, again.cost.measuring_gradient) == (0, 1)
    assert first.cost.measuring > 0
    assert all(torch.equal(value, again.values[name]) for name, value in first.values.items())
    # Only who says so is spared: a network that has another activation is refused by default.
    model[1] = nn.Tanh()
    assert gather(SynFlow(), model, names, task, lambda: [batch], seed=0, checked=True).values
    with pytest.raises(PruningError, match="positively homogeneous"):
        gather(SynFlow(), model, names, task, lambda: [batch], seed=0)


@pytest.mark.parametrize("checked", [False, True])
def test_a_dead_network_is_told_with_and_without_the_check(checked):
    model = perceptron()
    with torch.no_grad():
        model[2].weight.zero_()
    batch = torch.zeros(1, 5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    task = Classification([batch], [batch])
    with pytest.raises(PruningError, match="dead, or pruned until no path is left"):
        gather(SynFlow(), model, ["0.weight"], task, lambda: [batch], seed=0, checked=checked)


def test_without_a_batch_the_shape_is_not_known():
    task = Classification([0], [0])
    with pytest.raises(PruningError, match="at least one batch with an example"):
        gather(SynFlow(), perceptron(), ["0.weight"], task, list, seed=0)
