"""Everything that is checked and looked up before any training starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from infcop.core.config import SearchConfig
from infcop.core.edges import Edges
from infcop.core.records import DataFacts, ModelFacts, RunRecord
from infcop.errors import ConfigError, FlowError
from infcop.models.graph import LayerGraph, select_edges, trace_graph
from infcop.models.leave_out import leave_out
from infcop.models.prunable import Prunable, find_prunable, get_parameters
from infcop.pipeline.context import Run
from infcop.pipeline.marks import dense_marks
from infcop.pipeline.probe import batch_to_trace, take_probe
from infcop.pipeline.progress import Progress
from infcop.pipeline.pruning import check_pruning
from infcop.pipeline.settings import written
from infcop.pipeline.shared_dense import SharedDense
from infcop.pipeline.sizing import groups_for
from infcop.pipeline.states import States
from infcop.pipeline.store import RunStore
from infcop.pipeline.surroundings import hardware, versions
from infcop.pipeline.trial import check_task, try_out
from infcop.pipeline.wanted import check_wanted, needs_information, wanted_comparisons
from infcop.pipeline.window import training_window
from infcop.rewinding.policy import schedule_start
from infcop.scoring.movement import MovementSum
from infcop.stopping.build import needed_flows
from infcop.tasks.base import Loader, Task
from infcop.training.clock import Clock
from infcop.training.engine import Engine
from infcop.training.rates import LevelFacts, level_rate

__all__ = ["count_examples", "prepare"]

_SMALL = 0.05
"""A fraction of the peak learning rate at which hardly anything is learnt."""


def prepare(
    model: nn.Module,
    task: Task,
    config: SearchConfig,
    *,
    store: RunStore,
    progress: Progress,
    model_name: str,
    data_name: str,
    split: Mapping[str, Any],
) -> Run:
    """Return a run that is ready to start, or say what is wrong with model, data or settings."""
    check_task(task)
    # Flow is read at all layers that could be pruned, also at those that stay dense.
    whole = find_prunable(model)
    prunable = leave_out(model, whole, config.method.exclude)
    double = all(p.dtype == torch.float64 for p in model.parameters() if p.is_floating_point())
    engine = Engine(config.execution, double=double)
    model.to(engine.device)
    probe = take_probe(task, config.probe_examples, config.seed)
    metrics = try_out(model, task, engine, probe[0])
    _check_precision(config)
    batch = engine.move(batch_to_trace(probe, task))
    graph = trace_graph(model, task.inputs(batch), whole, examples=task.batch_size(batch))
    edges = _edges(graph, config)
    record = RunRecord(
        config=written(config, model_name),
        versions=versions(),
        hardware=hardware(engine.device),
        model=_model_facts(model, model_name, prunable, edges),
        data=DataFacts(
            name=data_name,
            train=count_examples(task.train_loader, task),
            probe=sum(task.batch_size(batch) for batch in probe),
            held_out=count_examples(task.held_out_loader, task),
            test=0 if task.test_loader is None else count_examples(task.test_loader, task),
            main_metric=metrics.main,
            higher_is_better=metrics.higher_is_better,
            split=dict(split),
        ),
    )
    run = Run(
        config=config,
        engine=engine,
        model=model,
        task=task,
        probe=probe,
        prunable=prunable,
        edges=edges,
        groups=groups_for(model, prunable, config, task.inputs(batch), task.batch_size(batch)),
        movement=_movement(model, prunable, config),
        record=record,
        store=store,
        progress=progress,
    )
    run.states = States(wanted_comparisons(config) if edges.edges else (), edges.edges)
    check_wanted(run)
    check_pruning(run)
    _warn_of_small_rate(run)
    if config.method.flow.source == "training":
        run.window = training_window(run)
    return run


def shared_dense(run: Run, folder: str | os.PathLike[str]) -> SharedDense | None:
    """Return the place where runs that start like this one keep their dense training.

    None where the training itself is watched, step by step.
    """
    if run.movement is not None:
        return None
    marks = dense_marks(run, Clock(len(run.task.train_loader)))
    execution = run.config.execution
    # Another device, or another number of threads, rounds differently.
    where = [run.engine.device.type, execution.precision, execution.threads]
    facts = [run.record.data.model_dump(mode="json"), *where]
    return SharedDense(folder, run.config, run.model, marks, facts)


def _warn_of_small_rate(run: Run) -> None:
    """Warn where levels would train at the end of a schedule that has come down.

    Every kind of rate but ``schedule`` says itself how large it is.
    """
    config = run.config
    rewind, dense = config.method.rewind, config.dense
    start = schedule_start(rewind, dense.passes, dense.warmup)
    to_the_end = config.method.start.kind == "trained"
    if config.method.rate.kind != "schedule" or start < dense.passes or not to_the_end:
        return
    rate = level_rate(config, LevelFacts(start=start), passes=0)
    if rate < _SMALL * config.training.lr:
        run.warn(
            f"levels train at learning rate {rate:.2g}, {rate / config.training.lr:.2g} of "
            f"training.lr: method.rewind.to is '{rewind.to}', so they go on from the end of the "
            f"schedule '{config.training.schedule}'. Rewind to an epoch, choose a constant "
            "schedule, set method.rate.kind to 'restart', 'linear' or 'constant', or raise "
            "training.lr_end_fraction if that is not meant"
        )


def _movement(model: nn.Module, prunable: Prunable, config: SearchConfig) -> MovementSum | None:
    if config.method.score.kind != "movement":
        return None
    return MovementSum(get_parameters(model, prunable.names))


def _model_facts(model: nn.Module, name: str, prunable: Prunable, edges: Edges) -> ModelFacts:
    return ModelFacts(
        name=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        prunable={key: tuple(prunable.shapes[key]) for key in prunable.names},
        excluded=prunable.excluded,
        edges=edges.edges,
    )


def _edges(graph: LayerGraph, config: SearchConfig) -> Edges:
    """Return the edges; without any, only a rule that compares information flow is at a loss."""
    try:
        return select_edges(graph, config.method.flow.edges)
    except FlowError:
        named = not isinstance(config.method.flow.edges, str)
        if named or needs_information(config):
            raise
        return Edges(())


def _check_precision(config: SearchConfig) -> None:
    """An adaptive probe needs one distance whose precision it can ask for."""
    compared = sorted(needed_flows(config.method.stop))
    information = [name for name in compared if name.startswith("information")]
    if config.method.flow.precision is not None and (len(compared) != 1 or not information):
        raise ConfigError(
            "method.flow.precision: expected a stop rule that compares one kind of information "
            f"flow, got one that compares {', '.join(compared) or 'none'}; leave precision out to "
            "read the whole probe"
        )


def count_examples(loader: Loader, task: Task) -> int:
    """Return the examples of one pass, without reading them where the loader knows."""
    sampler, batch_size = getattr(loader, "sampler", None), getattr(loader, "batch_size", None)
    if hasattr(loader, "examples"):
        return int(loader.examples)
    if sampler is not None and batch_size is not None and hasattr(sampler, "__len__"):
        count = len(sampler)
        return count - count % batch_size if getattr(loader, "drop_last", False) else count
    return sum(task.batch_size(batch) for batch in loader)
