"""One run, from the dense network to the sparse one."""

from __future__ import annotations

from infcop.core.records import Cost, LevelRecord, Outcome, PhaseRecord
from infcop.pipeline.context import Run, add_reading, reached
from infcop.pipeline.dense import train_dense
from infcop.pipeline.level import is_open, run_level
from infcop.pipeline.marks import final_marks
from infcop.pipeline.reading import evaluate, train_and_read
from infcop.report.page import write_report
from infcop.rewinding.snapshot import Snapshot
from infcop.training.phase import Phase
from infcop.training.recipe import learning_rate

__all__ = ["execute"]


def execute(run: Run) -> None:
    """Carry a run to its end, from wherever it stands."""
    if run.record.outcome is None:
        train_dense(run)
        while _levels_remain(run) and run_level(run):
            pass
        train_final(run)
        conclude(run)
    write_report(run.record, run.store.report)


def _levels_remain(run: Run) -> bool:
    if is_open(run.record.levels):
        return True
    if run.record.final is not None or run.masks.kept <= run.target_kept:
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
    passes = run.config.final_passes
    if passes == 0 or reached(run.record.final, passes):
        return
    phase = run.resume_phase(_final_phase(run))
    stops = final_marks(run, phase.clock)
    run.progress.begin("final training", stops[-1], phase.step)
    for stop in stops:
        if stop <= phase.step:
            continue
        reading = train_and_read(run, "final", phase, stop, flow=stop == stops[-1])
        run.update(final=add_reading(run.record.final or PhaseRecord(), reading, run.lap()))
        if stop != stops[-1]:
            run.save_if_due(phase)
    run.enforcer.check()
    run.save()


def _final_phase(run: Run) -> Phase:
    config = run.config
    return Phase(
        run.engine,
        run.wrapped,
        run.task,
        config.training,
        rate=lambda passes: learning_rate(
            config.training,
            passes,
            config.final_passes,
            schedule=config.final.schedule,
            peak=config.final.lr,
        ),
        seed=config.seed,
        label=("final",),
        events=run.step_events,
        on_step=run.progress.step,
    )


def conclude(run: Run) -> None:
    """Evaluate the sparse and the dense network once on the test data, and write the answer."""
    test = run.task.test_loader
    loader = run.task.held_out_loader if test is None else test
    sparse = evaluate(run, loader)
    run.store.write_tensors(run.store.sparse, Snapshot.take(run.model, copy=False))
    Snapshot(run.store.read_tensors(run.store.dense)[0]).restore(run.model)
    dense = evaluate(run, loader)
    Snapshot(run.store.read_tensors(run.store.sparse)[0]).restore(run.model)
    record = run.record
    phases: list[PhaseRecord | LevelRecord] = [record.dense, *record.levels]
    if record.final is not None:
        phases.append(record.final)
    outcome = Outcome(
        density=run.masks.density,
        kept=run.masks.kept,
        prunable=run.masks.total,
        dense=dict(dense.values),
        sparse=dict(sparse.values),
        measured_on="held-out" if test is None else "test",
        cost=sum((phase.cost for phase in phases), Cost()),
        full_budget_training=_full_budget(run),
        seconds=sum(phase.seconds for phase in phases),
    )
    run.update(outcome=outcome)
    run.save()
    run.store.append_log("done", density=outcome.density)


def _full_budget(run: Run) -> int:
    """Return the training examples that as many levels cost with the full budget each."""
    per_level = round(run.config.levels.max_passes * run.record.data.train)
    return per_level * len(run.record.levels)
