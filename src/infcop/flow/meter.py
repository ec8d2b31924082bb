"""The one way to measure flow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.core.records import Flow
from infcop.errors import FlowError
from infcop.flow.gradient import (
    FullGradient,
    GradientStatistics,
    PerBatchGradient,
    batch_gradients,
)
from infcop.flow.information import absolute_mean, dead_units, signed_mean
from infcop.flow.moments import CoMoments, Edge
from infcop.flow.taps import Taps, tapped
from infcop.flow.undisturbed import undisturbed
from infcop.tasks.base import Task

__all__ = ["FlowKind", "FlowMeter", "FlowReading"]

FlowKind = Literal["information", "gradient"]

_GRADIENTS: dict[str, type[FullGradient] | type[PerBatchGradient]] = {
    "full": FullGradient,
    "per-batch": PerBatchGradient,
}


@dataclass(frozen=True)
class FlowReading:
    """One measurement of flow.

    Attributes:
        flows: Vectors by name: one entry per edge for information, one per parameter for
            gradient. Not finite where an activation or the loss was not.
        dead_units: Per layer of the edges, the channels that did not vary over the probe.
        examples: Examples measured.
        forward_examples: Those of them that took a forward pass only.
        gradient_examples: Those of them that took a backward pass too.
    """

    flows: dict[Flow, tuple[float, ...]]
    dead_units: dict[str, int]
    examples: int
    forward_examples: int
    gradient_examples: int


class FlowMeter:
    """Measures the flow of a model on batches and leaves no trace in it.

    A reading runs in evaluation mode, under whatever autocast context the caller has entered.
    Afterwards parameters, buffers, ``.grad``, training flags, generators and hooks are as they
    were, also if a batch raised. On the CPU, two readings of the same batches are identical.

    Args:
        model: The model; its own forward pass must run all layers of the edges once per batch.
        edges: Names of producer and consumer layers; needed for ``"information"`` only.
        parameters: Names of prunable parameters; needed for ``"gradient"`` only.
        kinds: What to measure. Both share one forward pass.
        gradient: ``"full"`` for the gradient of the mean loss over all batches, ``"per-batch"``
            for the average over batches of each batch's statistic.

    Raises:
        FlowError: A name is unknown, a parameter is frozen, or there is nothing to measure.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> batches = [(torch.eye(2), torch.tensor([0, 2]))]
        >>> meter = FlowMeter(model, edges=[("0", "2")], parameters=[], kinds=["information"])
        >>> reading = meter.read(Classification(batches, batches), batches)
        >>> sorted(reading.flows), reading.forward_examples
        (['information.absolute', 'information.signed'], 2)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        edges: Sequence[Edge],
        parameters: Sequence[str],
        kinds: Collection[FlowKind],
        gradient: Literal["full", "per-batch"] = "full",
    ) -> None:
        _check_choices(kinds, gradient)
        self.model = model
        self.kinds = frozenset(kinds)
        self.gradient = gradient
        self.edges = _checked_edges(model, edges) if "information" in kinds else ()
        self.parameters = tuple(parameters) if "gradient" in kinds else ()
        if "gradient" in kinds:
            _parameters(model, self.parameters)

    def read(self, task: Task, batches: Iterable[Any], masks: Masks | None = None) -> FlowReading:
        """Return the flow over batches.

        Args:
            task: Gives the model's inputs and, for the gradient, the mean loss of a batch.
            batches: The probe: always the same examples, so that readings can be compared.
            masks: Pruned entries count 0 in the gradient; ``None`` where nothing is pruned.

        Raises:
            FlowError: There is no example (for information, only one), a layer ran not once, or
                a mask is missing.
        """
        moments = CoMoments(self.edges)
        gradients = _GRADIENTS[self.gradient](masks)
        examples = 0
        with undisturbed(self.model), tapped(self.model, moments.layers) as taps:
            for batch in batches:
                size = task.batch_size(batch)
                if size == 0:
                    continue
                examples += size
                self._forward(task, batch, gradients, size)
                self._collect(taps, moments)
        if examples == 0:
            raise FlowError(
                "FlowMeter.read: expected at least one batch with an example, got none; give the "
                "batches as a list or loader that can be iterated over again"
            )
        return self._reading(moments, gradients, examples)

    def _forward(self, task: Task, batch: Any, gradients: GradientStatistics, size: int) -> None:
        if "gradient" in self.kinds:
            with torch.enable_grad():
                loss = task.training_step(self.model, batch)
                found = batch_gradients(loss, _parameters(self.model, self.parameters))
            gradients.update(found, size)
        else:
            with torch.no_grad():
                self.model(*task.inputs(batch))

    def _collect(self, taps: Taps, moments: CoMoments) -> None:
        if "information" in self.kinds:
            moments.update(taps.take())

    def _reading(
        self, moments: CoMoments, gradients: GradientStatistics, examples: int
    ) -> FlowReading:
        flows: dict[Flow, tuple[float, ...]] = {}
        dead: dict[str, int] = {}
        if "information" in self.kinds:
            flows["information.signed"] = signed_mean(moments)
            flows["information.absolute"] = absolute_mean(moments)
            dead = dead_units(moments)
        if "gradient" in self.kinds:
            flows["gradient.norm"] = gradients.norm()
            flows["gradient.mean"] = gradients.mean()
        backward = examples if "gradient" in self.kinds else 0
        return FlowReading(flows, dead, examples, examples - backward, backward)


def _check_choices(kinds: Collection[str], gradient: str) -> None:
    if not kinds or not set(kinds) <= {"information", "gradient"}:
        raise FlowError(
            "FlowMeter: expected kinds to hold 'information', 'gradient' or both, got "
            f"{kinds!r}; give a list or set of these names"
        )
    if gradient not in _GRADIENTS:
        raise FlowError(
            f"FlowMeter: unknown gradient {gradient!r}; {did_you_mean(gradient, _GRADIENTS)}"
        )


def _checked_edges(model: nn.Module, edges: Sequence[Edge]) -> tuple[Edge, ...]:
    if not edges:
        raise FlowError(
            "FlowMeter: information flow needs an edge between two prunable layers, got none; "
            "name successive layers in flow.edges, or use a stop rule without information flow"
        )
    layers = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for name in (name for edge in edges for name in edge):
        if name not in layers:
            raise FlowError(
                f"FlowMeter: the model has no layer '{name}' of an edge; "
                f"{did_you_mean(name, layers)}"
            )
    return tuple(edges)


def _parameters(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    if not names:
        raise FlowError(
            "FlowMeter: gradient flow needs a prunable parameter, got none; name at least one "
            "weight, or use a stop rule without gradient flow"
        )
    known = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name not in known:
            raise FlowError(
                f"FlowMeter: the model has no parameter '{name}'; {did_you_mean(name, known)}"
            )
        if not known[name].requires_grad:
            raise FlowError(
                f"FlowMeter: expected parameter '{name}' to be trainable, but it is frozen; "
                "leave it out or set its requires_grad"
            )
    return {name: known[name] for name in names}
