"""Proof that a smaller network does the same as the masked one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from infcop.collapse.copies import lean_copy
from infcop.collapse.differences import Surviving, measured_unlike
from infcop.collapse.measure import Measured, followed, in_precision, measured, outputs_of
from infcop.collapse.near import TOLERANCE, unlike
from infcop.collapse.plan import Plan
from infcop.collapse.runs import (
    Forwards,
    Run,
    forwards,
    in_float64,
    random_run,
    sound,
    stirred_run,
    taken,
    taken_uneven,
)
from infcop.collapse.training import Training, fails_to_train
from infcop.collapse.wide import Precision
from infcop.core.mask import Masks
from infcop.errors import CollapseError

__all__ = ["Failure", "Reference"]


@dataclass(frozen=True)
class Failure:
    """Why a smaller network is refused.

    Attributes:
        reason: What is wrong.
        place: The module in which it failed to run; None if it ran.
    """

    reason: str
    place: str | None = None


_SMALL = 1 << 23
"""Up to so many parameters a network is copied in float64, and its gradients are kept to be
compared again."""


class Reference:
    """What a masked network gives for the example inputs, for random ones, and for other sizes.

    A network in float32 is run in float64 too, if it can be: what is right up to rounding is then
    told from what is wrong. Gradients are then compared in float64 alone. In float32 those of one
    and the same network are off by percents where rounding decides which side of a ReLU or which
    position of a maximum is taken.

    Args:
        model: The network, with masked weights, in evaluation mode.
        masks: What survives, by name.
        arguments: Example inputs, positional and by keyword.
        trains: Whether to compare in training mode as well.

    Raises:
        CollapseError: It fails, or what it gives is not finite or not the same twice.
    """

    def __init__(
        self, model: nn.Module, masks: Masks, arguments: Any, *, trains: bool = False
    ) -> None:
        self._model = model
        self._masks = masks
        self._given: dict[Run, Measured] = {}
        self._own = Precision(_narrowest(model))
        self._small = _is_small(model)
        sound(lean_copy(model), arguments)
        given = Run("the example inputs", self._own.dtype, arguments)
        stirred = stirred_run(lean_copy(model), self._own.dtype, arguments)
        drawn = random_run(lean_copy(model), self._own.dtype, arguments)
        runs = [*(stirred or [given]), *drawn]
        self._widest, wide = self._widened(runs)
        self._arguments = in_precision(arguments, self._widest[0].dtype)
        plain = Run(given.what, self._widest[0].dtype, self._arguments)
        # First those whose failures say more.
        self._runs: list[Run] = [
            *(self._given_by(self._widest[0], partial(forwards, runs=[plain])) if stirred else []),
            *(wide or runs),
            *(self._given_by(self._own, partial(forwards, runs=[given, *drawn])) if wide else []),
        ]
        self._resized = self._in_sizes(taken)
        self._uneven: list[Forwards] | None = None
        self._training = Training(masks, wide or runs) if trains else None

    def _widened(self, runs: Sequence[Run]) -> tuple[list[Precision], list[Run]]:
        """Return how and on what to compare in float64, the way that takes less memory first.

        Where that can't be done, the own precision and nothing.
        """
        ways = [Precision(torch.float64, "use"), Precision(torch.float64, "copy")]
        if self._own.dtype == torch.float64:
            ways = []
        for at, way in enumerate(ways):
            if self._small and way.by == "use":
                continue
            network = way.of(self._model)
            with way.running(network):
                wide = in_float64(network, runs)
            if wide:
                return ways[at:], wide
        return [self._own], []

    def _given_by(
        self, way: Precision, run: Callable[[nn.Module], list[Forwards]]
    ) -> list[Forwards]:
        network = way.of(self._model)
        with way.running(network):
            return run(network)

    def _in_sizes(self, take: Callable[..., list[Forwards]]) -> list[Forwards]:
        way = self._widest[0]
        return self._given_by(way, partial(take, dtype=way.dtype, arguments=self._arguments))

    def verified(self, small: nn.Module, plan: Plan) -> tuple[str, ...]:
        """Say what a network that was not refused has been compared on.

        Args:
            small: The network, in the precision of the masked one.
            plan: What it keeps.
        """
        compared = (*map(str, self._runs), *map(str, self._in_other_sizes(plan)))
        if self._training is not None:
            return (*compared, self._training.said)
        reason = fails_to_train(self._model, small, self._runs[-1].arguments)
        if reason is None:
            return compared
        return (
            *compared,
            "not in training mode, where the smaller network fails and the masked one runs: "
            f"{reason}; use it in evaluation mode, or pass fold=False",
        )

    def refuses(self, build: Callable[[nn.Module], nn.Module], plan: Plan) -> Failure | None:
        """Return why a smaller network does not do the same, or None if it does.

        Args:
            build: Makes the smaller network of the masked one, in the precision of the latter.
            plan: What it keeps.
        """
        first, *others = self._widest
        failure = self._refuses(first, build, plan)
        # What fails to run does so in every way; what differs may differ by rounding alone.
        if failure is not None and failure.place is None and others:
            with suppress(CollapseError):  # the masked network need not run there
                failure = self._refuses(others[0], build, plan)
        if failure is None and self._own not in self._widest:
            failure = self._refuses(self._own, build, plan)
        return failure

    def _refuses(
        self, way: Precision, build: Callable[[nn.Module], nn.Module], plan: Plan
    ) -> Failure | None:
        """Compare in one precision."""
        large = way.of(self._model)
        small = build(large)
        way.without_rounding(small, large, plan)
        unused = lean_copy(large), lean_copy(small)
        with way.running(large, small):
            for run in (*self._runs, *self._in_other_sizes(plan)):
                if run.dtype == way.dtype:
                    failure = self._differs(run, large, small, plan)
                    if failure is not None:
                        return failure
            if self._training is not None and way in self._widest:
                reason = self._training.refuses(*unused, plan)
                if reason is not None:
                    return Failure(reason)
        return None

    def _in_other_sizes(self, plan: Plan) -> list[Forwards]:
        """Return what to compare outputs on; more where constants are folded.

        Padding to a multiple of something is not in the graph where the example needs none.
        """
        if not plan.added and not plan.made:
            return self._resized
        if self._uneven is None:
            self._uneven = self._in_sizes(taken_uneven)
        return [*self._resized, *self._uneven]

    def _differs(self, run: Run, large: nn.Module, small: nn.Module, plan: Plan) -> Failure | None:
        """Compare on some inputs."""
        entered: list[str] = []
        surviving = Surviving(self._masks, plan)
        expected = None if isinstance(run, Forwards) else self._expected(run, large, surviving)
        try:
            with followed(small) as entered:
                if isinstance(run, Forwards):
                    outputs = outputs_of(small, run.arguments)
                else:
                    found = measured(small, run.arguments, surviving.of_small)
        except Exception as error:
            return Failure(f"it fails: {error}", entered[-1] if entered else "")
        if isinstance(run, Forwards):
            difference = unlike(run.outputs, outputs, TOLERANCE[run.dtype])
        else:
            assert expected is not None
            difference = measured_unlike(expected, found, run.dtype)
        return Failure(f"{difference} with {run}") if difference else None

    def _expected(self, run: Run, large: nn.Module, surviving: Surviving) -> Measured:
        """Measure the masked network, once if what it gives is small."""
        if not self._small:
            return _masked(large, run, surviving.of_masked)
        if run not in self._given:
            self._given[run] = _masked(large, run)
        found = self._given[run]
        return Measured(
            found.outputs,
            found.by_input,
            {
                name: None if gradient is None else surviving.of_masked(name, gradient)
                for name, gradient in found.by_parameter.items()
            },
        )


def _masked(
    model: nn.Module, run: Run, take: Callable[[str, Tensor], Tensor] | None = None
) -> Measured:
    try:
        return measured(model, run.arguments, take)
    except Exception as error:
        raise CollapseError(
            f"compact: expected a model that runs backwards on {run}, as it does on the example "
            f"inputs, but it fails: {error}; give other example inputs"
        ) from error


def _narrowest(model: nn.Module) -> torch.dtype:
    """Return the precision of a model; of one that has two, the lower."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return min(dtypes, key=lambda dtype: torch.finfo(dtype).bits, default=torch.float32)


def _is_small(model: nn.Module) -> bool:
    """Whether copies in float64 do no harm, or are needed."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters) <= _SMALL or any(p.is_complex() for p in parameters)
