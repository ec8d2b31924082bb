"""One pruning level: score, allocate, select, mask, rewind; then train, read and decide."""

from __future__ import annotations

from collections.abc import Iterable

from infcop.core.mask import Masks
from infcop.core.method import AtLeast
from infcop.core.records import Cost, LevelRecord, Reading, StopDecision
from infcop.errors import NoEffectWarning
from infcop.masking.prune import prune_level
from infcop.pipeline.context import Run
from infcop.pipeline.dense import rewind_values
from infcop.pipeline.marks import level_marks
from infcop.pipeline.reading import read_after_pruning, train_and_read, with_flow
from infcop.report.summary import decision_line
from infcop.report.words import percent
from infcop.rewinding.policy import keeps_weights, schedule_start
from infcop.rewinding.snapshot import Snapshot
from infcop.scoring import SCORES
from infcop.stopping.build import build_rule, needed_flows
from infcop.stopping.rule import StopContext
from infcop.training.phase import Phase
from infcop.training.recipe import learning_rate

__all__ = ["is_open", "run_level"]


def run_level(run: Run) -> bool:
    """Bring the network one level down, or go on with a level that was interrupted.

    Returns:
        Whether there was a level: an adaptive schedule may find nothing to remove.
    """
    if not is_open(run.record.levels):
        if not _prune(run):
            return False
        _rewind(run)
    phase = run.resume_phase(_level_phase(run))
    decision = _train_read_decide(run, phase)
    run.enforcer.check()
    level = run.update_level(stopped_by=decision)
    run.save()
    run.store.append_log("level", level=level.level, density=level.density, passes=level.passes)
    run.progress.say(decision_line(level))
    return True


def is_open(levels: Iterable[LevelRecord]) -> bool:
    """Whether the last level was begun and has not stopped."""
    last = list(levels)[-1:]
    return bool(last) and last[0].stopped_by is None


def _prune(run: Run) -> bool:
    """Score, allocate, select, mask; read what pruning did to the trained network.

    Returns:
        Whether anything was pruned.
    """
    before = run.masks
    method = run.config.method
    weights = {name: parameter.detach() for name, parameter in run.parameters.items()}
    scores = {
        name: SCORES[method.score](weight, None, before[name].to(weight.device))
        for name, weight in weights.items()
    }
    masks = prune_level(weights, scores, before, method, run.target_kept)
    if masks.kept == before.kept:
        run.warn(
            f"the schedule '{method.schedule.kind}' finds nothing to remove at density "
            f"{before.density:.4f}, above the {run.config.density:g} that was asked for: the "
            "search ends here. Use the schedule 'fraction', or another p and q, to go further",
            NoEffectWarning,
        )
        return False
    run.mask_with(masks)
    run.update(levels=(*run.record.levels, _new_level(run, before, masks)))
    _add(run, read_after_pruning(run))
    return True


def _new_level(run: Run, before: Masks, masks: Masks) -> LevelRecord:
    return LevelRecord(
        level=len(run.record.levels) + 1,
        kept=masks.kept,
        density=masks.density,
        kept_per_layer=masks.kept_per_layer,
        removed=before.kept - masks.kept,
        rewound_to=run.config.method.rewind.to,
    )


def _rewind(run: Run) -> None:
    """Put the surviving weights and all buffers back, and keep the ticket."""
    if not keeps_weights(run.config.method.rewind):
        Snapshot(rewind_values(run)).restore(run.model, run.masks)
    run.enforcer.check()
    run.store.write_tensors(run.store.masks, run.masks)
    run.store.write_tensors(run.store.values, Snapshot.take(run.model, copy=False))


def _level_phase(run: Run) -> Phase:
    config = run.config
    start = schedule_start(config.method.rewind, config.dense.passes, config.dense.warmup)
    return Phase(
        run.engine,
        run.wrapped,
        run.task,
        config.training,
        rate=lambda passes: learning_rate(config.training, start + passes, config.dense.passes),
        seed=config.seed,
        label=("level", len(run.record.levels)),
        events=run.step_events,
        on_step=run.progress.step,
    )


def _train_read_decide(run: Run, phase: Phase) -> StopDecision:
    """Train a little, read, decide, until the stop rule says why to stop."""
    levels = run.config.levels
    stop_config = run.config.method.stop
    stops = level_marks(run, phase.clock)
    level = run.record.levels[-1]
    title = f"level {level.level}, density {percent(level.density)}"
    run.progress.begin(title, stops[-1], phase.step)
    rule = build_rule(AtLeast(passes=levels.min_passes, of=stop_config), levels.max_passes)
    if all(reading.phase == "pruned" for reading in level.readings):
        run.rule_state = rule.init(_stop_context(run))
        if levels.min_passes == 0 and run.config.method.flow.source == "probe":
            stops.insert(0, 0)
    else:
        stops = [stop for stop in stops if stop > phase.step]
    for stop in stops:
        reading = _read_at(run, phase, stop)
        run.rule_state, decision = rule.update(run.rule_state, reading)
        if decision.stop and not reading.flows:
            reading = with_flow(run, reading)
        _add(run, reading.model_copy(update={"decision": decision}))
        if decision.stop:
            return decision
        run.save_if_due(phase)
    raise AssertionError("the budget stops a level at its last mark")


def _read_at(run: Run, phase: Phase, stop: int) -> Reading:
    if stop == 0 and keeps_weights(run.config.method.rewind):
        # Nothing has changed since the mask was applied: the same reading, at no further cost.
        pruned = run.record.levels[-1].readings[-1]
        return pruned.model_copy(update={"phase": "level", "cost": Cost()})
    return train_and_read(
        run, "level", phase, stop, flow=bool(needed_flows(run.config.method.stop))
    )


def _stop_context(run: Run) -> StopContext:
    dense = run.config.dense
    sign = 1 if run.record.data.higher_is_better else -1
    warmup = [
        reading.main
        for reading in run.record.dense.readings
        if reading.main is not None and reading.passes <= dense.warmup + 1e-9
    ]
    return StopContext(
        reference=run.record.reference,
        warmup_best=max(warmup, key=lambda value: sign * value, default=None),
        higher_is_better=run.record.data.higher_is_better,
        max_passes=run.config.levels.max_passes,
    )


def _add(run: Run, reading: Reading) -> None:
    level = run.record.levels[-1]
    run.update_level(
        readings=(*level.readings, reading),
        cost=level.cost + reading.cost,
        seconds=level.seconds + run.lap(),
    )
