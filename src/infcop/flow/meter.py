"""The one way to measure flow: on a probe, or on the training that happens anyway."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from infcop.core.edges import Edge, Edges
from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.flow.gathering import Gathering
from infcop.flow.gradient import FullGradient, PerBatchGradient, batch_gradients
from infcop.flow.reading import FlowReading
from infcop.flow.sampling import Precision
from infcop.flow.taps import Pass, Taps, tapped, tapped_layers
from infcop.models.calling import call
from infcop.models.undisturbed import undisturbed
from infcop.models.unwrap import unwrapped
from infcop.tasks.base import Task

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["FlowKind", "FlowMeter", "Watch"]

FlowKind = Literal["information", "gradient"]

_GRADIENTS: dict[str, type[FullGradient] | type[PerBatchGradient]] = {
    "full": FullGradient,
    "per-batch": PerBatchGradient,
}

_GROWTH = 1.5
"""An adaptive probe looks again when it has seen this many times the examples of its last look."""


class FlowMeter:
    """Measures the flow of a model and leaves no trace in it.

    From a *probe*, fixed examples in evaluation mode, with :meth:`read`; or from *training*, the
    forward and backward passes that happen anyway, with :meth:`watch`. The two differ: in
    training mode batch normalisation uses the batch's own statistics, dropout is active, inputs
    may be augmented, and the weights move while the examples are gathered. So compare readings
    of one source only.

    A probe is read under whatever autocast context the caller has entered. Afterwards
    parameters, buffers, ``.grad``, training flags, generators and hooks are as they were, also if
    a batch raised. On the CPU, two readings of the same batches are identical.

    Args:
        model: The model. A compiled or distributed wrapper is looked through: names are those of
            the module inside, and a probe runs that.
        edges: What information flow is measured on: what ``select_edges`` returned, or pairs of
            names of layers that run once per forward pass.
        parameters: Names of prunable parameters; needed for ``"gradient"`` only.
        kinds: What to measure. Both share one forward pass.
        gradient: ``"full"`` for the gradient of the mean loss over all batches, ``"per-batch"``
            for the average over batches of each batch's statistic.
        keep_moments: Keep the co-moments in the reading, for ``correlation`` and
            ``effective_rank``: a float64 matrix per edge.
        alignment: Also measure the alignment of every edge's ends, which does not depend on the
            places of units; costs a product of each end with itself.
        standard_errors: Also say how well the information vectors are known. Keeps all pooled
            activations until the reading is done.
        group: The processes that measure together, each its share of the examples
            (``torch.distributed.group.WORLD`` for all). All get the same reading. None for this
            process alone.

    Raises:
        FlowError: A name is unknown, a parameter is frozen, or there is nothing to measure.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> batches = [(torch.eye(2), torch.tensor([0, 2]))]
        >>> meter = FlowMeter(model, edges=[("0", "2")], kinds=["information"])
        >>> reading = meter.read(Classification(batches, batches), batches)
        >>> sorted(reading.flows), reading.forward_examples
        (['information.absolute', 'information.signed'], 2)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        edges: Edges | Sequence[Edge] = (),
        parameters: Sequence[str] = (),
        kinds: Collection[FlowKind],
        gradient: Literal["full", "per-batch"] = "full",
        keep_moments: bool = False,
        alignment: bool = False,
        standard_errors: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        _check_choices(kinds, gradient)
        self.model = unwrapped(model)
        self.kinds = frozenset(kinds)
        self.gradient = gradient
        self.group = group
        self._keep_moments, self._errors = keep_moments, standard_errors
        self._alignment = alignment
        informed = "information" in kinds
        self._edges = _checked_edges(self.model, Edges.of(edges)) if informed else Edges(())
        self.parameters = tuple(parameters) if "gradient" in kinds else ()
        if "gradient" in kinds:
            _parameters(self.model, self.parameters)

    def read(
        self,
        task: Task,
        batches: Iterable[Any],
        masks: Masks | None = None,
        *,
        strict: bool = True,
        precision: Precision | None = None,
    ) -> FlowReading:
        """Return the flow over batches.

        Args:
            task: Gives the model's inputs and, for the gradient, the mean loss of a batch.
            batches: The probe: always the same examples, so that readings can be compared. Of
                several processes, each gives its share, which may be empty.
            masks: Pruned entries count 0 in the gradient; ``None`` where nothing is pruned.
            strict: Raise if something is not finite. Otherwise the reading says what and where.
            precision: Stop as soon as the distance of the information flow to a reference is
                known this well. Looks after 256 examples and whenever there are half as many
                again. For one process and information flow alone.

        Raises:
            FlowError: There is no example (for information, only one), a layer never ran, a mask
                is missing, or something is not finite.
            Exception: Whatever the batches or the model raise; the model is as it was.
        """
        if precision is not None:
            self._check_precision(precision)
        gathering = self._gathering(masks, keep=precision is not None)
        failure: Exception | None = None
        try:
            self._gather(task, batches, gathering, precision)
        except Exception as error:
            if self.group is None:
                raise
            failure = error
        return gathering.reading(
            "probe", keep_moments=self._keep_moments, strict=strict, failure=failure
        )

    @contextmanager
    def watch(self, masks: Masks | None = None) -> Iterator[Watch]:
        """Measure on the training steps that are made while the context lasts.

        Forward passes of the model in training mode are listened to; those in evaluation mode are
        not. What was compiled runs uncompiled meanwhile, as compiled code can't be listened to.

        Args:
            masks: Pruned entries count 0 in the gradient; ``None`` where nothing is pruned.

        Example:
            >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> meter = FlowMeter(
            ...     model, edges=[("0", "2")], parameters=["0.weight"],
            ...     kinds=["information", "gradient"],
            ... )
            >>> with meter.watch() as watch:
            ...     for _ in range(3):
            ...         optimizer.zero_grad()
            ...         model(torch.randn(8, 2)).square().mean().backward()
            ...         watch.after_backward(examples=8)
            ...         optimizer.step()
            >>> reading = watch.reading()
            >>> reading.examples, reading.forward_examples, len(reading.flows["gradient.norm"])
            (24, 0, 1)
        """
        gathering = self._gathering(masks, keep=False)
        parameters = _parameters(self.model, self.parameters) if self.parameters else {}
        with tapped(self.model, self._edges, training_only=True) as taps:
            watch = Watch(taps, gathering, parameters, keep_moments=self._keep_moments)
            try:
                yield watch
            finally:
                watch.end()

    @property
    def _device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def _gathering(self, masks: Masks | None, *, keep: bool) -> Gathering:
        measured = "gradient" in self.kinds
        return Gathering(
            self._edges if "information" in self.kinds else None,
            _parameters(self.model, self.parameters) if measured else {},
            _GRADIENTS[self.gradient](masks) if measured else None,
            errors=self._errors,
            keep=keep,
            alignment=self._alignment,
            group=self.group,
            device=self._device,
        )

    def _gather(
        self, task: Task, batches: Iterable[Any], gathering: Gathering, wanted: Precision | None
    ) -> None:
        look_at = wanted.at_least if wanted is not None else math.inf
        with undisturbed(self.model), tapped(self.model, self._edges) as taps:
            for batch in batches:
                if (size := task.batch_size(batch)) == 0:
                    gathering.add(0, [])
                    continue
                self._take(task, batch, size, taps, gathering)
                if wanted is not None and gathering.examples >= look_at:
                    if gathering.is_precise(wanted):
                        return
                    look_at = math.ceil(gathering.examples * _GROWTH)

    def _take(self, task: Task, batch: Any, size: int, taps: Taps, gathering: Gathering) -> None:
        found, loss = None, None
        if "gradient" in self.kinds:
            with torch.enable_grad():
                loss = task.training_step(self.model, batch)
                found = batch_gradients(loss, _parameters(self.model, self.parameters))
        else:
            with torch.no_grad():
                call(self.model, task.inputs(batch))
        passes = taps.take()
        _check_rows(passes, size)
        gathering.add(size, passes, found, loss)

    def _check_precision(self, precision: Precision) -> None:
        if self.group is not None or self.kinds != {"information"}:
            raise FlowError(
                "FlowMeter.read: expected one process and kinds=['information'] with a precision, "
                f"got kinds={sorted(self.kinds)}"
                f"{'' if self.group is None else ' and a process group'}; leave precision out to "
                "read the whole probe"
            )
        precision.check(self._edges)


def _check_rows(passes: Iterable[Pass], size: int) -> None:
    """Layers whose examples lie elsewhere than the trace saw would be pooled wrongly."""
    for one in passes:
        for (name, _), rows in one.items():
            if len(rows) != size:
                raise FlowError(
                    f"FlowMeter.read: expected {size} examples in the output of layer '{name}', as "
                    f"many as in the batch, got {len(rows)}; trace the edges on batches like those "
                    "that are measured: the same size of inputs"
                )


class Watch:
    """Listens to training; made by :meth:`FlowMeter.watch`."""

    def __init__(
        self,
        taps: Taps,
        gathering: Gathering,
        parameters: dict[str, Tensor],
        *,
        keep_moments: bool,
    ) -> None:
        self._taps, self._gathering, self._parameters = taps, gathering, parameters
        self._keep_moments = keep_moments
        self._open = True

    @torch.no_grad()
    def after_backward(self, examples: int) -> None:
        """Take in a training step: call it once per optimiser step, after the last ``backward``.

        Gradients are read from ``.grad`` as they stand: of the mean loss over all the examples
        since they were zeroed. So call this before clipping and before the optimiser's step. The
        forward passes since the last call are taken in with them, also those of a batch that was
        then skipped.

        Args:
            examples: How many examples these gradients come from, >= 1.

        Raises:
            FlowError: No layer of the edges has run in training mode, no parameter has a gradient,
                the number of examples is not positive, or the watch has ended.
        """
        self._check(examples)
        gradients = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in self._parameters.items()
        }
        passes = self._taps.take()
        if self._gathering.stream is not None and not passes and not self._gathering.examples:
            raise FlowError(
                "FlowMeter.watch: expected the layers of the edges to run in training mode before "
                "after_backward, but none did; put the model into training mode, and measure "
                "the one that is trained"
            )
        self._gathering.add(examples, passes, gradients)

    def end(self) -> None:
        """Take in nothing more."""
        self._open = False

    def _check(self, examples: int) -> None:
        if not self._open:
            raise FlowError(
                "FlowMeter.watch: after_backward was called when the context had ended; call it "
                "inside the with block"
            )
        if examples < 1:
            raise FlowError(
                f"FlowMeter.watch: expected at least one example per step, got {examples}"
            )
        if self._parameters and all(p.grad is None for p in self._parameters.values()):
            raise FlowError(
                "FlowMeter.watch: expected gradients in .grad, got none in any parameter; call "
                "after_backward after backward and before zero_grad, and give the meter the model "
                "that is trained rather than a copy"
            )

    def reading(self, *, strict: bool = True) -> FlowReading:
        """Return the flow over the steps taken in so far.

        Raises:
            FlowError: No step was taken in, or (with ``strict``) something is not finite.
        """
        return self._gathering.reading("training", keep_moments=self._keep_moments, strict=strict)


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


def _checked_edges(model: nn.Module, edges: Edges) -> Edges:
    if not edges.edges:
        raise FlowError(
            "FlowMeter: information flow needs an edge between two prunable layers, got none; "
            "name successive layers in flow.edges, or use a stop rule without information flow"
        )
    tapped_layers(model, edges)
    return edges


def _parameters(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    if not names:
        raise FlowError(
            "FlowMeter: gradient flow needs a prunable parameter, got none; name at least one "
            "weight, or use a stop rule without gradient flow"
        )
    known = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if list(names).count(name) > 1:
            raise FlowError(f"FlowMeter: the parameter '{name}' is given twice; give it once")
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
