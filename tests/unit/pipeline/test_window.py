"""All readings of flow from training are over equally many steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infcop.core.records import Reading
from infcop.errors import InfcopWarning, ModelError
from infcop.pipeline.search import search
from tests.end_to_end.conftest import SHORT, toy_batches, toy_model, toy_task


def run(folder: Path, **changes: Any) -> Any:
    stop = {"rule": "information-flow", "epsilon": 1e-9, "statistic": "absolute"}
    method = {**SHORT["method"], "stop": stop, "flow": {"source": "training"}}
    settings = {**SHORT, "method": method, "density": 0.6, "final": {"passes": 0}}
    return search(toy_model(), toy_task(), run_dir=folder / "run", **settings | changes).record


def sizes(record: Any) -> list[int]:
    levels = [reading for level in record.levels for reading in level.readings]
    read: list[Reading] = [r for r in (*record.dense.readings, *levels) if r.flows]
    return [reading.probe_examples for reading in read]


def close_marks() -> dict[str, Any]:
    """Return a rule that wants a reading one step after another: pass 1 and 7/6, of six steps."""
    inner = {"rule": "information-flow", "epsilon": 1e-9, "statistic": "absolute"}
    stop = {"rule": "at-least", "passes": 1.1, "of": inner}
    return {**SHORT["method"], "stop": stop, "flow": {"source": "training"}}


def test_the_window_is_the_stretch_where_the_probe_is_larger(tmp_path: Path) -> None:
    assert set(sizes(run(tmp_path))) == {96}


def test_two_readings_close_to_each_other_shorten_all_windows(tmp_path: Path) -> None:
    with pytest.warns(InfcopWarning, match="the last 1 training steps before each reading instead"):
        record = run(tmp_path, method=close_marks(), probe_examples=64)
    assert set(sizes(record)) == {16}
    assert any("instead of the 4 that hold probe_examples=64" in text for text in record.warnings)


def test_a_window_of_one_example_gives_a_reading_that_decides_nothing(tmp_path: Path) -> None:
    task = toy_task()
    task.train_loader = [(x[:1], y[:1]) for x, y in toy_batches()]
    stop = {"rule": "information-flow", "epsilon": 1e9}
    settings = {
        **SHORT,
        "density": 0.6,
        "dense": {"passes": 1},
        "final": {"passes": 0},
        "levels": {"max_passes": 1, "unit": 1 / 6},
        "method": {
            **SHORT["method"],
            "stop": {"rule": "any-of", "rules": [{"rule": "plateau", "patience": 9}]},
            "flow": {"source": "training"},
        },
    }
    with pytest.warns(InfcopWarning, match="the flow is not finite in '5', '7'"):
        record = search(toy_model(), task, run_dir=tmp_path / "plateau", **settings).record
    assert record.outcome is not None
    settings["method"] = {**settings["method"], "stop": stop}
    with pytest.warns(InfcopWarning), pytest.raises(Exception, match="finite reference"):
        search(toy_model(), task, run_dir=tmp_path / "flow", **settings)


def test_a_wrapped_model_is_refused_before_any_training(tmp_path: Path) -> None:
    from torch.nn import DataParallel

    with pytest.raises(ModelError, match=r"wrapped in DataParallel; pass model\.module"):
        search(DataParallel(toy_model()), toy_task(), run_dir=tmp_path / "run", **SHORT)
