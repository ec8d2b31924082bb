"""Taking a reading: held-out metrics and, where asked for, flow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from infcop.core.comparison import HALVES
from infcop.core.records import Comparison, Cost, Reading
from infcop.core.rng import derive_seed, preserved_rng
from infcop.flow.compare import compare, matrices
from infcop.flow.meter import FlowMeter, Watch
from infcop.flow.reading import FlowReading
from infcop.flow.sampling import STATISTICS, Precision
from infcop.pipeline.context import Run
from infcop.stopping.build import needed_flows, needs_flow_in_levels, needs_metric
from infcop.tasks.base import Loader, Metrics
from infcop.training.engine import evaluating
from infcop.training.phase import Phase

__all__ = [
    "evaluate",
    "flow_kinds",
    "read_after_pruning",
    "reads_flow",
    "train_and_read",
    "with_flow",
    "with_halves",
    "with_metrics",
]

Kind = Literal["information", "gradient"]
Place = Literal["dense", "pruned", "level", "final"]


def flow_kinds(run: Run) -> tuple[Kind, ...]:
    """Return the kinds of flow that this run reads.

    Those that its stop rule compares; a rule that compares none gets information flow, which the
    report shows, as long as the model has an edge to read it on and measuring is not to be spared.
    """
    needed = {name.split(".")[0] for name in needed_flows(run.config.method.stop)}
    kinds: tuple[Kind, ...] = ("information", "gradient")
    if run.config.method.flow.every_reading:
        needed.add("gradient")
    sparing = run.config.levels.evaluate == "ends"
    if (run.states.wanted or not (needed or sparing)) and run.record.model.edges:
        needed.add("information")
    return tuple(kind for kind in kinds if kind in needed)


def reads_flow(run: Run) -> bool:
    """Return whether the stop rule, or a study, needs flow at every reading of a level."""
    method = run.config.method
    return needs_flow_in_levels(method.stop) or method.flow.every_reading


def train_and_read(
    run: Run, place: Place, phase: Phase, stop: int, *, flow: bool, last: bool
) -> Reading:
    """Train up to a step, then measure the working model as it stands; nothing of it changes.

    Args:
        run: The run.
        place: Which part of the run this is.
        phase: The training.
        stop: The step, counted since the phase began; where it is there already, nothing is
            trained.
        flow: Whether to read flow too.
        last: Whether this is the end of its phase, which is always evaluated.
    """
    before, loss, measured = phase.examples, None, None
    if stop > phase.step:
        if flow and run.config.method.flow.source == "training" and flow_kinds(run):
            loss, measured = _watched(run, phase, stop)
        elif place == "dense" and run.shared_dense is not None:
            loss, seconds = run.shared_dense.advance(phase, run.model, stop)
            run.charge(seconds)
        else:
            loss = phase.advance(stop)
        if run.shrunk is not None:
            run.shrunk.put_back()
    reading = Reading(phase=place, level=len(run.record.levels), passes=phase.passes)
    if last or _evaluates(run):
        reading = with_metrics(run, reading)
    training = Cost(training=phase.examples - before)
    reading = reading.model_copy(update={"train_loss": loss, "cost": reading.cost + training})
    if measured is not None:
        return _with(run, reading, measured)
    return with_flow(run, reading) if flow else reading


def read_after_pruning(run: Run) -> Reading:
    """Measure what pruning did to the trained network."""
    reading = Reading(phase="pruned", level=len(run.record.levels), passes=0.0)
    if _evaluates(run):
        reading = with_metrics(run, reading)
    return with_flow(run, reading)


def with_flow(run: Run, reading: Reading) -> Reading:
    """Return a reading of the same moment with flow added, if it comes from a probe.

    Flow from training can't be had afterwards.
    """
    flow = run.config.method.flow
    kinds = flow_kinds(run)
    if not kinds or flow.source == "training":
        return reading
    with run.engine.autocast():
        measured = _meter(run).read(
            run.task,
            map(run.engine.move, run.probe),
            run.masks,
            strict=False,
            precision=_precision(run),
        )
    return _with(run, reading, measured)


def evaluate(run: Run, loader: Loader) -> Metrics:
    """Evaluate the working model without disturbing it or the random generators."""
    with torch.no_grad(), evaluating(run.wrapped), preserved_rng():
        # The same order every time: a sum over other batches would round otherwise.
        order = derive_seed(run.config.seed, "evaluation")
        return run.task.evaluate(run.wrapped, run.engine.loader(loader, order))


def with_metrics(run: Run, reading: Reading) -> Reading:
    """Return a reading of the present moment with the held-out metrics added."""
    metrics = evaluate(run, run.task.held_out_loader)
    return reading.model_copy(
        update={
            "metrics": dict(metrics.values),
            "main": metrics.main_value,
            "cost": reading.cost + Cost(evaluating=metrics.examples),
        }
    )


def with_halves(run: Run, reading: Reading) -> Reading:
    """Return a reading with the two halves of its probe compared with each other."""
    with run.engine.autocast():
        first, second = (
            _meter(run, kinds=("information",)).read(
                run.task, map(run.engine.move, run.probe[half::2]), run.masks, strict=False
            )
            for half in (0, 1)
        )
    if first.moments is None or second.moments is None:
        raise AssertionError("moments are kept where a floor needs them")
    pair = matrices(first.moments), matrices(second.moments)
    halves: dict[str, Comparison] = {
        HALVES: compare(*pair),
        f"{HALVES}, alive units": compare(*pair, units="alive"),
    }
    examples = first.forward_examples + second.forward_examples
    return reading.model_copy(
        update={
            "comparisons": {**reading.comparisons, **halves},
            "cost": reading.cost + Cost(measuring=examples),
        }
    )


def _evaluates(run: Run) -> bool:
    config = run.config
    return config.levels.evaluate == "readings" or needs_metric(config.method.stop)


def _watched(run: Run, phase: Phase, stop: int) -> tuple[float, FlowReading]:
    """Train up to a step and read the flow of the last steps on the way."""
    watches: list[Watch] = []

    @contextmanager
    def watch() -> Iterator[Watch]:
        with _meter(run).watch(run.masks) as one:
            watches.append(one)
            yield one

    loss = phase.advance(stop, watch=watch(), watched=run.window)
    return loss, watches[0].reading(strict=False)


def _meter(run: Run, kinds: tuple[Kind, ...] | None = None) -> FlowMeter:
    flow = run.config.method.flow
    needed = needed_flows(run.config.method.stop)
    return FlowMeter(
        run.model,
        edges=run.edges,
        parameters=run.prunable.names,
        kinds=flow_kinds(run) if kinds is None else kinds,
        gradient=flow.gradient,
        keep_moments=bool(run.states.wanted),
        alignment="information.cka" in needed or flow.every_reading,
        standard_errors=flow.standard_errors,
    )


def _precision(run: Run) -> Precision | None:
    """Return when to stop reading; the reference itself takes the whole probe."""
    within, reference = run.config.method.flow.precision, run.record.reference
    if within is None or reference is None:
        return None
    # One at most: the settings were checked.
    for name in STATISTICS:
        if name in needed_flows(run.config.method.stop):
            return Precision(reference.flows[name], name, within)
    return None


def _with(run: Run, reading: Reading, measured: FlowReading) -> Reading:
    if measured.non_finite:
        places = ", ".join(
            f"'{name}'" + ("" if batch is None else f" (batch {batch})")
            for name, batch in measured.non_finite.items()
        )
        run.warn(f"the flow is not finite in {places}; nothing can be decided from such a reading")
    cost = Cost(measuring=measured.forward_examples, measuring_gradient=measured.gradient_examples)
    found: dict[str, Comparison] = {}
    if measured.moments is not None and "information.signed" in measured.flows:
        found = run.states.take(matrices(measured.moments))
    return reading.model_copy(
        update={
            "comparisons": {**reading.comparisons, **found},
            "flows": measured.flows,
            "dead_units": measured.dead_units,
            "probe_examples": measured.examples,
            "source": measured.source,
            "standard_errors": measured.standard_errors,
            "cost": reading.cost + cost,
        }
    )
