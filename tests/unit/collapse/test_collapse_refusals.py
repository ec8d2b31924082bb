"""What is refused, and in which words; the model of the user stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from infcop.collapse import compact
from infcop.errors import CollapseError, PruningError
from tests.reference.collapse import Given


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(3, 3))


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.LazyLinear(2)


EXAMPLE = (torch.zeros(2, 3),)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"0.wieght": torch.ones(4, 3, dtype=torch.bool)},
            r"compact: expected masks of parameters, but the model has no '0.wieght'; did you "
            r"mean '0.weight'\? known: 0.bias, 0.weight, 2.bias, 2.weight",
        ),
        (
            {"0.weight": torch.ones(3, 4, dtype=torch.bool)},
            r"compact: expected a mask of shape \(4, 3\) for '0.weight', got \(3, 4\); give the "
            "masks that belong to this model",
        ),
        ({"0.weight": torch.ones(4, 3)}, "Masks: expected a boolean mask for '0.weight'"),
    ],
)
def test_masks_that_do_not_fit(masks: Mapping[str, Tensor], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        compact(model(), masks, EXAMPLE)


@pytest.mark.parametrize(
    ("given", "inputs", "message"),
    [
        (model(), torch.zeros(2, 3), "expected example_inputs as a tuple .* got Tensor; .* pass"),
        (
            model(),
            (torch.zeros(2, 5),),
            "runs forwards and backwards on example_inputs, but it fai",
        ),
        (model(), {"x": torch.zeros(2, 3)}, "unexpected keyword argument 'x'"),
        ("no model", EXAMPLE, "expected a torch.nn.Module, got str"),
        (model().half(), EXAMPLE, "expected float32 or float64, got torch.float16 in '0.weight'"),
        (lazy(), EXAMPLE, "'weight' is not initialised yet; run one batch"),
        (
            nn.Sequential(scripted()),
            EXAMPLE,
            "'0' is scripted, and its operations can't be seen",
        ),
        (
            Given(lambda x: x if x.sum() > 0 else -x),
            EXAMPLE,
            "expected a model whose operations can be traced, but torch.export says: .*torch.where",
        ),
        (Given(lambda x: functional.dropout(x, 0.5)), EXAMPLE, "two runs differ; the model draws"),
        (
            Given(lambda x: torch.cond(x.sum() > 0, torch.relu, torch.sigmoid, (x,))),
            EXAMPLE,
            "do the same for all inputs, but cond of the model runs a part of the model by choice "
            "or several times",
        ),
        (Given(lambda x: x / 0), EXAMPLE, "expected finite outputs, got NaN or infinity"),
        (
            Given(lambda x: SimpleNamespace(y=x)),
            EXAMPLE,
            "got a SimpleNamespace among them; let it return tensors only",
        ),
    ],
    ids=str,
)
def test_models_and_inputs_that_can_not_be_used(given: Any, inputs: Any, message: str) -> None:
    with pytest.raises(CollapseError, match=f"(?s)compact: .*{message}"):
        compact(given, {}, inputs)


def test_parts_in_a_context_are_followed() -> None:
    class Contexts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                scale = x.abs().amax(1, keepdim=True)
            with torch.autocast("cpu", enabled=False):
                x = self.one(x)
            return self.two(checkpoint(torch.tanh, x / scale, use_reentrant=False))

    masks = {"two.weight": torch.tensor([[True, False, True, True]] * 2)}
    small = compact(Contexts(), masks, (torch.randn(5, 3),))
    assert small.model.one.out_features == 3


def test_inputs_that_are_written_to() -> None:
    given = nn.Sequential(nn.ReLU(inplace=True), *model())
    example = torch.randn(2, 3)
    before = example.clone()
    masks = {"3.weight": torch.tensor([[True, False, True, True]] * 2)}
    small = compact(given, masks, (example,))
    assert small.model[1].out_features == 3
    assert torch.equal(example, before)


def test_a_model_that_can_not_be_copied() -> None:
    given = model()
    given.cached = given[0].weight * 2
    with pytest.raises(CollapseError, match=r"that copy.deepcopy can copy, but it fails"):
        compact(given, {}, EXAMPLE)


def test_a_model_on_two_devices() -> None:
    given = model()
    given[2].to("meta")
    with pytest.raises(CollapseError, match="expected a model on one device, got cpu, meta; move"):
        compact(given, {}, EXAMPLE)


def test_failed_tracing_is_silent(capfd) -> None:
    with pytest.raises(CollapseError):
        compact(Given(lambda x: x if x.sum() > 0 else -x), {}, EXAMPLE)
    assert capfd.readouterr() == ("", "")


def state_of(given: nn.Module) -> dict[str, Any]:
    flags = {name: module.training for name, module in given.named_modules()}
    tensors = {**dict(given.named_parameters()), **dict(given.named_buffers())}
    return {"flags": flags, "values": {k: (id(v), v.tolist()) for k, v in tensors.items()}}


@pytest.mark.parametrize("after", [torch.relu, lambda x: x / 0])
def test_the_model_of_the_user_stays_as_it_is(after: Any) -> None:
    given = nn.Sequential(Given(after), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    given[1].eval()
    masks = {"3.weight": torch.tensor([[True, False, True, True]] * 2)}
    before, generator = state_of(given), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            small = compact(given, masks, (torch.randn(2, 3, generator=torch.Generator()),))
        except CollapseError:
            small = None
    assert state_of(given) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in given.parameters())
    if small is not None:
        assert [m.training for m in small.model.modules()] == [m.training for m in given.modules()]
        assert small.model[3].in_features == 3


def test_flags_and_classes_are_kept() -> None:
    class Own(nn.Linear):
        pass

    given = nn.Sequential(Own(3, 4), nn.ReLU(), nn.Linear(4, 2))
    given[0].weight.requires_grad_(False)
    small = compact(given, {"2.weight": torch.eye(2, 4, dtype=torch.bool)}, EXAMPLE).model
    assert type(small[0]) is Own
    assert small[0].weight.requires_grad is False
    assert small[2].weight.requires_grad is True
    assert small[0].weight.dtype == torch.float32


def test_wrappers_are_taken_off() -> None:
    small = compact(nn.DataParallel(model()), {}, EXAMPLE)
    assert type(small.model) is nn.Sequential
    assert list(small.kept) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_inputs_by_name_in_any_order() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, a: Tensor, b: Tensor, scale: float = 1.0, c: Any = None) -> Tensor:
            return (self.one(a) * scale + self.two(b)).relu()

    inputs = {"b": torch.randn(5, 2), "scale": 2.0, "a": torch.randn(5, 3), "c": None}
    small = compact(Two(), {"one.weight": torch.eye(4, 3, dtype=torch.bool)}, inputs)
    assert small.report.parameters_after == 28
