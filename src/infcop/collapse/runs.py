"""The inputs on which networks are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from infcop.collapse.measure import in_precision, measured, outputs_of, shuffled, stirred
from infcop.collapse.sizes import alone, resized, uneven
from infcop.errors import CollapseError
from infcop.models.in_the_open import layers_in_parts

__all__ = [
    "Forwards",
    "Run",
    "forwards",
    "in_float64",
    "random_run",
    "sound",
    "stirred_run",
    "taken",
    "taken_uneven",
]


@dataclass(frozen=True, eq=False)
class Run:
    """Inputs on which outputs and gradients are compared.

    Attributes:
        what: What they are, for the report.
        dtype: The precision of the network.
        arguments: Positional and keyword arguments, in that precision.
    """

    what: str
    dtype: torch.dtype
    arguments: Any

    def __str__(self) -> str:
        return f"{self.what} in {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True, eq=False)
class Forwards(Run):
    """Inputs on which outputs alone are compared.

    Attributes:
        outputs: What the masked network gives.
    """

    outputs: list[Tensor]


def random_run(model: nn.Module, dtype: torch.dtype, arguments: Any) -> list[Run]:
    """Run a network on random inputs that it takes; it need not take any."""
    for integers in (True, False):
        other = shuffled(arguments, integers=integers)
        try:
            sound(model, other)
        except CollapseError:
            continue
        return [Run("random inputs of the same kind", dtype, other)]
    return []


def stirred_run(model: nn.Module, dtype: torch.dtype, arguments: Any) -> list[Run]:
    """Run a network on its example inputs with a little noise, if it takes numbers so.

    Where parts of an image are even, which of equal numbers is the largest is a matter of
    rounding, and so is the way that gradients take.
    """
    other = stirred(arguments)
    if not any(isinstance(x, Tensor) and x.is_floating_point() for x in pytree.tree_leaves(other)):
        return []
    try:
        sound(model, other)
    except CollapseError:
        return []
    return [Run("the example inputs with a little noise", dtype, other)]


def in_float64(model: nn.Module, runs: Sequence[Run]) -> list[Run]:
    """Return the same runs in float64, if the network can do them."""
    wide = [
        Run(run.what, torch.float64, in_precision(run.arguments, torch.float64)) for run in runs
    ]
    try:
        measured(model, wide[0].arguments, _nothing)
        for run in wide[1:]:
            outputs_of(model, run.arguments)
    except Exception:  # some make tensors of float32 on their way, some ask for it
        return []
    return wide


def forwards(model: nn.Module, runs: Sequence[Run]) -> list[Forwards]:
    """Return the same runs to compare outputs on, and no gradients."""
    return [
        Forwards(run.what, run.dtype, run.arguments, outputs_of(model, run.arguments))
        for run in runs
    ]


def taken(model: nn.Module, dtype: torch.dtype, arguments: Any) -> list[Forwards]:
    """Run a network on inputs of other sizes, as far as it takes them."""
    runs = []
    for choices in resized(arguments):
        found = (_run(model, dtype, what, changed) for what, changed in choices)
        first = next((run for run in found if run is not None), None)
        if first is not None:
            runs.append(first)
    return runs


def taken_uneven(model: nn.Module, dtype: torch.dtype, arguments: Any) -> list[Forwards]:
    """Run a network on inputs of sizes that do not divide alike, as far as it takes them.

    One example is enough where the network takes a batch of 1.
    """
    single = _run(model, dtype, "one example", alone(arguments)) is not None
    found = [_run(model, dtype, *changed) for changed in uneven(arguments, single=single)]
    return [run for run in found if run is not None]


def _run(model: nn.Module, dtype: torch.dtype, what: str, arguments: Any) -> Forwards | None:
    """Run a network; return nothing if it fails or its outputs are not finite."""
    try:
        outputs = outputs_of(model, arguments)
    except Exception:
        return None
    if not all(bool(output.isfinite().all()) for output in outputs):
        return None
    return Forwards(what, dtype, arguments, outputs)


def sound(model: nn.Module, arguments: Any) -> None:
    """Measure a network, and see to it that what it gives can be compared."""
    _check_entries("example_inputs", arguments)
    try:
        with layers_in_parts():  # with gradients they run so, without them they need not
            found, again = measured(model, arguments, _nothing), outputs_of(model, arguments)
    except CollapseError:
        raise
    except Exception as error:
        raise CollapseError(
            "compact: expected a model that runs forwards and backwards on example_inputs, but it "
            f"fails: {error}; give inputs as in evaluation"
        ) from error
    _check_entries("outputs", found.outputs)
    for one, other in zip(found.outputs, again, strict=True):
        if not bool(one.isfinite().all()):
            raise CollapseError(
                "compact: expected finite outputs, got NaN or infinity, which can't be compared; "
                "give inputs and weights with finite outputs"
            )
        if not torch.equal(one, other):
            raise CollapseError(
                "compact: expected the same outputs for the same inputs, but two runs differ; the "
                "model draws random numbers or keeps a state in evaluation mode: make it not do so"
            )


def _check_entries(what: str, found: Any) -> None:
    for leaf in pytree.tree_leaves(found):
        if isinstance(leaf, Tensor) and not leaf.numel():
            raise CollapseError(
                f"compact: expected {what} with entries, got a tensor of shape {tuple(leaf.shape)} "
                "among them, on which nothing can be compared; give at least one example"
            )


def _nothing(_: str, gradient: Tensor) -> Tensor:
    return gradient.new_empty(0)
