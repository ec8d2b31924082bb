"""Measuring a model without pruning it: its prunable layers, their edges, the flow along them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from torch import nn

from infcop.core.config import ExecutionConfig
from infcop.core.edges import Edges
from infcop.core.mask import Masks
from infcop.core.measurement import MeasurementRecord
from infcop.core.rng import preserved_rng
from infcop.core.validation import validated
from infcop.errors import (
    ConfigError,
    DataError,
    FlowError,
    InfcopError,
    ModelError,
    NoEffectWarning,
)
from infcop.flow.meter import FlowKind, FlowMeter
from infcop.flow.reading import FlowReading
from infcop.models.graph import LayerGraph, select_edges
from infcop.models.prunable import find_prunable, get_parameters
from infcop.models.unwrap import unwrapped
from infcop.pipeline.findings import correlations, measured_edges, measured_layers, traced_model
from infcop.pipeline.measurement import Measurement
from infcop.pipeline.probe import batch_to_trace, take_probe
from infcop.tasks.base import Task
from infcop.training.engine import Engine

__all__ = ["measure"]


def measure(
    model: nn.Module,
    task: Task,
    *,
    examples: int | None = 2048,
    edges: str | Sequence[str] = "graph",
    kinds: Collection[FlowKind] = ("information", "gradient"),
    gradient: Literal["full", "per-batch"] = "full",
    standard_errors: bool = True,
    matrices: bool = False,
    masks: Masks | None = None,
    seed: int = 0,
    device: str | None = None,
    name: str | None = None,
) -> Measurement:
    """Measure prunable layers, edges and flow of a model, and leave it as it is.

    Everything is measured on fixed examples in evaluation mode. The same model, examples and seed
    give the same numbers, on the CPU bit for bit.

    Args:
        model: Any ``nn.Module`` with a linear layer or a convolution that is trainable.
        task: For instance ``infcop.Classification(train_loader, held_out_loader)``. Its
            ``probe_loader`` is read, or else the first batches of ``train_loader`` in an order
            that ``seed`` gives.
        examples: Whole batches of ``train_loader`` are taken until they hold so many; None for
            all.
        edges: ``"graph"`` for all edges, ``"main-path"`` for the longest chain of layers, or names
            of layers, whose successive pairs are taken.
        kinds: Which flow to measure. A model without any edge gets gradient flow alone, with a
            warning.
        gradient: ``"full"`` for the gradient of the mean loss over all examples, ``"per-batch"``
            for the average over batches of each batch's statistic.
        standard_errors: Also say how well information flow is known from so many examples.
        matrices: Keep the correlation matrix of every edge for :meth:`Measurement.matrix`.
        masks: Pruned entries count 0 in the gradient; by default none are pruned.
        seed: Of the examples that are drawn from ``train_loader``.
        device: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``, where a copy of the model is
            measured; by default the model is measured where it is.
        name: What the model is called on the page; by default the name of its class.

    Raises:
        ModelError: The model has nothing to prune, or model and task don't fit a batch.
        DataError: The task lacks something, or there are fewer than two examples.
        FlowError: A layer or edge that was named doesn't exist, or an activation or gradient is
            not finite.
        ConfigError: The device is not there, or ``examples`` is out of range.

    Example:
        >>> import infcop
        >>> inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> batches = [(inputs, (inputs.sum(dim=1) > 0).long())]
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> measurement = infcop.measure(model, infcop.Classification(batches, batches))
        >>> [(edge.producer, edge.consumer, edge.widths) for edge in measurement.edges]
        [('0', '2', (16, 2))]
        >>> [(layer.name, layer.kind, layer.shape) for layer in measurement.layers]
        [('0', 'Linear', (16, 4)), ('2', 'Linear', (2, 16))]
    """
    _check(task, kinds, examples, edges, seed)
    inner = unwrapped(model)
    prunable = find_prunable(inner)
    engine = _engine(inner, device)
    inner = _placed(inner, engine.device)
    with preserved_rng():
        probe = [engine.move(batch) for batch in take_probe(task, examples, seed)]
        batch = batch_to_trace(probe, task)
        traced = traced_model(inner, prunable, task.inputs(batch), task.batch_size(batch))
    asked = edges if isinstance(edges, str) else tuple(edges)
    chosen, notes = _chosen(traced.graph, asked, kinds)
    reading = _read(
        inner,
        task,
        probe,
        masks,
        edges=chosen,
        parameters=prunable.names,
        kinds=[kind for kind in kinds if kind != "information" or chosen.edges],
        gradient=gradient,
        keep_moments=bool(chosen.edges),
        standard_errors=standard_errors and bool(chosen.edges),
    )
    notes += _partial(reading, chosen)
    record = MeasurementRecord(
        model=name or type(inner).__name__,
        examples=reading.examples,
        seed=seed,
        selection=asked,
        gradient=gradient if "gradient" in kinds else None,
        parameters=sum(parameter.numel() for parameter in inner.parameters()),
        prunable=sum(p.numel() for p in get_parameters(inner, prunable.names).values()),
        layers=measured_layers(traced, reading),
        edges=measured_edges(traced, chosen, reading, every=asked == "graph"),
        excluded=prunable.excluded,
        unused=traced.graph.unused,
        warnings=tuple(notes),
    )
    for note in notes:
        warnings.warn(f"measure: {note}", NoEffectWarning, stacklevel=2)
    return Measurement(record, correlations(reading) if matrices else None)


def _check(
    task: Task,
    kinds: Collection[str],
    examples: int | None,
    edges: str | Sequence[str],
    seed: int,
) -> None:
    if isinstance(kinds, str) or not kinds or not set(kinds) <= {"information", "gradient"}:
        raise FlowError(
            "measure: expected kinds to hold 'information', 'gradient' or both, got "
            f"{kinds!r}; give a list or set of these names"
        )
    if not isinstance(edges, str | tuple | list) or not all(isinstance(n, str) for n in edges):
        raise FlowError(
            f"measure: expected edges to be 'graph', 'main-path' or names of layers, got {edges!r}"
        )
    if type(seed) is not int or not (examples is None or type(examples) is int):
        raise ConfigError(
            f"measure: expected whole numbers, got seed={seed!r} and examples={examples!r}"
        )
    if examples is not None and examples < 2:
        raise ConfigError(
            f"measure: expected at least 2 examples, or None for all, got {examples}; flow is a "
            "correlation over examples"
        )
    needed = ["train_loader", "probe_loader", "inputs", "batch_size"]
    for name in [*needed, "training_step"] if "gradient" in kinds else needed:
        if not hasattr(task, name):
            raise DataError(
                f"measure: expected the task to have '{name}', but {type(task).__name__} has none; "
                "see infcop.Task" + ("; probe_loader may be None" if name == "probe_loader" else "")
            )
    if task.train_loader is None and task.probe_loader is None:
        raise DataError(
            "measure: expected the task to have a probe_loader or a train_loader, got None for both"
        )


def _engine(model: nn.Module, device: str | None) -> Engine:
    """Return where to measure: where the model is, unless told otherwise."""
    here = next((parameter.device.type for parameter in model.parameters()), "cpu")
    return Engine(validated(ExecutionConfig, {"device": device or here}, at="measure"))


def _placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model itself where it is on the device, or a copy of it there."""
    if all(parameter.device == device for parameter in model.parameters()):
        return model
    try:
        return copy.deepcopy(model).to(device)
    except Exception as error:
        raise ModelError(
            f"measure: expected a model that can be copied to {device}, but "
            f"{type(model).__name__} fails with: {error}. Move the model there yourself"
        ) from error


def _chosen(
    graph: LayerGraph, asked: str | tuple[str, ...], kinds: Collection[str]
) -> tuple[Edges, list[str]]:
    """Return the edges to measure, and what could not be done."""
    if "information" not in kinds:
        return Edges(()), []
    try:
        chosen = select_edges(graph, asked)
    except FlowError as error:
        # Where layers were named, or nothing else is wanted, there is nothing to go on with.
        if asked not in ("graph", "main-path") or "gradient" not in kinds:
            raise
        return Edges(()), [f"information flow was not measured: {error}"]
    lost = [edge for edge in graph.edges if edge not in chosen.edges] if asked == "graph" else []
    if not lost:
        return chosen, []
    names = ", ".join(" -> ".join(edge) for edge in lost[:3])
    return chosen, [
        f"{len(lost)} of {len(graph.edges)} edges were not measured, as an output has no place for "
        f"the examples: {names}{', ...' if len(lost) > 3 else ''}"
    ]


def _partial(reading: FlowReading, chosen: Edges) -> list[str]:
    """Say which edges were not reached by all of the examples."""
    if reading.moments is None:
        return []
    few = {
        edge: part.n
        for edge, part in reading.moments.parts.items()
        if part.n < reading.examples * len(chosen.calls(edge))
    }
    if not few:
        return []
    names = ", ".join(f"{' -> '.join(edge)} ({n})" for edge, n in list(few.items())[:3])
    return [
        f"{len(few)} edges were measured on fewer samples than the {reading.examples} examples "
        f"give, as their layers did not run for every batch: {names}"
        f"{', ...' if len(few) > 3 else ''}"
    ]


def _read(
    model: nn.Module, task: Task, probe: Sequence[Any], masks: Masks | None, **settings: Any
) -> FlowReading:
    meter = FlowMeter(model, **settings)
    try:
        return meter.read(task, probe, masks)
    except InfcopError:
        raise
    except Exception as error:  # whatever the user's model and task raise
        raise ModelError(
            f"measure: model and task failed on a batch: {type(error).__name__}: {error}. Expected "
            "the task's training_step and inputs to fit the model and every batch of the probe; "
            "check the shapes, types and labels that the loader gives, and what the model returns"
        ) from error
