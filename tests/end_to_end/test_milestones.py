"""Sparse networks on the way of one search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import infcop
from infcop.core.records import PhaseRecord, RunRecord
from infcop.pipeline.search import search as search_function
from tests.end_to_end.conftest import SHORT, Interrupting, Search, Unplugged, toy_model, toy_task
from tests.end_to_end.test_search import same_tensors, without_time

FRACTION = {"kind": "fraction", "remove": 0.4}


def calm_model() -> nn.Module:
    """Return a net that draws no random number in training: a label of its own changes nothing."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3)
    )


def run(folder: Path, **changes: Any) -> infcop.Result:
    settings = {**SHORT, "final": {"passes": 2}, **changes}
    return search_function(calm_model(), toy_task(), run_dir=folder, **settings)


def of_search(record: RunRecord) -> dict[str, Any]:
    """Return all but the times and what is said of milestones."""
    plain = without_time(record)
    del plain["milestones"], plain["config"]
    return plain


METHODS: dict[str, dict[str, Any]] = {
    "rewound every time": {"name": "lth", "schedule": FRACTION},
    "rewound at the end": {
        "name": "lth",
        "schedule": FRACTION,
        "rewind": {"to": "epoch", "passes": 1, "when": "end"},
    },
    "recovering at the end": {
        "name": "lth",
        "schedule": FRACTION,
        "rewind": {"to": "epoch", "passes": 1, "when": "end"},
        "stop": {"rule": "shock-budget", "fraction": 0.5, "power": 1.0},
    },
    "by movement": {
        "name": "movement",
        "schedule": FRACTION,
        "scope": "global",
        "rate": {"kind": "schedule"},
    },
    "by gradients": {"name": "lth", "score": "fisher", "schedule": FRACTION},
    "by the shock": {
        "name": "lth",
        "schedule": FRACTION,
        "rewind": {"to": "none"},
        "stop": {"rule": "shock-budget", "fraction": 0.5, "power": 1.0},
    },
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_milestone_is_the_search_that_ends_there_and_the_others_go_on_as_without_it(
    tmp_path: Path, method: dict[str, Any]
) -> None:
    without = run(tmp_path / "without", method=method, density=0.3)
    # The schedule comes by these anyway.
    passed = tuple(level.density for level in without.record.levels[:2])
    through = run(tmp_path / "through", method=method, milestones=passed, density=0.3)
    assert of_search(through.record) == of_search(without.record)
    assert same_tensors(through.model, without.model)
    kept = [level.kept for level in through.record.levels]
    assert [(m.level, m.kept) for m in through.record.milestones] == [(1, kept[0]), (2, kept[1])]
    for number, milestone in enumerate(through.record.milestones, 1):
        alone = run(tmp_path / str(number), method=method, density=milestone.density).record
        assert alone.outcome is not None
        assert alone.final is not None
        assert without_time(alone)["levels"] == without_time(through.record)["levels"][:number]
        assert (milestone.kept, milestone.density) == (alone.outcome.kept, alone.outcome.density)
        assert milestone.metrics == alone.outcome.sparse
        assert milestone.cost == alone.outcome.cost
        ours, theirs = milestone.final, alone.final
        assert [r.model_dump() for r in ours.readings] == [r.model_dump() for r in theirs.readings]
        assert milestone.seconds >= ours.seconds


def test_a_final_training_that_draws_begins_with_the_same_values(tmp_path: Path) -> None:
    """Its draws have a label of their own, so with dropout only the beginning is the same."""
    settings: dict[str, Any] = {**SHORT, "method": METHODS["by the shock"]}

    class Stopping(Interrupting):
        """Goes away at the first step of the first final training."""

        def begin(self, title: str, steps: int, done: int) -> None:
            self.left = 0 if title == "final training" else 1000

    begun = []
    for number, changes in enumerate(({"milestones": (0.6,)}, {"density": 0.6})):
        folder = tmp_path / str(number)
        with pytest.raises(Unplugged):
            search_function(
                toy_model(),
                toy_task(),
                run_dir=folder,
                progress=Stopping(1000),
                **{**settings, **changes},
            )
        latest = load_file(folder / "checkpoints" / "latest.safetensors")
        begun.append({k: v for k, v in latest.items() if k.startswith(("model.", "mask."))})
    assert begun[0].keys() == begun[1].keys()
    assert all(torch.equal(begun[0][name], begun[1][name]) for name in begun[0])


def test_levels_end_exactly_at_milestones(search: Search) -> None:
    record = search(milestones=(0.85, 0.5), density=0.3).record
    total = sum(torch.Size(shape).numel() for shape in record.model.prunable.values())
    assert [m.kept for m in record.milestones] == [round(0.85 * total), round(0.5 * total)]
    kept = [level.kept for level in record.levels]
    # From 0.5 the schedule would go to 0.3 in one step.
    assert kept == [round(0.85 * total), kept[1], round(0.3 * total)]
    assert kept[1] == round(0.5 * total)


def test_the_log_and_whoever_watches_are_told(tmp_path: Path) -> None:
    said = []

    class Listening(Interrupting):
        def say(self, line: str) -> None:
            said.append(line)

    result = run(tmp_path, progress=Listening(10_000), milestones=(0.6,), density=0.5)
    (milestone,) = result.record.milestones
    (line,) = [line for line in said if line.startswith("milestone")]
    accuracy = f"{100 * milestone.metrics['accuracy']:.1f} %"
    assert line == f"milestone, density 60.0 %: trained to the end, accuracy {accuracy}"
    assert "Networks of this search" in result.report().read_text(encoding="utf-8")
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8").count('"milestone"') == 1


@pytest.mark.parametrize("every", [7, 17])
def test_interrupted_again_and_again_with_milestones(tmp_path: Path, every: int) -> None:
    settings: dict[str, Any] = {
        "method": METHODS["rewound at the end"],
        "milestones": (0.6, 0.5),
        "density": 0.4,
        "levels": {"max_passes": 1, "unit": 0.5},
    }
    whole = run(tmp_path / "whole", **settings)
    cuts = 0
    for _ in range(200):
        try:
            again = run(tmp_path / "cut", progress=Interrupting(every), **settings)
            break
        except Unplugged:
            cuts += 1
    assert cuts >= 2
    assert same_tensors(again.model, whole.model)
    assert without_time(again.record) == without_time(whole.record)
    for name in ("masks", "values"):
        ours, theirs = (
            load_file(tmp_path / f / "ticket" / f"{name}.safetensors") for f in ("cut", "whole")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_without_final_training_a_milestone_is_what_its_level_left(search: Search) -> None:
    settings: dict[str, Any] = {"final": {"passes": 0}}
    through = search(**settings, milestones=(0.6,), density=0.36).record
    alone = search(**settings, density=0.6).record
    (milestone,) = through.milestones
    assert through.outcome is not None
    assert alone.outcome is not None
    assert milestone.kept == alone.outcome.kept
    assert milestone.final == PhaseRecord()
    assert milestone.metrics == pytest.approx(alone.outcome.sparse)
    assert milestone.cost == alone.outcome.cost
