"""Proof that a smaller network does the same as the masked one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infcop.collapse.measure import Measured, followed, in_precision, measured, shuffled
from infcop.collapse.plan import Plan, sliced
from infcop.core.mask import Masks
from infcop.errors import CollapseError

__all__ = ["TOLERANCE", "Failure", "Reference"]

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""The largest difference: of outputs relative to the largest entry of the output, of gradients
relative to the largest entry of all gradients."""


@dataclass(frozen=True)
class Failure:
    """Why a smaller network is refused.

    Attributes:
        reason: What is wrong.
        place: The module in which it failed to run; None if it ran.
    """

    reason: str
    place: str | None = None


@dataclass(frozen=True, eq=False)
class _Run:
    dtype: torch.dtype
    arguments: Any
    gives: Measured


class Reference:
    """What a masked network gives for the example inputs and for random ones.

    A network in float32 is run in float64 too, if it can be: what is right up to rounding is then
    told from what is wrong.

    Args:
        model: The network, with masked weights, in evaluation mode.
        masks: What survives, by name.
        arguments: Example inputs, positional and by keyword.

    Raises:
        CollapseError: It fails, or what it gives is not finite or not the same twice.
    """

    def __init__(self, model: nn.Module, masks: Masks, arguments: Any) -> None:
        own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        self._masks = masks
        self._models = {own: model}
        self._runs = [
            _Run(own, arguments, _sound(model, arguments)),
            *_random(model, own, arguments),
        ]
        if own != torch.float64:
            self._models[torch.float64] = copy.deepcopy(model).double()
            # First, since its failures say more.
            self._runs = [*self._wide(), *self._runs]

    def _wide(self) -> list[_Run]:
        """Do the same in float64."""
        runs = []
        for run in self._runs:
            arguments = in_precision(run.arguments, torch.float64)
            try:
                found = measured(self._models[torch.float64], arguments)
            except RuntimeError:  # some models make tensors of float32 on their way
                return []
            runs.append(_Run(torch.float64, arguments, found))
        return runs

    def refuses(self, build: Callable[[nn.Module], nn.Module], plan: Plan) -> Failure | None:
        """Return why a smaller network does not do the same, or None if it does.

        Args:
            build: Makes the smaller network of the masked one, in the precision of the latter.
            plan: What it keeps.
        """
        built: dict[torch.dtype, nn.Module] = {}
        for run in self._runs:
            if run.dtype not in built:
                built[run.dtype] = build(self._models[run.dtype])
            entered: list[str] = []
            try:
                with followed(built[run.dtype]) as entered:
                    found = measured(built[run.dtype], run.arguments)
            except Exception as error:
                return Failure(f"it fails: {error}", entered[-1] if entered else "")
            difference = self._difference(run.gives, found, plan, TOLERANCE[run.dtype])
            if difference:
                return Failure(f"{difference} in {str(run.dtype).removeprefix('torch.')}")
        return None

    def _difference(
        self, expected: Measured, found: Measured, plan: Plan, tolerance: float
    ) -> str | None:
        if [x.shape for x in expected.outputs] != [x.shape for x in found.outputs]:
            return "its outputs have other shapes"
        for one, other in zip(expected.outputs, found.outputs, strict=True):
            if not _near(one, other, tolerance * _largest([one])):
                return "its outputs differ"
        pairs = list(zip(expected.by_input, found.by_input, strict=True))
        for name, gradient in expected.by_parameter.items():
            before = None if gradient is None else sliced(gradient, plan.kept[name])
            pairs.append(self._surviving(name, before, found.by_parameter[name], plan))
        largest = _largest([one for one, _ in pairs if one is not None])
        zero = torch.zeros(())
        for before, after in pairs:
            one, other = (zero if x is None else x for x in (before, after))
            if not _near(one, other, tolerance * largest):
                return "its gradients differ"
        return None

    def _surviving(
        self, name: str, before: Tensor | None, after: Tensor | None, plan: Plan
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return gradients at the entries that are not pruned."""
        if name not in self._masks:
            return before, after
        mask = sliced(self._masks[name], plan.kept[name])
        return (
            None if before is None else before.where(mask, 0.0),
            None if after is None else after.where(mask, 0.0),
        )


def _random(model: nn.Module, dtype: torch.dtype, arguments: Any) -> list[_Run]:
    """Run a network on random inputs that it takes; it need not take any."""
    for integers in (True, False):
        other = shuffled(arguments, integers=integers)
        try:
            return [_Run(dtype, other, _sound(model, other))]
        except CollapseError:
            continue
    return []


def _sound(model: nn.Module, arguments: Any) -> Measured:
    """Measure a network, and see to it that what it gives can be compared."""
    try:
        found, again = measured(model, arguments), measured(model, arguments)
    except CollapseError:
        raise
    except Exception as error:
        raise CollapseError(
            "compact: expected a model that runs forwards and backwards on example_inputs, but it "
            f"fails: {error}; give inputs as in evaluation"
        ) from error
    for one, other in zip(found.outputs, again.outputs, strict=True):
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
    return found


def _largest(tensors: Sequence[Tensor]) -> float:
    sizes = [x.detach().abs().nan_to_num(posinf=0.0) for x in tensors if x.numel()]
    return max((float(x.max()) for x in sizes), default=0.0)


def _near(one: Tensor, other: Tensor, most: float) -> bool:
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    # A root has no finite gradient at zero.
    alike = (one == other) | (one.isnan() & other.isnan())
    return bool((alike | ((one - other).abs() <= most)).all())
