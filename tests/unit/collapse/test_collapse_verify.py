"""The proof that a smaller network does the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import compact
from infcop.collapse.measure import shuffled
from infcop.collapse.plan import Plan, plan
from infcop.collapse.run import Findings
from infcop.collapse.shrink import shrink
from infcop.collapse.verify import Reference
from infcop.core.mask import Masks
from tests.reference.collapse import Given


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def everything(given: nn.Module) -> Plan:
    return plan(Findings(), given)


def test_what_differs_is_refused() -> None:
    given = model().eval()
    reference = Reference(given, Masks({}), ((torch.randn(6, 3),), {}))
    keep = everything(given)
    assert reference.refuses(lambda m: shrink(m, keep, {}), keep) is None

    def off_by(amount: float) -> Any:
        def build(m: nn.Module) -> nn.Module:
            other = copy.deepcopy(m)
            with torch.no_grad():
                other[2].bias[0] += amount
            return other

        return build

    failure = reference.refuses(off_by(1e-9), keep)
    assert failure is not None
    assert failure.reason == "its outputs differ with the example inputs in float64"
    assert failure.place is None


def test_gradients_that_differ_are_refused() -> None:
    given = Given(torch.sigmoid).eval()
    reference = Reference(given, Masks({}), ((torch.randn(6, 3),), {}))

    def build(m: nn.Module) -> nn.Module:
        other = copy.deepcopy(m)
        other.after = lambda x: x.sigmoid().detach() + 0 * x
        return other

    failure = reference.refuses(build, everything(given))
    assert failure is not None
    assert failure.reason == (
        "its gradients differ with the example inputs with a little noise in float64"
    )


def test_the_module_that_fails_is_named() -> None:
    given = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 2))).eval()
    reference = Reference(given, Masks({}), ((torch.randn(6, 3),), {}))

    def build(m: nn.Module) -> nn.Module:
        other = copy.deepcopy(m)
        other[1][0] = nn.Linear(5, 2).to(m[0].weight.dtype)
        return other

    failure = reference.refuses(build, everything(given))
    assert failure is not None
    assert failure.place == "1.0"
    assert failure.reason.startswith("it fails: mat1 and mat2 shapes cannot be multiplied")


def test_other_shapes_are_refused() -> None:
    given = model().eval()
    reference = Reference(given, Masks({}), ((torch.randn(6, 3),), {}))
    failure = reference.refuses(lambda m: copy.deepcopy(m)[:2], everything(given))
    assert failure is not None
    assert failure.reason == "its outputs have other shapes with the example inputs in float64"


def test_a_model_that_can_only_run_in_float32() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x.float()) + torch.zeros(4, dtype=torch.float32))

    masks = {"two.weight": torch.tensor([[True, False, True, True]] * 2)}
    small = compact(Narrow(), masks, (torch.randn(5, 3),))
    assert small.model.one.out_features == 4, "it meets a tensor of fixed size"


def test_inputs_that_can_not_be_shuffled() -> None:
    """Lengths and roots: random inputs are of no use, the given ones are."""

    class Lengths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            if lengths.device.type == "cpu" and type(lengths) is Tensor:
                assert lengths.tolist() == sorted(lengths.tolist())
            return self.two(self.one(x.sqrt()) * lengths[:, None])

    masks = {"two.weight": torch.tensor([[True, False, True, True]] * 2)}
    inputs = (torch.rand(8, 3) + 0.1, torch.arange(8))
    small = compact(Lengths(), masks, inputs)
    assert small.model.one.out_features == 3


def test_gradients_without_a_finite_value_are_compared() -> None:
    class Root(Given):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).relu().sqrt()

    masks = {"linear.weight": torch.eye(4, 3, dtype=torch.bool)}
    small = compact(Root(None), masks, (torch.randn(5, 3),))
    assert small.report.parameters_after == 16


@pytest.mark.parametrize("example", [torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3) + 7])
def test_constant_examples_do_not_hide_a_difference(example: Tensor) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).relu() / len(self.one.weight))

    masks = {"two.weight": torch.tensor([[True, False, True, True]] * 2)}
    small = compact(Scaled(), masks, (example,))
    assert small.model.one.out_features == 4
    assert float(shuffled(example).std()) > 0.1


def test_the_report_says_what_was_compared() -> None:
    small = compact(model(), {}, (torch.randn(6, 3),))
    assert small.report.verified == (
        "the example inputs in float64",
        "the example inputs with a little noise in float64",
        "random inputs of the same kind in float64",
        "the example inputs in float32",
        "random inputs of the same kind in float32",
        "12 instead of 6 along dimension 0 in float64",
    )
    assert str(small.report).endswith("compared on 12 instead of 6 along dimension 0 in float64")


def test_a_state_that_is_counted_in_evaluation_stays_as_it_was() -> None:
    """The copies that are run have buffers of their own."""

    class Counted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    assert float(compact(Counted(), {}, (torch.randn(6, 3),)).model.calls) == 0


def test_gradients_that_share_memory_are_compared() -> None:
    """Of a sum of two parameters both gradients are one tensor; each has a mask of its own."""

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.Parameter(torch.randn(4, 3)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.one + self.two).T

    masks = {"one": torch.eye(4, 3, dtype=torch.bool), "two": ~torch.eye(4, 3, dtype=torch.bool)}
    assert compact(Summed(), masks, (torch.randn(5, 3),)).report.parameters_after == 24
