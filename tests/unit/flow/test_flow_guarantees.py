"""What a measurement leaves behind: nothing, however it ends."""

from __future__ import annotations

import gc
import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from infcop.errors import FlowError, ModelError
from infcop.flow.meter import FlowMeter
from infcop.flow.moments import CoMoments, EdgeMoments
from infcop.flow.sampling import Precision
from infcop.flow.stream import InformationStream
from infcop.tasks.classification import Classification
from tests.reference.networks import EDGES, WEIGHTS, network_of_everything

KINDS = [["information"], ["gradient"], ["information", "gradient"]]


def network():
    model = network_of_everything()
    model[3].eval()  # Flags that differ must come back as they were.
    model[8].bias.requires_grad_(False)
    return model


def examples(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 1, 7, 7, generator=generator)
    return inputs, torch.randint(0, 3, (count,), generator=generator)


BATCHES = list(zip(*(part.split([8, 11, 1]) for part in examples()), strict=True))
TASK = Classification(BATCHES, BATCHES)


def meter(model, kinds, **options):
    return FlowMeter(model, edges=EDGES, parameters=WEIGHTS, kinds=kinds, **options)


def raw(tensor):
    """The bits of a tensor: NaN equals itself, 0 is not -0."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def snapshot(model):
    """Everything that a reading must leave alone, as comparable values."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "values": {name: raw(tensor) for name, tensor in tensors},
        "identities": {name: id(tensor) for name, tensor in tensors},
        "versions": {name: tensor._version for name, tensor in tensors},
        "gradients": [
            None if p.grad is None else (id(p.grad), p.grad._version, raw(p.grad))
            for p in model.parameters()
        ],
        "requires": [p.requires_grad for p in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "hooks": [
            [list(hooks) for name, hooks in sorted(vars(m).items()) if name.endswith("_hooks")]
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
    """A network in the middle of training: gradients are there, statistics have moved."""
    model = network().train()
    model[3].eval()
    TASK.training_step(model, BATCHES[0]).backward()
    model[0].bias.grad = None
    return model


@pytest.mark.parametrize("gradient", ["full", "per-batch"])
@pytest.mark.parametrize("kinds", KINDS)
def test_reading_leaves_no_trace_and_repeats_exactly(model, kinds, gradient):
    before = snapshot(model)
    first = meter(model, kinds, gradient=gradient).read(TASK, BATCHES)
    assert snapshot(model) == before
    assert meter(model, kinds, gradient=gradient).read(TASK, BATCHES) == first
    assert snapshot(model) == before


@pytest.mark.parametrize("options", [{"standard_errors": True}, {"keep_moments": True}])
def test_reading_more_leaves_no_trace_either(model, options):
    before = snapshot(model)
    meter(model, ["information"], **options).read(TASK, BATCHES)
    wanted = Precision((0.0, 0.0), "information.absolute", 10.0, at_least=2)
    assert meter(model, ["information"]).read(TASK, BATCHES, precision=wanted).examples == 8
    assert snapshot(model) == before


def disturb():
    torch.rand(3), random.random(), np.random.rand()


def broken_loader():
    yield BATCHES[0]
    disturb()
    raise OSError("disk gone")


@pytest.mark.parametrize("kinds", KINDS)
def test_loader_that_raises_midway_leaves_no_trace(model, kinds):
    before = snapshot(model)
    with pytest.raises(OSError, match="disk gone"):
        meter(model, kinds).read(TASK, broken_loader())
    assert snapshot(model) == before


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_model_that_raises_midway_leaves_no_trace(model, kinds, training):
    def fail(module, inputs):
        disturb()
        if len(inputs[0]) == 11:
            raise ZeroDivisionError

    model[4].register_forward_pre_hook(fail)
    before = snapshot(model.train(training))
    with pytest.raises(ZeroDivisionError):
        meter(model, kinds).read(TASK, BATCHES)
    assert snapshot(model) == before


class Stumbling(Classification):
    """Fails in its step after the forward pass of the second batch."""

    def training_step(self, model, batch):
        loss = super().training_step(model, batch)
        disturb()
        if len(batch[1]) == 11:
            raise ZeroDivisionError
        return loss


@pytest.mark.parametrize("kinds", KINDS[1:])
def test_training_step_that_raises_midway_leaves_no_trace(model, kinds):
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError):
        meter(model, kinds).read(Stumbling(BATCHES, BATCHES), BATCHES)
    assert snapshot(model) == before


@pytest.mark.parametrize("kinds", KINDS)
def test_refused_and_non_finite_probes_leave_no_trace(model, kinds):
    inputs, labels = examples()
    inputs[9] = float("nan")
    before = snapshot(model)
    for batches in ([], [(inputs, labels)]):
        with pytest.raises(FlowError):
            meter(model, kinds).read(TASK, batches)
        assert snapshot(model) == before


def test_an_output_that_is_no_tensor_leaves_no_trace():
    class Pair(nn.Linear):
        def forward(self, inputs):
            output = super().forward(inputs)
            return output, output

    model = nn.Sequential(nn.Linear(3, 4), Pair(4, 5))
    before = snapshot(model)
    flow = FlowMeter(model, edges=[("0", "1")], kinds=["information"])
    with pytest.raises(FlowError, match="layer '1' to return a tensor, got tuple"):
        flow.read(TASK, [(torch.ones(2, 3), torch.zeros(2))])
    assert snapshot(model) == before


def test_shuffling_loader_draws_nothing_from_the_callers_generator(model):
    loader = DataLoader(TensorDataset(*examples()), batch_size=6, shuffle=True)
    before = snapshot(model)
    first = meter(model, KINDS[2]).read(TASK, loader)
    assert snapshot(model) == before
    assert meter(model, KINDS[2]).read(TASK, loader) == first


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("fails", [False, True])
def test_watching_leaves_no_hooks_and_touches_nothing_itself(model, kinds, fails):
    """The same steps without a watch give the same everything; the hooks are those of before."""
    other, generator = network(), torch.get_rng_state()
    snapshots = []
    for one, watching in ((other, False), (model, True)):
        one.load_state_dict(model.state_dict())
        torch.set_rng_state(generator)
        one.train()
        hooks = snapshot(one)["hooks"]

        def steps(watch, one=one):
            for batch in BATCHES:
                one.zero_grad()
                TASK.training_step(one, batch).backward()
                if watch is not None:
                    watch.after_backward(len(batch[1]))
                if fails and len(batch[1]) == 11:
                    raise ZeroDivisionError

        def run(one=one, watching=watching, steps=steps):
            if not watching:
                steps(None)
                return
            with meter(one, kinds).watch() as watch:
                steps(watch)

        if fails:
            with pytest.raises(ZeroDivisionError):
                run()
        else:
            run()
        taken = snapshot(one)
        assert taken["hooks"] == hooks
        snapshots.append({key: taken[key] for key in ("values", "flags", "requires", "generators")})
        snapshots[-1]["gradients"] = [
            None if p.grad is None else raw(p.grad) for p in one.parameters()
        ]
    assert snapshots[0] == snapshots[1]


class Words(nn.Module):
    """An embedding that renormalises the rows that it looks up, in two layers' stead."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(9, 4, max_norm=0.1)
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, tokens):
        return self.two(self.one(self.embed(tokens).mean(1)).relu())


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("fails", [False, True])
def test_embedding_that_renormalises_itself_is_restored(kinds, fails):
    model = Words()
    batches = [(torch.arange(12).reshape(6, 2) % 7, torch.arange(6) % 3)]

    def loader():
        yield from batches
        if fails:
            raise ZeroDivisionError

    before = model.embed.weight.detach().clone()
    flow = FlowMeter(model, edges=[("one", "two")], parameters=["one.weight"], kinds=kinds)
    if fails:
        with pytest.raises(ZeroDivisionError):
            flow.read(TASK, loader())
    else:
        first = flow.read(TASK, loader())
        assert flow.read(TASK, loader()) == first
    assert torch.equal(model.embed.weight, before)
    model(batches[0][0])
    assert not torch.equal(model.embed.weight, before)


class Writing(nn.Module):
    """Writes to a parameter whenever it runs."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, inputs):
        self.scale.mul_(0.5)
        return self.two(self.one(inputs) * self.scale)


def test_a_model_that_writes_to_its_parameters_is_told_so():
    model = Writing()
    flow = FlowMeter(model, edges=[("one", "two")], kinds=["information"])
    with pytest.raises(
        ModelError, match=r"writes to its parameters \['scale'\] while it is evaluated"
    ):
        flow.read(TASK, [(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64))])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.fixture
def born(monkeypatch):
    """Weak references to everything large that a measurement makes."""
    references = []

    def remember(cls):
        original = cls.__init__

        def init(self, *args, **options):
            original(self, *args, **options)
            references.append(weakref.ref(self))

        monkeypatch.setattr(cls, "__init__", init)

    for cls in (CoMoments, EdgeMoments, InformationStream):
        remember(cls)
    return references


def live_float64_matrices():
    gc.collect()
    return sum(
        type(found) is torch.Tensor and found.dtype == torch.float64 and found.ndim == 2
        for found in gc.get_objects()
    )


@pytest.mark.parametrize("source", ["probe", "training"])
def test_readings_of_vectors_keep_no_matrices(model, born, source):
    flow = meter(model, KINDS[2], standard_errors=True)

    def read():
        if source == "probe":
            return flow.read(TASK, BATCHES)
        with flow.watch() as watch:
            for batch in BATCHES:
                TASK.training_step(model, batch).backward()
                watch.after_backward(len(batch[1]))
            return watch.reading()

    readings = [read()]
    matrices = live_float64_matrices()
    readings += [read() for _ in range(99)]
    assert len(born) >= 300
    assert live_float64_matrices() == matrices
    assert [reference for reference in born if reference() is not None] == []
    assert all(reading.moments is None for reading in readings)


def test_kept_moments_live_as_long_as_their_reading(model, born):
    reading = meter(model, ["information"], keep_moments=True).read(TASK, BATCHES)
    gc.collect()
    alive = sorted(type(reference()).__name__ for reference in born if reference() is not None)
    assert alive == ["CoMoments", "EdgeMoments", "EdgeMoments"]
    assert reading.moments is not None
    del reading
    gc.collect()
    assert [reference for reference in born if reference() is not None] == []
