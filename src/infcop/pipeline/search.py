"""The short way in: search for a sparse network from a user's own model and data."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from infcop.core.config import (
    DenseConfig,
    ExecutionConfig,
    FinalConfig,
    LevelsConfig,
    SearchConfig,
    TrainingConfig,
)
from infcop.core.method import MethodConfig
from infcop.core.rng import preserved_rng
from infcop.core.validation import validated
from infcop.errors import InfcopError, ModelError, NoEffectWarning, TrainingError
from infcop.methods import resolve_method
from infcop.models.unwrap import unwrapped
from infcop.pipeline.probe_inputs import probe_inputs
from infcop.pipeline.progress import LoggedProgress, Progress
from infcop.pipeline.result import Result
from infcop.pipeline.run import execute
from infcop.pipeline.setup import prepare, shared_dense
from infcop.pipeline.store import RunStore
from infcop.tasks.base import Task

__all__ = ["run_search", "search"]

Settings = Mapping[str, object]


def search(
    model: nn.Module,
    task: Task,
    *,
    run_dir: str | os.PathLike[str],
    density: float = 0.05,
    density_in: str = "parameters",
    milestones: Sequence[float] = (),
    method: str | Settings | MethodConfig = "infcop",
    seed: int = 0,
    training: Settings | TrainingConfig | None = None,
    dense: Settings | DenseConfig | None = None,
    levels: Settings | LevelsConfig | None = None,
    final: Settings | FinalConfig | None = None,
    probe_examples: int | None = 2048,
    execution: Settings | ExecutionConfig | None = None,
    progress: Progress | None = None,
) -> Result:
    """Search for a sparse network with the same function as a dense one.

    The model itself stays as it is: the search trains a copy. If ``run_dir`` holds an interrupted
    search with the same settings, it goes on from there; if it holds a finished one, its result
    is returned at once.

    Args:
        model: Any ``nn.Module`` in float32 or float64; its values are the initialisation.
        task: For instance ``infcop.Classification(train_loader, held_out_loader)``.
        run_dir: Folder for checkpoints, record and report; nothing is written elsewhere.
        density: Fraction to keep, in (0, 1].
        density_in: Of the prunable weights ("parameters"), or with pattern "coupled-channels" of
            the multiply-adds ("flops") or the measured time ("latency") of a forward pass.
        milestones: Larger densities, falling, at which a network is trained to the end on the way;
            the record's ``milestones`` hold what they came to.
        method: A name that ``infcop methods`` lists, a mapping with a ``name`` and the axes to
            change, or a whole ``MethodConfig``.
        seed: Of everything random; the same seed gives the same result, bit for bit on the CPU.
        training: Optimiser, learning rate and so on: fields of ``TrainingConfig``.
        dense: Length of the dense training: fields of ``DenseConfig``.
        levels: Budget of a level and distance of readings: fields of ``LevelsConfig``.
        final: Training after the last level: fields of ``FinalConfig``.
        probe_examples: Training examples that flow is read on; None for all.
        execution: Device, precision, threads: fields of ``ExecutionConfig``.
        progress: Who watches; by default the logger ``infcop``.

    Returns:
        The sparse model, its masks, the record and the report.

    Raises:
        ConfigError: A setting is unknown or out of range.
        ModelError: The model has nothing to prune, or can't be run on a batch.
        DataError: A loader is unfit.
        RunFolderError: The folder is in use, unwritable, or of another search.
        TrainingError: The loss became non-finite; everything saved before stays readable.

    Example:
        >>> import tempfile, infcop
        >>> inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> batches = [(inputs, (inputs.sum(dim=1) > 0).long())]
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = infcop.search(
        ...         model, infcop.Classification(batches, batches), run_dir=folder, density=0.25,
        ...         method="lth", dense={"passes": 2}, final={"passes": 2})
        >>> result.density
        0.25
    """
    settings: dict[str, Any] = {
        "density": density,
        "density_in": density_in,
        "milestones": tuple(milestones),
        "method": resolve_method(method),
        "seed": seed,
        "training": training,
        "dense": dense,
        "levels": levels,
        "final": final,
        "probe_examples": probe_examples,
        "execution": execution,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    config = validated(SearchConfig, {**given, "probe_examples": probe_examples})
    _warn_of_idle_settings(config)
    name = type(model).__name__
    return run_search(
        model, task, config, run_dir=run_dir, progress=progress, model_name=name, data_name="custom"
    )


def run_search(
    model: nn.Module,
    task: Task,
    config: SearchConfig,
    *,
    run_dir: str | os.PathLike[str],
    model_name: str,
    data_name: str,
    progress: Progress | None = None,
    split: Mapping[str, Any] | None = None,
    dense_dir: str | os.PathLike[str] | None = None,
) -> Result:
    """Run or continue a search whose settings are resolved.

    Runs that start alike may share a ``dense_dir``: the first trains the dense network, the others
    take it from there, bit for bit the same.
    """
    store = RunStore(run_dir)
    with store.locked(), preserved_rng(), _threads(config.execution.threads):
        run = prepare(
            _copied(model),
            task,
            config,
            store=store,
            progress=progress or LoggedProgress(),
            model_name=model_name,
            data_name=data_name,
            split=split or {},
        )
        if dense_dir is not None:
            run.shared_dense = shared_dense(run, dense_dir)
        store.claim(config, model_name)
        resumed = run.restore()
        store.append_log("resumed" if resumed else "started", seed=config.seed)
        if run.record.outcome is not None:
            run.progress.say(f"already finished: this is the result that {store.root} holds")
        with _explained_failure(store):
            store.write_record(run.record)
            execute(run)
        return Result(model, store, run.record, *probe_inputs(task, run.probe))


@contextmanager
def _explained_failure(store: RunStore) -> Iterator[None]:
    """Log what ends a run midway, and give it the exit code of a run that failed."""
    try:
        yield
    except InfcopError as error:
        error.exit_code = 3  # the input was good enough to begin with
        store.append_log("failed", error=str(error))
        raise
    except Exception as error:
        store.append_log("failed", error=repr(error))
        raise TrainingError(
            f"the run failed with {type(error).__name__}: {error}. Expected model, task and "
            "loaders to work as they did on the first batch; everything up to the last checkpoint "
            f"is saved in '{store.root}', and the same call goes on from there"
        ) from error


def _warn_of_idle_settings(config: SearchConfig) -> None:
    idle = sorted({"batch_size", "label_smoothing"} & config.training.model_fields_set)
    if idle:
        warnings.warn(
            f"search: training.{' and training.'.join(idle)} changed nothing: your loaders and "
            "your task decide that. Set batch_size in the loader, label_smoothing in "
            "Classification",
            NoEffectWarning,
            stacklevel=3,
        )


def _copied(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise ModelError(f"search: expected a model, an instance of nn.Module, got {what}")
    if hasattr(model, "_orig_mod"):
        raise ModelError(
            "search: expected the module itself, got what torch.compile made of it; pass "
            "model._orig_mod, and compile the sparse model that comes back"
        )
    if unwrapped(model) is not model:
        raise ModelError(
            f"search: expected the module itself, got it wrapped in {type(model).__name__}; pass "
            "model.module, and wrap the sparse model that comes back"
        )
    try:
        working = copy.deepcopy(model)
    except Exception as error:
        raise ModelError(
            f"search: expected a model that copy.deepcopy can copy, so that yours stays as it is; "
            f"{type(model).__name__} fails with: {error}. Remove tensors that are results of "
            "other tensors from its attributes"
        ) from error
    for parameter in working.parameters():
        parameter.grad = None
    return working


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
