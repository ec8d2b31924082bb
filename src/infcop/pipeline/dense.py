"""Level 0: the dense network, the places that levels rewind to, and the reference.

Methods that prune before training leave it as it is given.
"""

from __future__ import annotations

from itertools import combinations

from infcop.core.records import Reading, StopDecision, StopReason
from infcop.pipeline.context import Run, add_reading, reached
from infcop.pipeline.events import step_events
from infcop.pipeline.marks import dense_marks, dense_reads, reference_place
from infcop.pipeline.pruning import trial_masks
from infcop.pipeline.reading import train_and_read, with_halves, with_metrics
from infcop.pipeline.wanted import wants_halves
from infcop.rewinding.policy import snapshot_place
from infcop.rewinding.snapshot import Snapshot
from infcop.training.phase import Phase
from infcop.training.recipe import learning_rate

__all__ = ["go_back", "train_dense"]


def train_dense(run: Run) -> None:
    """Train the dense network, keep what levels rewind to, take the reference."""
    config = run.config
    if reached(run.record.dense, config.dense.passes) or run.record.dense.stopped_by is not None:
        return
    if config.method.start.kind == "initialisation":
        _leave_untrained(run)
        return
    phase = run.resume_phase(_dense_phase(run))
    stops = dense_marks(run, phase.clock)
    run.progress.begin("dense network", stops[-1], phase.step)
    place = snapshot_place(config.method.rewind, config.dense.warmup)
    if phase.step == 0 and place == 0:
        _keep_rewind_values(run)
    for stop in stops:
        if stop > phase.step:
            _train_and_read(run, phase, stop)
            if stop == stops[-1]:
                run.history = []
            elif stop % phase.clock.steps_per_pass == 0 and _mask_has_settled(run):
                # The first level draws this one.
                run.history = run.history[-1:]
                break
            else:
                run.save_if_due(phase)
    run.store.write_tensors(run.store.dense, Snapshot.take(run.model, copy=False))
    run.save()
    run.store.append_log("dense", passes=phase.passes)
    run.progress.say(_sentence(run))


def _leave_untrained(run: Run) -> None:
    """Take the network as it is given for the dense one: there is nothing to train."""
    if snapshot_place(run.config.method.rewind, run.config.dense.warmup) is not None:
        _keep_rewind_values(run)
    run.store.write_tensors(run.store.dense, Snapshot.take(run.model, copy=False))
    stopped = StopDecision(stop=True, reason=StopReason.UNTRAINED)
    reading = Reading(phase="dense", level=0, passes=0.0)
    dense = add_reading(run.record.dense, reading, run.lap())
    run.update(dense=dense.model_copy(update={"stopped_by": stopped}))
    run.save()
    run.store.append_log("dense", passes=0.0)
    run.progress.say("dense network: left untrained, since pruning begins at the initialisation")


def _mask_has_settled(run: Run) -> bool:
    """Whether the masks of the last passes hardly differ, for a method that waits for that."""
    start, dense = run.config.method.start, run.record.dense
    if start.kind != "early-bird":
        return False
    masks, cost = trial_masks(run, run.next_stop_kept)
    run.history = [] if masks is None else [*run.history[1 - start.window :], masks]
    pairs = combinations(run.history, 2)
    distance = max((one.differing(other) / one.total for one, other in pairs), default=0.0)
    settled = len(run.history) == start.window and distance <= start.distance
    last = dense.readings[-1]
    last = last.model_copy(update={"cost": last.cost + cost})
    if settled and last.main is None:
        last = with_metrics(run, last)
    evidence = {"distance": distance, "threshold": start.distance}
    stopped = StopDecision(stop=True, reason=StopReason.MASK, evidence=evidence)
    run.update(
        dense=dense.model_copy(
            update={
                "readings": (*dense.readings[:-1], last),
                "cost": dense.cost + cost,
                "stopped_by": stopped if settled else None,
            }
        )
    )
    return settled


def go_back(run: Run) -> None:
    """Put what the method restores back to its earlier values, pruned entries to zero."""
    values, _ = run.store.read_tensors(run.store.rewind)
    partly = run.config.method.rewind.restores == "prunable-weights"
    Snapshot(values).restore(run.model, run.masks, only=run.prunable.names if partly else None)


def _train_and_read(run: Run, phase: Phase, stop: int) -> None:
    clock = phase.clock
    is_reference = stop == clock.steps_at(reference_place(run))
    last = stop == clock.steps_at(run.config.dense.passes)
    flow = stop in dense_reads(run, clock)
    reading = train_and_read(run, "dense", phase, stop, flow=flow, last=last)
    if stop == clock.steps_at(run.config.dense.warmup):
        run.states.keep("warm-up")
    if last:
        run.states.keep("dense")
        run.states.keep("trained")
        if wants_halves(run):
            reading = with_halves(run, reading)
    run.update(dense=add_reading(run.record.dense, reading, run.lap()))
    if is_reference:
        run.update(reference=reading)
    place = snapshot_place(run.config.method.rewind, run.config.dense.warmup)
    if place is not None and stop == phase.clock.steps_at(place):
        _keep_rewind_values(run)


def _dense_phase(run: Run) -> Phase:
    recipe, horizon = run.config.training, run.config.dense.passes
    return Phase(
        run.engine,
        run.wrapped,
        run.task,
        recipe,
        rate=lambda passes: learning_rate(recipe, passes, horizon),
        seed=run.config.seed,
        label=("dense",),
        events=None if run.movement is None else step_events(run),
        on_step=run.progress.step,
    )


def _keep_rewind_values(run: Run) -> None:
    run.store.write_tensors(run.store.rewind, Snapshot.take(run.model, copy=False))


def _sentence(run: Run) -> str:
    last: Reading = run.record.dense.readings[-1]
    return f"dense network trained for {last.passes:g} passes: held-out {_main(run, last)}"


def _main(run: Run, reading: Reading) -> str:
    name = run.record.data.main_metric
    value = reading.main if reading.main is not None else float("nan")
    return f"{name} {value:.1%}" if name == "accuracy" else f"{name} {value:.4g}"
