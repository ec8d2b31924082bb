from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infcop.core.records import RunRecord
from infcop.errors import ConfigError, RunFolderError
from infcop.study.full_records import full_records, trained_readings
from tests.reference.records import make_record
from tests.reference.replays import full_record, level_of

LEVEL = level_of(1, [0.5, 0.7, 0.8, 0.9])


def with_config(record: RunRecord, **groups: Any) -> RunRecord:
    return record.model_copy(update={"config": {**record.config, **groups}})


def test_levels_that_have_stopped_count() -> None:
    going_on = level_of(2, [0.5], stopped=False)
    (full,) = full_records({"a": full_record(LEVEL, going_on)})
    assert full.levels == (LEVEL,)
    assert [reading.passes for reading in trained_readings(LEVEL)] == [1, 2, 3, 4]
    assert full.sign == 1
    assert full_records({"a": full_record(LEVEL, higher_is_better=False)})[0].sign == -1


def test_a_fixed_budget_below_the_most_is_the_budget() -> None:
    method = {
        "name": "lth",
        "flow": {"every_reading": True},
        "stop": {"rule": "fixed-budget", "passes": 4},
    }
    (full,) = full_records(
        {"a": full_record(LEVEL, settings={"method": method, "levels": {"max_passes": 8}})}
    )
    assert full.config.levels.max_passes == 4


def test_settings_of_another_version_are_read_where_they_count() -> None:
    record = full_record(LEVEL)
    groups = {"training": {"was_named_otherwise": 1}, "data": {"name": "custom"}, "gone": 1}
    assert full_records({"a": with_config(record, **groups)})[0].config.dense.passes == 4
    with pytest.raises(RunFolderError, match=r"'a': the settings in its record can't be read"):
        full_records({"a": with_config(record, dense={"gone": 1})})
    with pytest.raises(RunFolderError, match="run it anew"):
        full_records({"a": record.model_copy(update={"config": {}})})


def test_a_record_that_is_not_full_is_refused() -> None:
    method = {"name": "lth"}
    with pytest.raises(ConfigError) as told:
        full_records({"runs/a": full_record(LEVEL, settings={"method": method})})
    for part in ("'runs/a'", "every_reading false", "every_reading=true", "rule=fixed-budget"):
        assert part in str(told.value)
    plateau = {"name": "lth", "flow": {"every_reading": True}, "stop": {"rule": "plateau"}}
    early = full_record(
        LEVEL, level_of(2, [0.5, 0.6]), settings={"method": plateau, "levels": {"max_passes": 4}}
    )
    with pytest.raises(
        ConfigError,
        match=r"full budget of 4 passes, got 2 at level 2, where the rule 'plateau' stopped it; "
        r"run it .*fixed-budget",
    ):
        full_records({"a": early})
    with pytest.raises(ConfigError, match="at least one level that has stopped, got none"):
        full_records({"a": full_record(level_of(1, [0.5], stopped=False))})
    with pytest.raises(ConfigError, match=r"every reading, got none .* levels\.evaluate=readings"):
        full_records({"a": full_record(level_of(1, [0.5], main=None))})
    with pytest.raises(ConfigError, match="every_reading false"):
        full_records({"a": make_record()})


def test_records_must_measure_the_same() -> None:
    accuracy, loss = full_record(LEVEL), full_record(LEVEL, metric="loss", higher_is_better=False)
    with pytest.raises(ConfigError, match=r"'accuracy' in 'a' and 'loss' in 'b'"):
        full_records({"a": accuracy, "b": loss})


def test_folders_are_looked_into(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder: expected a file record"):
        full_records([tmp_path])
    with pytest.raises(ConfigError, match="at least one run folder, got none"):
        full_records([])
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "record.json").write_text(full_record(LEVEL).model_dump_json())
    assert full_records([folder])[0].name == str(folder)
    with pytest.raises(ConfigError, match="more than once"):
        full_records([folder, str(folder)])
