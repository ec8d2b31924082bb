"""One pruning level: score, allocate, select, mask, rewind; then train, read and decide."""

from __future__ import annotations

from collections.abc import Iterable

from infcop.core.mask import Masks
from infcop.core.records import Cost, LevelRecord, Reading, StopDecision
from infcop.errors import NoEffectWarning
from infcop.masking.prune import emptied, pruned_norm
from infcop.pipeline.collapsing import collapsed
from infcop.pipeline.context import Run
from infcop.pipeline.dense import go_back
from infcop.pipeline.events import step_events
from infcop.pipeline.marks import level_marks
from infcop.pipeline.masks_for_size import masks_for_size
from infcop.pipeline.pruning import next_masks, trial_masks
from infcop.pipeline.rates import level_rates
from infcop.pipeline.reading import (
    read_after_pruning,
    reads_flow,
    train_and_read,
    with_flow,
    with_metrics,
)
from infcop.pipeline.stop_context import asks_at_once, level_rule, stop_context
from infcop.report.summary import decision_line
from infcop.report.words import percent
from infcop.rewinding.policy import rewinds_levels
from infcop.rewinding.snapshot import Snapshot
from infcop.stopping.build import needs_mask
from infcop.training.phase import Phase

__all__ = ["is_open", "run_level"]


def run_level(run: Run) -> bool:
    """Bring the network one level down, or go on with a level that was interrupted.

    Returns:
        Whether there was a level: an adaptive schedule may find nothing to remove.
    """
    decision = None
    if not is_open(run.record.levels):
        if not _prune(run):
            return False
        decision = _decide_at_once(run)
        _keep_ticket(run, rewound=decision is None)
    if decision is None:
        with collapsed(run):
            decision = _train_read_decide(run, run.resume_phase(_level_phase(run)))
        run.states.keep("trained")
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
    if run.history:
        # The dense training stopped because these had settled.
        masks, scoring = run.history.pop(), Cost()
    else:
        masks, scoring = next_masks(run, run.next_stop_kept)
    size = None
    if run.config.density_in != "parameters":
        found = masks_for_size(run, masks)
        if found is not None:
            masks, size, spent = found
            scoring += spent
    if masks.kept == before.kept:
        run.warn(
            f"the schedule '{method.schedule.kind}' finds nothing to remove at density "
            f"{before.density:.4f}, above the {run.config.density:g} that was asked for: the "
            "search ends here. Use the schedule 'fraction', or another p and q, to go further",
            NoEffectWarning,
        )
        return False
    level = _new_level(run, before, masks).model_copy(update={"size": size})
    if lost := emptied(before, masks):
        run.warn(
            f"level {level.level}, density {level.density:.4f}: {', '.join(lost)} lost all "
            "weights; what comes through is the bias alone"
        )
    run.mask_with(masks)
    run.states.begin_level()
    run.update(levels=(*run.record.levels, level))
    reading = read_after_pruning(run)
    _add(run, reading.model_copy(update={"cost": reading.cost + scoring}))
    # Flow from training has nothing to tell here: what was taken last is the trained network.
    if reading.flows:
        run.states.keep("pruned")
    return True


def _new_level(run: Run, before: Masks, masks: Masks) -> LevelRecord:
    rewind = run.config.method.rewind
    return LevelRecord(
        level=len(run.record.levels) + 1,
        kept=masks.kept,
        density=masks.density,
        kept_per_layer=masks.kept_per_layer,
        removed=before.kept - masks.kept,
        pruned_norm=pruned_norm(run.parameters, before, masks),
        rewound_to="none" if rewind.when == "end" else rewind.to,
    )


def _decide_at_once(run: Run) -> StopDecision | None:
    """Ask the rule about the reading right after pruning; None where the level has to train.

    A level that need not train is not rewound either: the trained weights are what was read, and
    what the next level is pruned by.
    """
    rule = level_rule(run.config)
    run.rule_state = rule.init(stop_context(run.record, run.config, len(run.record.levels)))
    pruned = run.record.levels[-1].readings[-1]
    run.states.forget_last()
    if not asks_at_once(run.config):
        return None
    run.rule_state, decision = rule.update(run.rule_state, pruned)
    # The same moment as a reading of the level, at no further cost.
    reading = pruned.model_copy(update={"phase": "level", "cost": Cost(), "decision": decision})
    if decision.stop and reading.main is None:
        reading = with_metrics(run, reading)
    _add(run, reading)
    return decision if decision.stop else None


def _keep_ticket(run: Run, *, rewound: bool) -> None:
    """Put earlier values back if asked for, and keep the ticket."""
    if not rewound:
        run.update_level(rewound_to="none")
    elif rewinds_levels(run.config.method.rewind):
        go_back(run)
    run.enforcer.check()
    run.store.write_tensors(run.store.masks, run.masks)
    run.store.write_tensors(run.store.values, Snapshot.take(run.model, copy=False))


def _level_phase(run: Run) -> Phase:
    config = run.config
    return Phase(
        run.engine,
        run.trained,
        run.task,
        config.training,
        rate=level_rates(run),
        seed=config.seed,
        label=("level", len(run.record.levels)),
        events=step_events(run),
        on_step=run.progress.step,
    )


def _train_read_decide(run: Run, phase: Phase) -> StopDecision:
    """Train a little, read, decide, until the stop rule says why to stop."""
    stops = level_marks(run, phase.clock, also=_asked_for(run))
    level = run.record.levels[-1]
    title = f"level {level.level}, density {percent(level.density)}"
    run.progress.begin(title, stops[-1], phase.step)
    rule = level_rule(run.config)
    for stop in stops:
        if stop <= phase.step:
            continue
        reading = train_and_read(
            run, "level", phase, stop, flow=reads_flow(run), last=stop == stops[-1]
        )
        reading = _with_mask_change(run, reading)
        run.rule_state, decision = rule.update(run.rule_state, reading)
        if decision.stop and not reading.flows:
            reading = with_flow(run, reading)
        if decision.stop and reading.main is None:
            reading = with_metrics(run, reading)
        _add(run, reading.model_copy(update={"decision": decision}))
        if decision.stop:
            return decision
        run.save_if_due(phase)
    raise AssertionError("the budget stops a level at its last mark")


def _asked_for(run: Run) -> list[float]:
    """Return the passes at which the rule wants to be asked again."""
    decisions = [reading.decision for reading in run.record.levels[-1].readings]
    return [decision.until for decision in decisions if decision and decision.until is not None]


def _with_mask_change(run: Run, reading: Reading) -> Reading:
    """Add how much the mask that would be drawn next has changed since the reading before."""
    method = run.config.method
    if not (needs_mask(method.stop) or method.flow.every_reading):
        return reading
    masks, cost = trial_masks(run, stop_kept=1)
    change = run.states.mask_change(masks)
    return reading.model_copy(update={"mask_change": change, "cost": reading.cost + cost})


def _add(run: Run, reading: Reading) -> None:
    level = run.record.levels[-1]
    run.update_level(
        trained_parameters=run.trained_parameters,
        readings=(*level.readings, reading),
        cost=level.cost + reading.cost,
        seconds=level.seconds + run.lap(),
    )
