"""One run, from the dense network to the sparse one."""

from __future__ import annotations

from collections.abc import Callable

from infcop.core.records import Cost, LevelRecord, Milestone, Outcome, PhaseRecord, Reading
from infcop.pipeline.collapsing import collapsed
from infcop.pipeline.context import Run, add_reading, reached
from infcop.pipeline.dense import go_back, train_dense
from infcop.pipeline.events import final_step_events
from infcop.pipeline.level import is_open, run_level
from infcop.pipeline.marks import final_marks
from infcop.pipeline.pages import write_page
from infcop.pipeline.rates import final_rates, recovery_passes
from infcop.pipeline.reading import evaluate, train_and_read, with_flow, with_metrics
from infcop.pipeline.stop_context import asks_at_once, level_rule, stop_context
from infcop.report.summary import milestone_line
from infcop.rewinding.snapshot import Snapshot
from infcop.stopping.build import needs_metric
from infcop.tasks.base import Loader
from infcop.training.phase import Phase

__all__ = ["execute"]


def execute(run: Run) -> None:
    """Carry a run to its end, from wherever it stands."""
    if run.record.outcome is None:
        train_dense(run)
        while _milestone_is_due(run) or (_levels_remain(run) and run_level(run)):
            if _milestone_is_due(run):
                train_milestone(run)
        train_final(run)
        conclude(run)
    write_page(run.store, run.record)


def _milestone_is_due(run: Run) -> bool:
    """Whether the last level ended at a milestone that has no finished network yet."""
    levels, milestones = run.record.levels, run.record.milestones
    if is_open(levels) or not levels or run.at_target:
        return False
    # Whole groups may end somewhat below the count of a milestone.
    before, kept = levels[-1].kept + levels[-1].removed, levels[-1].kept
    if not any(kept <= milestone < before for milestone in run.milestones_kept):
        return False
    return not (milestones and milestones[-1].level == levels[-1].level and milestones[-1].metrics)


def _levels_remain(run: Run) -> bool:
    if is_open(run.record.levels):
        return True
    if run.record.final is not None or run.at_target:
        return False
    limit = run.config.levels.max_levels
    if len(run.record.levels) < limit:
        return True
    run.warn(
        f"the search ends at density {run.masks.density:.4f} instead of {run.config.density:g}, "
        f"because levels.max_levels is {limit}; raise it, or remove more per level"
    )
    return False


def train_final(run: Run) -> None:
    """Train the sparse network to the end."""
    if run.config.final_passes == 0:
        return

    def done() -> PhaseRecord:
        return run.record.final or PhaseRecord()

    def add(reading: Reading) -> None:
        run.update(final=add_reading(done(), reading, run.lap(), run.trained_parameters))

    if _train_to_the_end(run, ("final",), done, add):
        if run.config.method.regrow is not None:
            run.store.write_tensors(run.store.masks, run.masks)
        run.save()


def train_milestone(run: Run) -> None:
    """Train the network of a milestone to the end, evaluate it, and go back to the search."""
    level = run.record.levels[-1]
    if not run.record.milestones or run.record.milestones[-1].level != level.level:
        run.store.write_tensors(run.store.trunk, Snapshot.take(run.model, copy=False))
        opened = Milestone(level=level.level, kept=level.kept, density=level.density)
        run.update(milestones=(*run.record.milestones, opened))
        run.save()

    def done() -> PhaseRecord:
        return run.record.milestones[-1].final

    def add(reading: Reading) -> None:
        final = add_reading(done(), reading, run.lap(), run.trained_parameters)
        run.update_milestone(final=final)

    if run.config.final_passes > 0:
        _train_to_the_end(run, ("final", level.level), done, add)
    metrics = evaluate(run, _judging_loader(run))
    final = run.record.milestones[-1].final
    phases: list[PhaseRecord | LevelRecord] = [run.record.dense, *run.record.levels, final]
    found = run.update_milestone(
        metrics=dict(metrics.values),
        cost=sum((phase.cost for phase in phases), Cost()),
        seconds=sum(phase.seconds for phase in phases),
    )
    Snapshot(run.store.read_tensors(run.store.trunk)[0]).restore(run.model)
    run.enforcer.check()
    run.lap()
    run.save()
    run.store.append_log("milestone", density=found.density, level=found.level)
    run.progress.say(milestone_line(run.record, found))


def _train_to_the_end(
    run: Run,
    label: tuple[str | int, ...],
    done: Callable[[], PhaseRecord],
    add: Callable[[Reading], object],
) -> bool:
    """Go back if that was put off to the end, recover from it, and make the final training.

    Returns:
        Whether there was anything left to do.
    """
    if run.config.method.rewind.when == "end" and not done().readings:
        go_back(run)
        run.store.write_tensors(run.store.values, Snapshot.take(run.model, copy=False))
        if asks_at_once(run.config) and run.record.levels:
            add(_read_after_going_back(run))
    recovery = recovery_passes(run, done())
    if reached(done(), recovery + run.config.final_passes):
        return False
    with collapsed(run):
        phase = run.resume_phase(_final_phase(run, label, recovery))
        stops = final_marks(run, phase.clock, recovery)
        run.progress.begin("final training", stops[-1], phase.step)
        for stop in stops:
            if stop <= phase.step:
                continue
            last = stop == stops[-1]
            add(train_and_read(run, "final", phase, stop, flow=last, last=last))
            if not last:
                run.save_if_due(phase)
    run.enforcer.check()
    return True


def _read_after_going_back(run: Run) -> Reading:
    """Read what going back did, and ask the rule: to the flow it is one more disturbance."""
    levels = len(run.record.levels)
    reading = with_flow(run, Reading(phase="final", level=levels, passes=0.0))
    if needs_metric(run.config.method.stop):
        reading = with_metrics(run, reading)
    rule = level_rule(run.config)
    state = rule.init(stop_context(run.record, run.config, levels))
    return reading.model_copy(update={"decision": rule.update(state, reading)[1]})


def _judging_loader(run: Run) -> Loader:
    test = run.task.test_loader
    return run.task.held_out_loader if test is None else test


def _final_phase(run: Run, label: tuple[str | int, ...], recovery: float) -> Phase:
    config = run.config
    return Phase(
        run.engine,
        run.trained,
        run.task,
        config.training,
        rate=final_rates(run, recovery),
        seed=config.seed,
        label=label,
        events=final_step_events(run, recovery),
        on_step=run.progress.step,
    )


def conclude(run: Run) -> None:
    """Evaluate the sparse and the dense network once on the test data, and write the answer."""
    loader = _judging_loader(run)
    sparse = evaluate(run, loader)
    run.store.write_tensors(run.store.sparse, Snapshot.take(run.model, copy=False))
    dense = _dense_metrics(run, loader)
    record = run.record
    phases: list[PhaseRecord | LevelRecord] = [record.dense, *record.levels]
    if record.final is not None:
        phases.append(record.final)
    outcome = Outcome(
        density=run.masks.density,
        kept=run.masks.kept,
        prunable=run.masks.total,
        dense=dense,
        sparse=dict(sparse.values),
        measured_on="held-out" if run.task.test_loader is None else "test",
        cost=sum((phase.cost for phase in phases), Cost()),
        full_budget_training=_full_budget(run),
        seconds=sum(phase.seconds for phase in phases),
    )
    run.update(outcome=outcome)
    run.save()
    run.store.append_log("done", density=outcome.density)


def _dense_metrics(run: Run, loader: Loader) -> dict[str, float]:
    """Evaluate the dense network; one that was not trained to the end says nothing."""
    if run.record.dense.stopped_by is not None:
        return {}
    Snapshot(run.store.read_tensors(run.store.dense)[0]).restore(run.model)
    metrics = evaluate(run, loader)
    Snapshot(run.store.read_tensors(run.store.sparse)[0]).restore(run.model)
    return dict(metrics.values)


def _full_budget(run: Run) -> int:
    """Return the training examples that as many levels cost with the full budget each.

    0 for a method whose levels never train: it has no budget to save from.
    """
    if run.config.level_passes == 0:
        return 0
    per_level = round(run.config.levels.max_passes * run.record.data.train)
    return per_level * len(run.record.levels)
