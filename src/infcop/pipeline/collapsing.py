"""Training a smaller network for a while, where the settings ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infcop.errors import CollapseError, NoEffectWarning
from infcop.models.batches import resized
from infcop.pipeline.context import Run
from infcop.pipeline.probe_inputs import probe_inputs
from infcop.pipeline.reading import flow_kinds
from infcop.pipeline.shrunk import Shrunk, shrink_network
from infcop.report.words import count, percent

__all__ = ["collapsed"]

_FEW = 2
"""Examples that are enough to collapse a network."""

_OF_UNITS = ("correlation", "wanda")
"""Scores that look at what units give."""


@contextmanager
def collapsed(run: Run) -> Iterator[None]:
    """Train a smaller network while the context lasts, if there is one.

    The run's own model has the values of the last place that training was advanced to.
    """
    if run.config.levels.collapse and run.masks.kept < run.masks.total:
        run.shrunk = _smaller(run)
        _tell(run)
    try:
        yield
    finally:
        run.shrunk = None


def _smaller(run: Run) -> Shrunk | None:
    """Return the network of the level before where the masks are still the same, or a new one."""
    masks, found = run.collapsed
    if masks is not run.masks or run.config.method.rewind.when == "end":
        found = _collapse(run)
        run.collapsed = (run.masks, found)
    elif found is not None:
        found.take_values()
    return found


def _collapse(run: Run) -> Shrunk | None:
    inputs, examples = probe_inputs(run.task, run.probe)
    few = resized(inputs, examples, _FEW)
    begun, _ = run.store.read_tensors(run.store.values)
    try:
        found = shrink_network(
            run.model,
            begun,
            run.masks,
            inputs if few is None else few,
            engine=run.engine,
            movement=run.movement,
        )
    except CollapseError as error:
        _warn_once(run, f"the network can't be collapsed, and is trained with its masks: {error}")
        return None
    if found is not None and found.leaves_statistics and _looks_at_units(run):
        _warn_once(
            run,
            "a level trains the network with its masks, since a normalisation keeps statistics of "
            "units that nothing reads any more, and the flow or the score looks at them. Use "
            "method.pattern 'coupled-channels', whose units go with all their weights",
        )
        return None
    return found


def _tell(run: Run) -> None:
    size, whole = run.trained_parameters, run.record.model.parameters
    if size is not None:
        run.store.append_log("collapsed", trained=size, parameters=whole)
        run.progress.say(
            f"collapsed for training: {count(size)} of {count(whole)} parameters "
            f"({percent(size / whole)})"
        )


def _looks_at_units(run: Run) -> bool:
    return "information" in flow_kinds(run) or run.config.method.score.kind in _OF_UNITS


def _warn_once(run: Run, message: str) -> None:
    """Warn unless that was done before, in other words perhaps."""
    start = "levels.collapse: "
    if not any(warning.startswith(start) for warning in run.record.warnings):
        run.warn(start + message, NoEffectWarning)
