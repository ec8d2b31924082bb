"""Taking a reading: held-out metrics and, where asked for, flow."""

from __future__ import annotations

from typing import Literal

import torch

from infcop.core.records import Cost, Reading
from infcop.core.rng import derive_seed, preserved_rng
from infcop.flow.meter import FlowMeter
from infcop.pipeline.context import Run
from infcop.stopping.build import needed_flows
from infcop.tasks.base import Loader, Metrics
from infcop.training.engine import evaluating

__all__ = ["evaluate", "flow_kinds", "take_reading", "with_flow"]

Kind = Literal["information", "gradient"]


def flow_kinds(run: Run) -> tuple[Kind, ...]:
    """Return the kinds of flow that this run reads.

    Those that its stop rule compares; a rule that compares none gets information flow, which the
    report shows, as long as the model has an edge to read it on.
    """
    needed = {name.split(".")[0] for name in needed_flows(run.config.method.stop)}
    if not needed and run.record.model.edges:
        return ("information",)
    kinds: tuple[Kind, ...] = ("information", "gradient")
    return tuple(kind for kind in kinds if kind in needed)


def take_reading(
    run: Run,
    phase: Literal["dense", "pruned", "level", "final"],
    passes: float,
    *,
    flow: bool,
    train_loss: float | None = None,
    training: int = 0,
) -> Reading:
    """Measure the working model as it stands; nothing of it changes.

    Args:
        run: The run.
        phase: Which part of the run this is.
        passes: Training passes since the phase began.
        flow: Whether to read flow too.
        train_loss: Mean training loss since the reading before.
        training: Training examples since the reading before.
    """
    metrics = evaluate(run, run.task.held_out_loader)
    reading = Reading(
        phase=phase,
        level=len(run.record.levels),
        passes=passes,
        metrics=dict(metrics.values),
        main=metrics.main_value,
        train_loss=train_loss,
        cost=Cost(training=training, evaluating=metrics.examples),
    )
    return with_flow(run, reading) if flow else reading


def with_flow(run: Run, reading: Reading) -> Reading:
    """Return a reading of the same moment with flow added."""
    kinds = flow_kinds(run)
    if not kinds:
        return reading
    meter = FlowMeter(
        run.model,
        edges=run.record.model.edges,
        parameters=run.prunable.names,
        kinds=kinds,
        gradient=run.config.method.flow.gradient,
    )
    with run.engine.autocast():
        measured = meter.read(run.task, map(run.engine.move, run.probe), run.masks)
    measuring = Cost(
        measuring=measured.forward_examples, measuring_gradient=measured.gradient_examples
    )
    return reading.model_copy(
        update={
            "flows": measured.flows,
            "dead_units": measured.dead_units,
            "probe_examples": measured.examples,
            "cost": reading.cost + measuring,
        }
    )


def evaluate(run: Run, loader: Loader) -> Metrics:
    """Evaluate the working model without disturbing it or the random generators."""
    with torch.no_grad(), evaluating(run.wrapped), preserved_rng():
        # The same order every time: a sum over other batches would round otherwise.
        order = derive_seed(run.config.seed, "evaluation")
        return run.task.evaluate(run.wrapped, run.engine.loader(loader, order))
