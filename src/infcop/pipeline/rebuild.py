"""From the folder of a finished run back to its networks and data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from infcop.core.records import DataFacts
from infcop.core.rng import preserved_rng
from infcop.core.validation import merged
from infcop.errors import ConfigError, DataError, ModelError, RunFolderError
from infcop.models.batches import batch_of
from infcop.models.build import call_factory
from infcop.models.calling import Inputs
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.probe import take_probe
from infcop.pipeline.probe_inputs import probe_inputs
from infcop.pipeline.result import Result
from infcop.pipeline.setup import count_examples
from infcop.pipeline.store import FinishedStore, RunStore, load_record
from infcop.pipeline.workload import build_workload
from infcop.tasks.base import Task

__all__ = ["Rebuilt", "rebuild"]

_FACTORY = (
    "a function without arguments that returns the model and its task, or the model and example "
    "inputs as a tuple or a mapping"
)

_OWN_DATA = (
    "give the data that the search was given: its folder with --data-dir, or its task with --model"
)


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A finished run, and what it was run on.

    Attributes:
        store: Its folder.
        result: What the search returned.
        example_inputs: Inputs of the model.
        examples: How many examples they hold.
        task: What it was trained for; None where only example inputs are known.
    """

    store: RunStore
    result: Result
    example_inputs: Inputs
    examples: int
    task: Task | None


def rebuild(
    folder: str | os.PathLike[str], *, model: str | None = None, data_dir: str | None = None
) -> Rebuilt:
    """Return what a finished run gave, with its model and its data.

    Args:
        folder: The run folder.
        model: ``package.module:factory``, for a run that was given its model from Python. It is
            called without arguments and returns the model and a task, or the model and example
            inputs.
        data_dir: Folder of the data files; by default where the run found them.

    Raises:
        RunFolderError: There is no run, it is not finished, or it does not know its model.
        ConfigError: The factory can't be found or called, or the run needs none.
        ModelError: The factory returns something else, or another model.
        DataError: The data of the run is missing, or is not what the run was trained and judged on.
    """
    store, record = FinishedStore(folder), load_record(folder)
    if record.outcome is None:
        raise RunFolderError(
            f"'{folder}' holds a search that is not finished; expected a finished one. Run the "
            "same search again to finish it"
        )
    own = record.data.name == "custom"
    if own and model is None:
        raise RunFolderError(
            f"'{folder}' holds a search that was given its model and data from Python, and keeps "
            f"neither; expected --model package.module:factory, {_FACTORY}"
        )
    if not own and model is not None:
        raise ConfigError(
            f"--model: '{folder}' knows its model, {record.model.name}, and its data; expected no "
            f"factory, got '{model}'; leave --model out"
        )
    task: Task | None
    split: Mapping[str, Any] = {}
    with preserved_rng():
        if model is not None:
            network, task, inputs = _from_factory(model)
        else:
            settings = {} if data_dir is None else {"data": {"dir": data_dir}}
            workload = build_workload(resolve_config(merged(record.config, settings)))
            network, task, inputs = workload.model, workload.task, ()
            split = workload.split
        if task is None:
            examples = batch_of(inputs)
        else:
            _check_data(store, record.data, task, split)
            probe = take_probe(task, record.config["probe_examples"], record.config["seed"])
            inputs, examples = probe_inputs(task, probe)
    result = _result(store, network, inputs, examples, model)
    return Rebuilt(store, result, inputs, examples, task)


def _check_data(store: RunStore, known: DataFacts, task: Task, split: Mapping[str, Any]) -> None:
    """Make sure that the data is that of the record, as far as the record tells."""
    test = task.test_loader
    found = {
        "training": (known.train, count_examples(task.train_loader, task)),
        "held-out": (known.held_out, count_examples(task.held_out_loader, task)),
        "test": (known.test, 0 if test is None else count_examples(test, task)),
    }
    for part, (expected, got) in found.items():
        if got != expected:
            raise DataError(
                f"'{store.root}' was run on other data: expected {expected:,} {part} examples, got "
                f"{got:,}; {_OWN_DATA}"
            )
    if known.split != split:
        raise DataError(
            f"'{store.root}' was run on other data: expected the split {dict(known.split)}, got "
            f"{dict(split)}; labels or their order differ; {_OWN_DATA}"
        )


def _from_factory(name: str) -> tuple[nn.Module, Task | None, Inputs]:
    found = call_factory(name)
    network, given = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if isinstance(network, nn.Module):
        if isinstance(given, (tuple, Mapping)):
            return network, None, given
        if hasattr(given, "inputs") and hasattr(given, "held_out_loader"):
            return network, given, ()
    got = [type(one).__name__ for one in (network, given) if one is not None]
    raise ModelError(
        f"--model: expected '{name}' to be {_FACTORY}; it returned {' and '.join(got) or 'None'}"
    )


def _result(
    store: RunStore, network: nn.Module, inputs: Inputs, examples: int, factory: str | None
) -> Result:
    try:
        return Result(network, store, load_record(store.root), inputs, examples)
    except ModelError as error:
        where = f"what '{factory}' returns" if factory else "what its settings make"
        raise ModelError(
            f"'{store.root}' was a search of another model than {where}: {error}"
        ) from error
