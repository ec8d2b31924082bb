from __future__ import annotations

from typing import Literal, get_args

import pytest
import torch
from torch import nn

from infcop.core.records import Cost
from infcop.core.score import Magnitude, RandomScore, Score, Snip
from infcop.core.values import Value
from infcop.errors import ModelError, PruningError
from infcop.scoring import SCORES, EvidenceKind, NamedScore
from infcop.scoring.gather import gather
from infcop.tasks.classification import Classification
from tests.reference import axes
from tests.reference.networks import WEIGHTS, network_of_everything
from tests.reference.states import state_of

EVERY = axes.settings(Score)
ALONE = ("none", "noise", "movement")
RUN_THE_MODEL = {n: score for n, score in EVERY.items() if SCORES[score.kind].evidence not in ALONE}

every_score = pytest.mark.parametrize("score", EVERY.values(), ids=EVERY)
every_score_that_runs_the_model = pytest.mark.parametrize(
    "score", RUN_THE_MODEL.values(), ids=RUN_THE_MODEL
)


def batches(sizes=(4, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 1, 8, 8, generator=generator), torch.arange(size) % 3) for size in sizes
    ]


def gathered(score, model, data, task=None, names=WEIGHTS, **options):
    task = task or Classification(data, data)
    if score.kind == "movement":
        options["movement"] = {name: model.get_parameter(name).detach() + 1 for name in names}
    return gather(score, model, names, task, lambda: data, **{"seed": 0, **options})


def prepared():
    """Return a network with modes that differ, a gradient, a hook and generators of its own."""
    model = network_of_everything()
    model.train()
    model[1].eval()
    model[4].bias.grad = torch.ones(5)
    model[8].bias.requires_grad_(False)
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    return model


@every_score
def test_nothing_is_left_behind(score):
    model, data = prepared(), batches()
    before = state_of(model)
    evidence = gathered(score, model, data)
    assert state_of(model) == before
    names = () if score.kind == "magnitude" else WEIGHTS
    assert list(evidence.values) == list(names)
    for name, value in evidence.values.items():
        weight = model.get_parameter(name)
        assert value.expand(weight.shape).device == weight.device
        assert value.dtype == (torch.float32 if score.kind == "movement" else torch.float64)
        assert not value.requires_grad


class Failing(nn.Module):
    """Raises from its second forward pass on, when layers have drawn and normalised."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        if self.calls > 1:
            raise ArithmeticError("the second time")
        return inputs

    def __deepcopy__(self, memo):
        raise ArithmeticError("the second time")


@every_score_that_runs_the_model
def test_nothing_is_left_behind_by_an_exception(score):
    model, data = prepared(), batches()
    model[7] = nn.Sequential(nn.Flatten(), Failing())
    before = state_of(model)
    with pytest.raises((ArithmeticError, PruningError, ModelError), match="the second time"):
        gathered(score, model, data)
    assert state_of(model) == before


@every_score_that_runs_the_model
def test_nothing_is_left_behind_by_an_exception_in_the_loss(score):
    class Broken(Classification):
        def training_step(self, model, batch):
            super().training_step(model, batch)
            raise ArithmeticError("in the loss")

        def inputs(self, batch):
            raise ArithmeticError("in the loss")

    model, data = prepared(), batches()
    before = state_of(model)
    with pytest.raises(ArithmeticError, match="in the loss"):
        gathered(score, model, data, Broken(data, data))
    assert state_of(model) == before


@every_score
def test_a_caller_may_have_switched_gradients_off(score):
    model, data = prepared(), batches()
    with torch.no_grad():
        off = gathered(score, model, data)
    with torch.inference_mode():
        inference = gathered(score, model, data)
    on = gathered(score, model, data)
    for name, value in on.values.items():
        assert torch.equal(off.values[name], value)
        assert torch.equal(inference.values[name], value)
    assert off.cost == on.cost


@every_score
def test_the_same_twice_whatever_was_drawn_before(score):
    model, data = prepared(), batches()
    one = gathered(score, model, data)
    torch.rand(5)
    again = gathered(score, model, data)
    assert all(torch.equal(value, again.values[name]) for name, value in one.values.items())


@every_score
def test_of_wrapped_models_the_one_inside_is_measured(score):
    model, data = prepared(), batches()
    plain = gathered(score, model, data)
    wrapped = gather(
        score,
        nn.DataParallel(model),
        WEIGHTS,
        Classification(data, data),
        lambda: data,
        seed=0,
        movement={name: model.get_parameter(name).detach() + 1 for name in WEIGHTS},
    )
    assert all(torch.equal(value, wrapped.values[name]) for name, value in plain.values.items())


@every_score_that_runs_the_model
def test_what_is_compiled_runs_as_it_was_written(score):
    # A function that was compiled in many ways before would run as written anyway.
    torch.compiler.reset()
    used = []

    def compiler(graph, _inputs):
        def run(*arguments):
            used.append(graph)
            return graph.forward(*arguments)

        return run

    data, task = batches(), Classification([0], [0])
    model = prepared().eval()
    parts = list(model)
    # Its hook would be found by the compiler.
    parts[0]._forward_hooks.clear()
    plain = gathered(score, nn.Sequential(*parts), data)
    parts[0] = torch.compile(parts[0], backend=compiler)
    model = nn.Sequential(*parts)
    model(data[0][0])
    assert used
    used.clear()
    names = [name.replace("0.", "0._orig_mod.") for name in WEIGHTS]
    found = gather(score, model, names, task, lambda: data, seed=0)
    assert not used
    for name, value in zip(names, plain.values.values(), strict=True):
        assert torch.equal(found.values[name], value)


class Mine(Value):
    """A score with no settings of its own."""

    kind: Literal["mine"] = "mine"


@pytest.mark.parametrize("kind", get_args(EvidenceKind))
def test_a_new_score_gets_what_others_of_its_kind_get(kind, monkeypatch):
    """Evidence goes by its kind; settings that the score lacks have their plainest values."""
    known = next(s for s in EVERY.values() if SCORES[s.kind].evidence == kind)
    if kind == "hessian-gradient":
        known = known.model_copy(update={"temperature": 1.0})
    named = NamedScore(SCORES[known.kind].fn, kind, "one more")
    monkeypatch.setitem(SCORES, "mine", named)
    model, data = prepared(), batches()
    movement = {name: model.get_parameter(name).detach() + 1 for name in WEIGHTS}
    found = gathered(Mine(), model, data, movement=movement)
    expected = gathered(known, model, data)
    assert list(found.values) == list(expected.values)
    assert bool(found.values) == (kind != "none")
    assert all(torch.equal(value, found.values[n]) for n, value in expected.values.items())
    assert found.cost == expected.cost


def test_noise_depends_on_the_seed_and_the_name_alone():
    model, data = prepared(), batches()
    one = gathered(RandomScore(), model, data).values
    fewer = gathered(RandomScore(), model, [], Classification([0], [0]), names=WEIGHTS[::-2]).values
    other = gathered(RandomScore(), model, data, seed=1).values
    assert list(fewer) == WEIGHTS[::-2]
    for name, value in fewer.items():
        assert torch.equal(value, one[name])
    for name, value in one.items():
        assert not torch.equal(value, other[name])
    torch.manual_seed(0)
    layer = nn.Linear(200, 300)
    noise = gathered(RandomScore(), layer, [], Classification([0], [0]), ["weight"]).values
    assert abs(float(noise["weight"].mean())) < 0.02
    assert float(noise["weight"].std()) == pytest.approx(1, abs=0.01)


def test_scores_without_data_ask_for_none():
    def no_batches():
        raise AssertionError("no batch is needed")

    task = Classification([0], [0])
    model = prepared()
    for score in (Magnitude(), RandomScore()):
        evidence = gather(score, model, WEIGHTS, task, no_batches, seed=0)
        assert evidence.cost == Cost()
    assert gather(Magnitude(), model, WEIGHTS, task, no_batches, seed=0).values == {}


def test_unknown_names_are_told():
    data = batches()
    with pytest.raises(ModelError, match=r"no parameter '0.weigth'; did you mean '0.weight'"):
        gathered(Snip(), prepared(), data, names=["0.weigth"])


@every_score_that_runs_the_model
def test_empty_batches_are_passed_over(score):
    model, data = prepared(), batches()
    empty = (torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    one = gathered(score, model, data)
    other = gathered(score, model, [empty, data[0], empty, data[1]])
    assert one.cost == other.cost
    assert all(torch.equal(value, other.values[name]) for name, value in one.values.items())
