from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from infcop.errors import InfcopWarning
from infcop.tasks.classification import Classification
from tests.unit.pipeline.test_setup import network, prepared

FLOW: dict[str, Any] = {"rule": "information-flow", "epsilon": 1e-9}


def task(steps: int, per_step: int) -> Classification:
    batches = [(torch.randn(per_step, 9, 1), torch.arange(per_step) % 3) for _ in range(steps)]
    return Classification(batches, batches[:1])


def window(
    stop: dict[str, Any] = FLOW,
    *,
    steps: int = 10,
    per_step: int = 4,
    reference: str = "dense",
    source: str = "training",
    **settings: Any,
) -> tuple[int, list[str]]:
    """Return the window of a run of so many steps per pass, and the warnings about it."""
    method = {
        "name": "lth",
        "stop": stop,
        "reference": reference,
        "rewind": {"to": "warm-up"},
        "flow": {"source": source},
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = prepared(task(steps, per_step), network(9, 3), method=method, **settings)
    told = [str(one.message) for one in caught if "the last" in str(one.message)]
    assert all(one.category is InfcopWarning for one in caught if str(one.message) in told)
    assert set(told) <= set(run.record.warnings)
    return run.window, told


def at_least(passes: float, of: dict[str, Any] = FLOW) -> dict[str, Any]:
    return {"rule": "at-least", "passes": passes, "of": of}


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        (2048, 10),
        (None, 10),
        (40, 10),
        (39, 10),
        (36, 9),
        (33, 9),
        (2, 1),
    ],
)
def test_a_window_holds_the_examples_of_a_probe_but_is_no_longer_than_a_unit(
    examples: int | None, steps: int
) -> None:
    assert window(probe_examples=examples) == (steps, [])


@pytest.mark.parametrize(
    ("passes", "steps", "warned"),
    [
        (1.05, 1, True),
        (1.1, 1, True),
        (1.4, 4, True),
        (1.5, 5, False),
        (1.6, 4, True),
        (2, 10, False),
    ],
)
def test_the_shortest_stretch_before_a_reading_is_the_window_of_all(
    passes: float, steps: int, warned: bool
) -> None:
    """Half as long as usual is told of no more than the last stretch of a level is."""
    got, told = window(at_least(passes))
    assert got == steps
    assert len(told) == warned


def test_the_warning_says_what_is_lost_and_what_to_change() -> None:
    _, told = window(at_least(1.1), probe_examples=500)
    assert told == [
        "flow is read from the last 1 training steps before each reading instead of the 125 that "
        "hold probe_examples=500, since two readings are that close; let the passes that the stop "
        "rule names be multiples of levels.unit"
    ]


def test_a_probe_that_fits_into_the_shortest_stretch_is_whole_and_nobody_is_warned() -> None:
    assert window(at_least(1.3), probe_examples=12) == (3, [])


def test_parts_of_a_rule_count_wherever_they_are() -> None:
    stop = {"rule": "any-of", "rules": [{"rule": "fixed-budget", "passes": 2.3}, FLOW]}
    assert window(stop)[0] == 3


def test_the_least_passes_of_a_level_are_a_reading_too() -> None:
    assert window(levels={"min_passes": 1.2, "max_passes": 4})[0] == 2
    assert window(levels={"min_passes": 0, "max_passes": 4})[0] == 10


@pytest.mark.parametrize("of", [{"rule": "fixed-budget"}, {"rule": "accuracy-target"}])
def test_levels_that_read_no_flow_shorten_nothing(of: dict[str, Any]) -> None:
    assert window(at_least(1.1, of)) == (10, [])


def test_the_end_of_every_phase_is_read() -> None:
    """Units that do not divide it leave a short stretch there."""
    long = {"levels": {"max_passes": 3, "unit": 1.5, "min_passes": 1.5}, "probe_examples": None}
    whole = {"dense": {"passes": 6}, "final": {"passes": 3}, **long}
    assert window(**whole)[0] == 10
    assert window(**{**whole, "final": {"passes": 2}})[0] == 5
    assert window(**{**whole, "final": {"passes": 0}})[0] == 10
    assert window(**{**whole, "levels": {**long["levels"], "max_passes": 3.3}})[0] == 3


@pytest.mark.parametrize("reference", ["warm-up", "dense"])
@pytest.mark.parametrize("unit", [1.5, 3])
def test_the_dense_training_is_read_every_pass_so_no_window_is_longer(
    unit: float, reference: str
) -> None:
    settings: dict[str, Any] = {
        "levels": {"max_passes": 6, "unit": unit, "min_passes": unit},
        "dense": {"passes": 6, "warmup_passes": 2},
        "final": {"passes": 6},
    }
    assert window(reference=reference, probe_examples=None, **settings)[0] == 10


def test_steps_of_one_example_give_a_window_of_at_least_one_step() -> None:
    assert window(per_step=1, steps=3, probe_examples=2) == (2, [])
    assert window(steps=1, probe_examples=2) == (1, [])


def test_a_probe_has_no_window() -> None:
    assert window(at_least(1.1), source="probe") == (0, [])
