"""Runs that start alike train the dense network once, and end as if each had done so itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import infcop
from infcop.core.config import SearchConfig
from infcop.methods import resolve_method
from infcop.pipeline.progress import LoggedProgress
from infcop.pipeline.search import run_search
from infcop.pipeline.store import RunStore
from tests.end_to_end.conftest import SHORT, Interrupting, Unplugged, toy_model, toy_task
from tests.end_to_end.test_search import same_tensors, without_time

STEPS = 6
"""Of a pass over the toy problem; two passes are dense."""

FRACTION = {"kind": "fraction", "remove": 0.4}
METHODS: dict[str, Any] = {
    "plain": {"name": "lth", "schedule": FRACTION},
    "to an epoch": {"name": "lth-rewind", "schedule": FRACTION},
    "by gradients": {"name": "infcop-gf", "schedule": FRACTION, "reference": "dense"},
    "read at every pass": {
        "name": "lth",
        "schedule": FRACTION,
        "stop": {"rule": "matrix-flow", "epsilon": 0.1},
        "flow": {"every_reading": True},
    },
}


class Counting(LoggedProgress):
    """Counts the steps of every phase by its title."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    def begin(self, title: str, steps: int, done: int) -> None:
        self.title = title
        self.steps.setdefault(title, 0)

    def step(self, done: int) -> None:
        self.steps[self.title] += 1


def run(
    folder: Path,
    dense_dir: Path | None = None,
    *,
    model: nn.Module | None = None,
    progress: LoggedProgress | None = None,
    data_name: str = "toy",
    **changes: Any,
) -> infcop.Result:
    settings = {**SHORT, "density": 0.5, **changes}
    settings["method"] = resolve_method(settings["method"])
    return run_search(
        toy_model() if model is None else model,
        toy_task(),
        SearchConfig(**settings),
        run_dir=folder,
        model_name="net",
        data_name=data_name,
        progress=progress,
        dense_dir=dense_dir,
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_another_method_takes_the_dense_training_and_ends_as_without(
    tmp_path: Path, method: dict[str, Any]
) -> None:
    shared = tmp_path / "shared"
    run(tmp_path / "first", shared, method="infcop")
    kept = files(shared)
    assert len(kept) == 2
    watched = Counting()
    taken = run(tmp_path / "second", shared, method=method, progress=watched)
    alone = run(tmp_path / "alone", method=method)
    assert watched.steps["dense network"] == 0
    assert watched.steps["final training"] == STEPS
    assert same_tensors(taken.model, alone.model)
    assert without_time(taken.record) == without_time(alone.record)
    assert files(shared) == kept


def test_what_another_run_spent_is_counted_as_time_of_this_one(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    run(tmp_path / "first", shared)
    second = run(tmp_path / "second", shared, method="infcop").record
    metas = [RunStore(tmp_path).read_tensors(path)[1] for path in shared.iterdir()]
    assert second.dense.seconds > sum(meta["seconds"] for meta in metas) > 0


@pytest.mark.parametrize("source", ["probe", "training"])
def test_a_half_filled_folder_is_completed(tmp_path: Path, source: str) -> None:
    """Flow from training is listened to, so those passes are not taken from the folder."""
    shared = tmp_path / "shared"
    with pytest.raises(Unplugged):
        run(tmp_path / "cut", shared, progress=Interrupting(STEPS + 2))
    assert len(files(shared)) == 1
    watched = Counting()
    method = {**METHODS["by gradients"], "flow": {"source": source}}
    taken = run(tmp_path / "whole", shared, method=method, progress=watched)
    assert watched.steps["dense network"] == STEPS
    assert len(files(shared)) == (2 if source == "probe" else 1)
    alone = run(tmp_path / "alone", method=method)
    assert same_tensors(taken.model, alone.model)
    assert without_time(taken.record) == without_time(alone.record)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"training": {"lr": 0.02}},
        {"dense": {"passes": 3}},
        {"model": toy_model(seed=1)},
        {"data_name": "other"},
    ],
    ids=["seed", "recipe", "passes", "initial values", "data"],
)
def test_a_run_that_starts_otherwise_trains_by_itself(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    shared = tmp_path / "shared"
    run(tmp_path / "first", shared)
    before = files(shared)
    watched = Counting()
    taken = run(tmp_path / "second", shared, progress=watched, **changes)
    passes = changes.get("dense", {"passes": 2})["passes"]
    assert watched.steps["dense network"] == passes * STEPS
    assert len({*files(shared)} - {*before}) == passes
    alone = run(tmp_path / "alone", **changes)
    assert same_tensors(taken.model, alone.model)
    assert without_time(taken.record) == without_time(alone.record)


def test_a_run_continues_with_the_folder_or_without_it(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    whole = run(tmp_path / "whole", shared)
    for number, second in enumerate((shared, None)):
        folder = tmp_path / str(number)
        with pytest.raises(Unplugged):
            run(folder, shared, progress=Interrupting(8))
        again = run(folder, second)
        assert same_tensors(again.model, whole.model)
        assert without_time(again.record) == without_time(whole.record)
