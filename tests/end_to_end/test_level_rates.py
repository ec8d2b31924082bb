"""The learning rate of every step of whole searches, against arithmetic done by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

import infcop
from infcop.errors import InfcopWarning
from tests.end_to_end.conftest import SHORT, Search

STEPS = 6
"""Of a pass over the toy problem."""

RECIPE = {"lr": 0.1, "schedule": "cosine", "lr_end_fraction": 0.1}


def cosine(place: float, horizon: float) -> float:
    return 0.1 * (0.1 + 0.9 * (1 + math.cos(math.pi * min(place / horizon, 1))) / 2)


def falling(start: float, passes: int, warmup: float = 0.0) -> list[float]:
    steps = [step / (STEPS * passes) for step in range(STEPS * passes)]
    rising = [max((1 - math.cos(math.pi * u / warmup)) / 2, 0.01) for u in steps if u < warmup]
    return [start * r for r in rising] + [
        start * (1 - u) / (1 - warmup) for u in steps if u >= warmup
    ]


def method(rate: dict[str, Any], **axes: Any) -> dict[str, Any]:
    return {**SHORT["method"], "rewind": {"to": "none"}, "rate": rate, **axes}


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ({"kind": "constant", "fraction": 0.5}, [0.05] * 12),
        ({"kind": "restart"}, [cosine(step / STEPS, 2) for step in range(12)]),
        ({"kind": "restart", "schedule": "constant"}, [0.1] * 12),
        ({"kind": "linear", "start": "peak", "warmup": 0.25}, falling(0.1, 2, warmup=0.25)),
    ],
    ids=["constant", "restart", "restart of another", "linear"],
)
def test_every_level_trains_at_the_rate_of_its_method(
    search: Search, rates: list[list[float]], rate: dict[str, Any], expected: list[float]
) -> None:
    search(density=0.3, method=method(rate), dense={"passes": 4}, training=RECIPE)
    dense, *levels, final = rates
    assert dense == pytest.approx([cosine(step / STEPS, 4) for step in range(24)])
    assert len(levels) >= 2
    for level in levels:
        assert level == pytest.approx(expected)
    # The final training keeps its own schedule.
    assert final[0] == pytest.approx(0.1)


def test_a_fixed_budget_is_what_a_line_falls_over(search: Search, rates: list[list[float]]) -> None:
    rate = {"kind": "linear", "start": "peak", "warmup": 0}
    stop = {"rule": "fixed-budget", "passes": 1}
    search(density=0.6, method=method(rate, stop=stop), training=RECIPE)
    assert rates[1] == pytest.approx(falling(0.1, 1))


def test_an_adaptive_rate_starts_at_what_the_record_says_was_pruned(
    search: Search, rates: list[list[float]]
) -> None:
    rate = {"kind": "linear", "warmup": 0}
    result = search(density=0.2, method=method(rate), dense={"passes": 20}, training=RECIPE)
    levels = result.record.levels
    assert len(levels) >= 3
    starts = set()
    for level, seen in zip(levels, rates[1:], strict=False):
        damage = level.pruned_norm / math.sqrt(level.removed / (level.removed + level.kept))
        assert 0 < damage <= 1
        assert seen == pytest.approx(falling(0.1 * max(damage, 2 / 20), 2))
        starts.add(seen[0])
    assert len(starts) == len(levels)


@pytest.mark.parametrize("passes", [0, 3])
@pytest.mark.parametrize(
    ("schedule", "count"),
    [({"kind": "cubic", "levels": 4}, 4), ({"kind": "fraction", "remove": 0.4}, 3)],
)
def test_one_run_comes_down_once_over_levels_and_final_training(
    search: Search,
    rates: list[list[float]],
    schedule: dict[str, Any],
    count: int,
    passes: int,
) -> None:
    result = search(
        density=0.216,
        method=method({"kind": "one-run"}, schedule=schedule),
        levels={"max_passes": 1, "min_passes": 0.5},
        training=RECIPE,
        final={"passes": passes},
    )
    assert len(result.record.levels) == count
    horizon = count + passes
    seen = [rate for part in rates[1:] for rate in part]
    assert seen == pytest.approx([cosine(k / STEPS, horizon) for k in range(STEPS * horizon)])


def test_one_run_counts_the_steps_of_levels_that_are_no_whole_pass(
    search: Search, rates: list[list[float]]
) -> None:
    """A quarter of a pass of six steps is two of them, a third of a pass."""
    search(
        density=0.5,
        method=method({"kind": "one-run"}, schedule={"kind": "cubic", "levels": 3}),
        levels={"max_passes": 0.25, "min_passes": 0},
        training=RECIPE,
        final={"passes": 1},
    )
    assert [len(part) for part in rates[1:]] == [2, 2, 2, 6]
    seen = [rate for part in rates[1:] for rate in part]
    assert seen == pytest.approx([cosine(k / STEPS, 2) for k in range(12)])


@pytest.mark.parametrize("name", ["bimp", "gmp", "lr-rewind", "lth-rewind"])
def test_a_schedule_that_came_down_matters_only_to_who_follows_it(
    search: Search, name: str
) -> None:
    search(method=name, training={"lr": 0.1, "schedule": "cosine"}, levels={"max_passes": 1})


def test_fine_tuning_at_the_end_of_a_cosine_is_warned_of(search: Search) -> None:
    with pytest.warns(InfcopWarning, match="set method.rate.kind to"):
        search(method="fine-tune", training={"lr": 0.1, "schedule": "cosine"})


def test_one_run_goes_down_the_same_way_after_an_early_end(search: Search) -> None:
    """Levels that a guard cuts off are not counted on."""
    with pytest.warns(InfcopWarning, match=r"levels\.max_levels is 2"):
        result: infcop.Result = search(
            density=0.1,
            method=method({"kind": "one-run"}),
            levels={"max_passes": 1, "max_levels": 2},
            training=RECIPE,
        )
    assert len(result.record.levels) == 2
