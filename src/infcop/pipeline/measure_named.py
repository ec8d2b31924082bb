"""Measuring a model that is known by its name, on data that is known by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from infcop.core.config import RunConfig
from infcop.core.validation import merged
from infcop.errors import ConfigError, RunFolderError
from infcop.flow.meter import FlowKind
from infcop.models.zoo import ZOO
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.measure import measure
from infcop.pipeline.measurement import Measurement
from infcop.pipeline.result import Result
from infcop.pipeline.store import RunStore, load_record
from infcop.pipeline.weights import load_weights
from infcop.pipeline.workload import Workload, build_workload
from infcop.training.engine import Engine

__all__ = ["measure_named"]


def measure_named(
    model: str,
    settings: Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    weights: Path | None = None,
    kinds: Sequence[str] = ("information", "gradient"),
) -> Measurement:
    """Measure a model of the zoo, one that a factory makes, or the sparse one of a finished run.

    Args:
        model: A name for ``build_model``, or a run folder.
        settings: What differs from the defaults of a ``RunConfig``, or from those of the run.
        overrides: Words such as ``model.options.width=2``, applied last.
        weights: A safetensors file; by default the weights are drawn with the seed.
        kinds: Which flow to measure.

    Raises:
        ConfigError: A setting, the model or the data set is unknown.
        RunFolderError: The run folder is no finished run, or doesn't know its model.
        InfcopError: As of ``build_workload``, ``load_weights`` and ``measure``.
    """
    # A name of the zoo stays one, also beside a folder that bears it.
    folder = Path(model) if model not in ZOO and Path(model).is_dir() else None
    if folder is None and ":" not in model and "/" in model:
        raise RunFolderError(
            f"'{model}': there is no such folder; expected that of a finished run, or the name of "
            "a model"
        )
    if folder is None:
        base: Mapping[str, Any] = {"model": {"name": model}, "method": {"name": "infcop-if"}}
        config = resolve_config(merged(base, settings), overrides)
        workload = build_workload(config)
        if weights is not None:
            load_weights(workload.model, weights)
        source = f"drawn with seed {config.seed}" if weights is None else f"of '{weights}'"
        return _measured(workload, config, source, kinds)
    if weights is not None:
        raise ConfigError(
            f"measure: '{folder}' is a run folder, which holds weights of its own; leave --weights "
            "out, or name the model"
        )
    return _measured_run(folder, settings, overrides, kinds)


def _measured_run(
    folder: Path, settings: Mapping[str, Any], overrides: Iterable[str], kinds: Sequence[str]
) -> Measurement:
    record = load_record(folder)
    if record.outcome is None:
        raise RunFolderError(
            f"'{folder}' holds a search that is not finished; expected a finished one. Run the "
            "same search again to finish it"
        )
    if record.data.name == "custom":
        raise RunFolderError(
            f"'{folder}' holds a search that was given its model and data from Python, and keeps "
            "neither; expected one by 'infcop search'. Use infcop.measure(result.model, task)"
        )
    config = resolve_config(merged(record.config, settings), overrides)
    workload = build_workload(config)
    result = Result(workload.model, RunStore(folder), record)
    sparse = Workload(result.model, workload.task, workload.split)
    return _measured(sparse, config, f"of the sparse network in '{folder}'", kinds, result)


def _measured(
    workload: Workload,
    config: RunConfig,
    source: str,
    kinds: Sequence[str],
    result: Result | None = None,
) -> Measurement:
    flow = config.method.flow
    found = measure(
        workload.model.to(Engine(config.execution).device),
        workload.task,
        examples=config.probe_examples,
        edges=flow.edges,
        kinds=cast("Sequence[FlowKind]", kinds),
        gradient=flow.gradient,
        masks=None if result is None else result.masks,
        seed=config.seed,
        name=config.model.name,
    )
    facts = {"weights": source, "data": config.data.name}
    return Measurement(found.record.model_copy(update=facts))
