from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from infcop.core.mask import Masks
from infcop.core.score import Fisher, Grasp, Snip, Taylor
from infcop.errors import PruningError
from infcop.scoring.gather import gather, score_all
from infcop.tasks.classification import Classification
from tests.reference.scores import slow_gradient, slow_hessian_gradient

NAMES = ["0.weight", "2.weight"]
GRADIENT_SCORES = [Snip(), Taylor(), Grasp(), Grasp(temperature=1), Fisher()]


def data(count=12, features=4, classes=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, features, generator=generator, dtype=dtype)
    return inputs, torch.randint(0, classes, (count,), generator=generator)


def split(batch, sizes):
    return list(zip(*(part.split(sizes) for part in batch), strict=True))


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def gathered(score, model, batches, names=NAMES, task=None, seed=0):
    task = task or Classification(batches, batches)
    return gather(score, model, names, task, lambda: batches, seed=seed)


def scored(score, model, batches, names=NAMES, **options):
    evidence = gathered(score, model, batches, names, **options)
    weights = {name: model.get_parameter(name) for name in names}
    masks = Masks.full({name: tuple(weight.shape) for name, weight in weights.items()})
    return score_all(score, weights, evidence.values, masks)


def pruned(model, seed=1):
    """Set some weights to zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in NAMES:
            weight = model.get_parameter(name)
            weight.mul_(torch.rand(weight.shape, generator=generator) < 0.6)
    return model


class Regression:
    """Mean squared error of a model that is called as it is."""

    train_loader = held_out_loader = test_loader = probe_loader = None

    def training_step(self, model, batch):
        return functional.mse_loss(model(batch[0]), batch[1])

    def inputs(self, batch):
        return (batch[0],)

    def batch_size(self, batch):
        return len(batch[0])


def test_snip_is_what_masks_do_to_the_loss_by_finite_differences():
    model, batch = network(dtype=torch.float64), data(dtype=torch.float64)
    task = Classification([batch], [batch])
    found = scored(Snip(), model, [batch])
    effects = {}
    for name in NAMES:
        weight = model.get_parameter(name).detach().clone()
        effect = np.zeros(tuple(weight.shape))
        for index in np.ndindex(*effect.shape):
            ends = []
            for factor in (1 + 1e-5, 1 - 1e-5):
                moved = copy.deepcopy(model)
                with torch.no_grad():
                    moved.get_parameter(name)[index] *= factor
                ends.append(task.training_step(moved, batch).item())
            effect[index] = abs(ends[0] - ends[1]) / 2e-5
        effects[name] = effect
    total = sum(effect.sum() for effect in effects.values())
    for name, effect in effects.items():
        np.testing.assert_allclose(found[name].numpy(), effect / total, rtol=1e-5, atol=1e-9)


def test_snip_sums_to_one_and_orders_like_taylor():
    model, batch = network(), data()
    snip, taylor = (scored(score, model, [batch]) for score in (Snip(), Taylor()))
    assert sum(float(values.sum()) for values in snip.values()) == pytest.approx(1, abs=1e-12)
    ratios = torch.cat([(snip[name] / taylor[name]).flatten() for name in NAMES])
    assert float(ratios.min()) == pytest.approx(float(ratios.max()), rel=1e-9)


def test_taylor_is_weight_times_gradient():
    model, batch = network(), data()
    task = Classification([batch], [batch])
    found = scored(Taylor(), model, [batch])
    for name in NAMES:
        weight = model.get_parameter(name).detach().double().numpy()
        expected = np.abs(weight * slow_gradient(model, task, [batch], name))
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 200.0])
def test_grasp_is_weight_times_the_dense_hessian_times_gradient(temperature):
    model, batch = pruned(network(dtype=torch.float64)), data(dtype=torch.float64)
    batches = split(batch, [5, 1, 6])
    task = Classification(batches, batches)
    expected = slow_hessian_gradient(model, task, batches, NAMES, temperature)
    found = scored(Grasp(temperature=temperature), model, batches)
    for name in NAMES:
        weight = model.get_parameter(name).detach()
        np.testing.assert_allclose(found[name], weight * expected[name], rtol=1e-8, atol=1e-15)


def test_keeping_what_grasp_scores_high_keeps_the_gradient_flow():
    """A weight with a high score holds the gradient up: without it the gradient is smaller."""
    model, batch = network(dtype=torch.float64), data(dtype=torch.float64)
    score = Grasp(temperature=1.0)
    found = scored(score, model, [batch])
    flat = torch.cat([found[name].flatten() for name in NAMES])

    def flow_without(place):
        changed = copy.deepcopy(model)
        with torch.no_grad():
            offset = 0
            for name in NAMES:
                weight = changed.get_parameter(name).view(-1)
                if 0 <= place - offset < weight.numel():
                    weight[place - offset] *= 1 - 1e-4
                offset += weight.numel()
        values = gathered(Taylor(), changed, [batch]).values.values()
        return sum(float(value.square().sum()) for value in values)

    assert flow_without(int(flat.argmax())) < flow_without(-1) < flow_without(int(flat.argmin()))


@pytest.mark.parametrize("score", GRADIENT_SCORES, ids=str)
@settings(deadline=None, max_examples=8)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_the_split_into_batches_does_not_matter(score, sizes, seed):
    model, batch = network(seed, torch.float64), data(sum(sizes), seed=seed, dtype=torch.float64)
    whole = gathered(score, model, [batch])
    parts = gathered(score, model, split(batch, sizes))
    for name in NAMES:
        np.testing.assert_allclose(parts.values[name], whole.values[name], rtol=1e-9, atol=1e-14)
    assert parts.cost == whole.cost


def test_the_split_hardly_matters_in_float32():
    model, batch = network(), data(64)
    whole, parts = (gathered(Snip(), model, split(batch, size)) for size in (64, 1))
    for name in NAMES:
        np.testing.assert_allclose(parts.values[name], whole.values[name], rtol=1e-4, atol=1e-7)


def test_fisher_is_the_mean_of_squared_gradients_of_single_examples():
    model, batch = network(dtype=torch.float64), data(7, dtype=torch.float64)
    found = scored(Fisher(), model, split(batch, [4, 3]))
    each = [gathered(Taylor(), model, [one]).values for one in split(batch, [1] * 7)]
    for name in NAMES:
        information = sum(one[name] ** 2 for one in each) / 7
        expected = model.get_parameter(name).detach() ** 2 * information / 2
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)


@pytest.mark.parametrize("score", GRADIENT_SCORES, ids=str)
def test_a_shared_weight_gets_the_sum_of_its_uses(score):
    torch.manual_seed(0)
    shared = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    apart = copy.deepcopy(shared)
    shared[2].weight = shared[0].weight
    with torch.no_grad():
        apart[2].weight.copy_(apart[0].weight)
    batch = data(6, features=3, dtype=torch.float64)
    one = gathered(score, shared, [batch], ["0.weight"]).values["0.weight"]
    if isinstance(score, Snip | Taylor):
        two = gathered(score, apart, [batch]).values
        torch.testing.assert_close(one, two["0.weight"] + two["2.weight"])
    again = gathered(score, shared, [batch], ["2.weight"]).values["2.weight"]
    assert torch.equal(one, again)
    assert one.abs().sum() > 0


def test_costs_count_examples():
    model, batch = network(), data(10)
    costs = {
        score.kind: gathered(score, model, split(batch, [8, 2])).cost.measuring_gradient
        for score in (Snip(), Taylor(), Grasp(), Fisher())
    }
    assert costs == {"snip": 10, "taylor": 10, "grasp": 40, "fisher": 10}


@pytest.mark.parametrize("score", [Snip(mode="train"), Taylor(mode="train"), Grasp(mode="train")])
def test_training_mode_uses_batch_statistics_and_repeats_its_dropout(score):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
    )
    names = ["0.weight", "4.weight"]
    batches = split(data(16), [8, 8])
    one = gathered(score, model, batches, names, seed=5).values
    torch.rand(3)
    again = gathered(score, model, batches, names, seed=5).values
    other = gathered(score, model, batches, names, seed=6).values
    still = gathered(score.model_copy(update={"mode": "eval"}), model, batches, names).values
    for name in names:
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])
        assert not torch.allclose(one[name], still[name])


def test_batch_statistics_are_those_of_the_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    names, batch = ["0.weight", "3.weight"], data(9, dtype=torch.float64)
    found = gathered(Taylor(mode="train"), model, [batch], names).values
    twin = copy.deepcopy(model).train()
    functional.cross_entropy(twin(batch[0]), batch[1]).backward()
    for name in names:
        torch.testing.assert_close(found[name], twin.get_parameter(name).grad)


def test_float64_models_are_measured_in_float64():
    batch = data(dtype=torch.float64)
    model = network(dtype=torch.float64)
    rough = copy.deepcopy(model).float()
    fine = gathered(Snip(), model, [batch]).values["0.weight"]
    coarse = gathered(Snip(), rough, [(batch[0].float(), batch[1])]).values["0.weight"]
    assert fine.dtype == coarse.dtype == torch.float64
    assert not torch.equal(fine, coarse)
    np.testing.assert_allclose(fine, coarse, rtol=1e-3, atol=1e-6)


def test_small_gradients_do_not_vanish_when_squared():
    model, batch = network(), data()

    class Small(Classification):
        def training_step(self, model, batch):
            return super().training_step(model, batch) * 1e-25

    found = gathered(Fisher(), model, [batch], task=Small([batch], [batch])).values["2.weight"]
    plain = gathered(Fisher(), model, [batch]).values["2.weight"]
    np.testing.assert_allclose(found, plain * 1e-50, rtol=1e-4)


# What can't be done, and what to do about it.


@pytest.mark.parametrize("score", GRADIENT_SCORES, ids=str)
def test_no_data_is_an_error(score):
    empty = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    task = Classification([data()], [data()])
    for batches in ([], [empty]):
        with pytest.raises(PruningError, match="at least one batch with an example, got none"):
            gathered(score, network(), batches, task=task)


@pytest.mark.parametrize("score", GRADIENT_SCORES, ids=str)
def test_non_finite_evidence_names_the_layer(score):
    inputs, labels = data()
    inputs[3, 1] = float("nan")
    with pytest.raises(PruningError, match=r"NaN or infinity for '0.weight'; look for non-finite"):
        gathered(score, network(), [(inputs, labels)])


@pytest.mark.parametrize("score", GRADIENT_SCORES, ids=str)
def test_a_loss_without_gradient_is_an_error(score):
    class Detached(Regression):
        def training_step(self, model, batch):
            return super().training_step(model, batch).detach()

    class PerExample(Regression):
        def training_step(self, model, batch):
            return model(batch[0]).sum(dim=1)

    batch = data()[0], torch.zeros(12, 3)
    for task, got in ((Detached(), "requires_grad=False"), (PerExample(), r"shape \(")):
        with pytest.raises(PruningError, match=f"a scalar loss with a gradient, got .*{got}"):
            gathered(score, network(), [batch], task=task)


def test_a_loss_that_ignores_the_weights_scores_nothing():
    class Indifferent(Regression):
        def training_step(self, model, batch):
            return model(batch[0]).sum() * 0

    for score in (Snip(), Taylor(), Fisher(), Grasp()):
        with pytest.raises(PruningError, match=r"every surviving weight scores 0.*the loss "):
            scored(score, network(), [data()], task=Indifferent())


def test_a_loss_without_curvature_has_no_grasp():
    class Straight(Regression):
        def training_step(self, model, batch):
            return model(batch[0]).mean()

    model = nn.Sequential(nn.Linear(4, 3))
    values = gathered(Grasp(), model, [data()], ["0.weight"], task=Straight()).values
    assert values["0.weight"].abs().sum() == 0


def test_frozen_weights_are_refused():
    model = network()
    model[0].weight.requires_grad_(False)
    for score in GRADIENT_SCORES:
        with pytest.raises(PruningError, match=r"'0.weight' to be trainable, but it is frozen"):
            gathered(score, model, [data()])


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self._use_reentrant = use_reentrant

    def forward(self, inputs):
        return checkpoint(self.fc, inputs, use_reentrant=self._use_reentrant)


def test_reentrant_checkpoints_are_refused_and_others_taken():
    batch = data()[0].requires_grad_(), data()[1]
    with pytest.raises(PruningError, match="checkpoints with use_reentrant=False, got a reentrant"):
        gathered(Snip(), Checkpointed(True), [batch], ["fc.weight"])
    model = Checkpointed(False)
    found = gathered(Snip(), model, [batch], ["fc.weight"]).values["fc.weight"]
    plain = gathered(Snip(), nn.Sequential(model.fc), [batch], ["0.weight"]).values["0.weight"]
    torch.testing.assert_close(found, plain)


# The temperature.


class Answering(nn.Module):
    """Gives its logits in some container."""

    def __init__(self, pack):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self._pack = pack

    def forward(self, inputs):
        return self._pack(self.fc(inputs))


class Unpacking(Classification):
    def __init__(self, batches, unpack):
        super().__init__(batches, batches)
        self._unpack = unpack

    def training_step(self, model, batch):
        return functional.cross_entropy(self._unpack(model(batch[0])), batch[1])


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda y: (y, torch.ones(1, dtype=torch.int64)), lambda out: out[0]),
        (lambda y: {"logits": [y]}, lambda out: out["logits"][0]),
    ],
)
def test_the_temperature_reaches_into_containers(pack, unpack):
    batch = data()
    torch.manual_seed(0)
    model = Answering(pack)
    packed = gathered(
        Grasp(temperature=7), model, [batch], ["fc.weight"], task=Unpacking([batch], unpack)
    )
    bare = gathered(Grasp(temperature=7), nn.Sequential(model.fc), [batch], ["0.weight"])
    torch.testing.assert_close(packed.values["fc.weight"], bare.values["0.weight"])


class Output(dict):
    """A mapping of a kind of its own."""


@pytest.mark.parametrize("pack", [lambda y: Output(logits=y), lambda y: Box(y)])
def test_outputs_that_the_temperature_cannot_divide_are_refused(pack):
    batch = data()
    model = Answering(pack)
    task = Unpacking([batch], lambda out: out["logits"])
    with pytest.raises(PruningError, match=r"temperature \(200\) to divide, got .*temperature to"):
        gathered(Grasp(), model, [batch], ["fc.weight"], task=task)
    assert not model._forward_hooks
    values = gathered(Grasp(temperature=1), model, [batch], ["fc.weight"], task=task).values
    assert values["fc.weight"].abs().sum() > 0


class Box:
    def __init__(self, logits):
        self._logits = logits

    def __getitem__(self, key):
        return self._logits


def test_a_task_that_goes_around_the_model_has_no_temperature():
    class Around(Classification):
        def training_step(self, model, batch):
            return functional.cross_entropy(model[2](model[0](batch[0])), batch[1])

    batch = data()
    with pytest.raises(PruningError, match=r"expected task.training_step to call the model"):
        gathered(Grasp(), network(), [batch], task=Around([batch], [batch]))


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return inputs * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * 2


def test_operations_without_second_derivative_are_named():
    class Doubling(nn.Module):
        def forward(self, inputs):
            return Once.apply(inputs)

    model = nn.Sequential(nn.Linear(4, 5), Doubling(), nn.Linear(5, 3))
    with pytest.raises(
        PruningError, match=r"can be differentiated twice, but autograd says: .*once"
    ):
        gathered(Grasp(), model, [data()])


def test_compiled_parts_have_second_derivatives():
    plain, batch = network(), data()
    # Earlier tests may have used up how often one function is compiled.
    torch.compiler.reset()
    model = nn.Sequential(torch.compile(plain[0], backend="aot_eager"), plain[1], plain[2])
    names = ["0._orig_mod.weight", "2.weight"]
    Classification([batch], [batch]).training_step(model, batch).backward()
    found = gathered(Grasp(), model, [batch], names).values
    expected = gathered(Grasp(), plain, [batch]).values
    assert all(torch.equal(found[n], expected[m]) for n, m in zip(names, NAMES, strict=True))


def test_attention_has_second_derivatives():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, inputs):
            tokens = self.query(inputs)[:, None, None].expand(-1, 2, 3, -1)
            mixed = functional.scaled_dot_product_attention(tokens, tokens * 2, tokens.square())
            return self.head(mixed.mean(dim=(1, 2)))

    values = gathered(Grasp(), Attending(), [data()], ["query.weight", "head.weight"]).values
    assert values["head.weight"].abs().sum() > 0
