"""A process may go away before or after any write to its folder: the next one ends the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import infcop
from infcop.pipeline.store import RunStore
from tests.end_to_end.conftest import toy_batches
from tests.end_to_end.test_search import same_tensors, without_time

FRACTION = {"kind": "fraction", "remove": 0.4}

CASES: dict[str, dict[str, Any]] = {
    "lth": {
        "density": 0.4,
        "method": {"name": "lth", "schedule": FRACTION},
        "levels": {"max_passes": 1, "unit": 0.5, "min_passes": 0.5},
    },
    "infcop-if": {
        "density": 0.4,
        "method": {
            "name": "infcop-if",
            "schedule": FRACTION,
            "rewind": {"to": "epoch", "passes": 1},
        },
        "levels": {"max_passes": 1, "unit": 0.5, "min_passes": 0.5},
    },
    "levels that train at a rate of their own": {
        "density": 0.4,
        "method": {"name": "bimp", "schedule": FRACTION},
        "levels": {"max_passes": 1, "unit": 0.5, "min_passes": 0.5},
    },
    "networks on the way, rewound at the end": {
        "density": 0.5,
        "milestones": (0.75, 0.6),
        "method": {
            "name": "lth",
            "schedule": FRACTION,
            "rewind": {"to": "epoch", "passes": 1, "when": "end"},
            "stop": {"rule": "shock-budget", "fraction": 0.5, "power": 1.0, "least": 0.2},
        },
        "levels": {"max_passes": 0.5, "unit": 0.5},
    },
    "levels compared with other states": {
        "density": 0.4,
        "method": {
            "name": "lth",
            "schedule": FRACTION,
            "rewind": {"to": "warm-up"},
            "stop": {
                "rule": "any-of",
                "rules": [
                    {"rule": "shock-budget", "fraction": 0.5, "power": 1.0, "least": 0.25},
                    {"rule": "matrix-flow", "epsilon": 1e-9, "reference": "last"},
                    {"rule": "mask-distance", "epsilon": 1e-9},
                ],
            },
        },
        "levels": {"max_passes": 1, "unit": 0.5},
    },
    "levels that may end untrained": {
        "density": 0.6,
        "method": {
            "name": "lth",
            "schedule": FRACTION,
            "rewind": {"to": "none"},
            "stop": {"rule": "plateau", "patience": 1},
        },
        "levels": {"max_passes": 1, "unit": 0.5, "min_passes": 0},
    },
}


class Cut(BaseException):
    """Stands for whatever takes a process away while it writes."""


class Writes:
    """Lets the writes of run folders through, but for the n-th, before or after it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self._cut_at, self._before = 0, True
        original = RunStore._write

        def write(store: RunStore, path: Path, fill: Callable[[Path], object]) -> None:
            self.names.append(path.name)
            cut = len(self.names) == self._cut_at
            if cut and self._before:
                raise Cut
            original(store, path, fill)
            if cut:
                raise Cut

        monkeypatch.setattr(RunStore, "_write", write)

    def reset(self, cut_at: int = 0, *, before: bool = True) -> None:
        """Begin to count anew; 0 cuts nothing."""
        self.names.clear()
        self._cut_at, self._before = cut_at, before


def run(folder: Path, case: str) -> infcop.Result:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    task = infcop.Classification(
        toy_batches(2, 8), toy_batches(1, 8, seed=1), toy_batches(1, 8, seed=2)
    )
    settings = {
        "dense": {"passes": 2},
        "final": {"passes": 1},
        "execution": {"device": "cpu", "checkpoint_seconds": 0, "threads": 1},
    }
    return infcop.search(model, task, run_dir=folder, **settings, **CASES[case])


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("case", CASES)
def test_cut_at_any_write_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, before: bool
) -> None:
    writes = Writes(monkeypatch)
    whole = run(tmp_path / "whole", case)
    names = list(writes.names)
    assert {"config.yaml", "latest.safetensors", "dense.safetensors", "masks.safetensors"} <= {
        *names
    }
    assert len(whole.record.levels) >= 1
    expected = without_time(whole.record)
    wrong = []
    for place in places(names):
        folder = tmp_path / str(place)
        writes.reset(place, before=before)
        with pytest.raises(Cut):
            run(folder, case)
        writes.reset()
        again = run(folder, case)
        if not (same_tensors(again.model, whole.model) and without_time(again.record) == expected):
            wrong.append((place, names[place - 1]))
    assert wrong == []


def places(names: list[str]) -> list[int]:
    """Every other write: cut before and after these, a folder is seen as each write leaves it."""
    return [*range(1, len(names), 2), len(names)]
