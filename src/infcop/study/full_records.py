"""Records that stop rules can be replayed on: every level read, in full, to its whole budget."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from infcop.core.config import SearchConfig
from infcop.core.records import LevelRecord, Reading, RunRecord
from infcop.errors import ConfigError, RunFolderError
from infcop.pipeline.store import load_record
from infcop.stopping.rule import reached

__all__ = ["FullRecord", "full_records", "trained_readings"]

_DECISIVE = ("method", "dense", "levels")
"""Settings that decide when a level stops; the others need not be known to this version."""


@dataclass(frozen=True)
class FullRecord:
    """A record whose levels can be asked what any rule would have done."""

    name: str
    record: RunRecord
    config: SearchConfig
    """The settings that decide when a level stops; ``levels.max_passes`` is the budget that the
    levels were given."""

    @cached_property
    def levels(self) -> tuple[LevelRecord, ...]:
        """The levels that have stopped."""
        return tuple(level for level in self.record.levels if level.stopped_by is not None)

    @property
    def sign(self) -> int:
        """1 where a higher main metric is better, else -1."""
        return 1 if self.record.data.higher_is_better else -1


def full_records(
    runs: Iterable[str | os.PathLike[str]] | Mapping[str, RunRecord],
) -> tuple[FullRecord, ...]:
    """Return the records of run folders, or those given by name, made sure to be full.

    Raises:
        ConfigError: A record is not full, or the records measure different things.
        RunFolderError: A folder holds no record, or one of another version.
    """
    if isinstance(runs, Mapping):
        records = dict(runs)
    else:
        folders = [os.fspath(run) for run in runs]
        if twice := sorted({folder for folder in folders if folders.count(folder) > 1}):
            raise ConfigError(
                f"replay: got '{twice[0]}' more than once; expected different run folders, as a "
                "repeated record would count twice"
            )
        records = {folder: load_record(folder) for folder in folders}
    if not records:
        raise ConfigError("replay: expected at least one run folder, got none")
    found = tuple(_checked(name, record) for name, record in records.items())
    _check_same_metric(found)
    return found


def trained_readings(level: LevelRecord) -> tuple[Reading, ...]:
    """Return the readings that were taken while a level trained."""
    return tuple(r for r in level.readings if r.phase == "level" and r.passes > 0)


def _checked(name: str, record: RunRecord) -> FullRecord:
    config = _settings(name, record)
    full = FullRecord(name, record, config)
    remedy = (
        "run it in another folder with method.flow.every_reading=true and "
        "method.stop.rule=fixed-budget"
    )
    if not config.method.flow.every_reading:
        raise ConfigError(
            f"'{name}': expected a record with everything read at every reading, got "
            f"method.flow.every_reading false; {remedy}"
        )
    if not full.levels:
        raise ConfigError(
            f"'{name}': expected a run with at least one level that has stopped, got none; let it "
            "go on until it has one"
        )
    for level in full.levels:
        if not reached(level.passes, config.levels.max_passes):
            assert level.stopped_by is not None
            raise ConfigError(
                f"'{name}': expected levels that trained to their full budget of "
                f"{config.levels.max_passes:g} passes, got {level.passes:g} at level "
                f"{level.level}, where the rule '{config.method.stop.rule}' stopped it; {remedy}"
            )
        if any(reading.main is None for reading in trained_readings(level)):
            raise ConfigError(
                f"'{name}': expected the held-out metric at every reading, got none at some of "
                f"level {level.level}; run it in another folder with levels.evaluate=readings"
            )
    return full


def _settings(name: str, record: RunRecord) -> SearchConfig:
    known = {key: record.config[key] for key in _DECISIVE if key in record.config}
    try:
        config = SearchConfig.model_validate(known)
    except ValueError as error:
        raise RunFolderError(
            f"'{name}': the settings in its record can't be read by this version ({error}); "
            "replay it with the version that wrote it, or run it anew"
        ) from error
    budget = {"max_passes": config.level_passes}
    return config.model_copy(update={"levels": config.levels.model_copy(update=budget)})


def _check_same_metric(records: tuple[FullRecord, ...]) -> None:
    first = records[0]
    for other in records[1:]:
        ours, theirs = first.record.data, other.record.data
        if (ours.main_metric, ours.higher_is_better) != (
            theirs.main_metric,
            theirs.higher_is_better,
        ):
            raise ConfigError(
                f"replay: expected records with the same main metric, got '{ours.main_metric}' in "
                f"'{first.name}' and '{theirs.main_metric}' in '{other.name}'; their losses can't "
                "be averaged, so replay them one by one"
            )
