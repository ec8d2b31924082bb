from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.config import SearchConfig
from infcop.training.rates import (
    LevelFacts,
    adaptive_start,
    final_rate,
    level_rate,
    linear_rate,
)
from infcop.training.recipe import learning_rate

PLACES = (0.0, 0.4, 1.0, 1.9)


def config(rate: dict[str, Any], rewind: str = "none", **changes: Any) -> SearchConfig:
    """Return a search with a dense training of 8 passes at 0.4 and levels of 2."""
    axes = {"name": "mine", "rate": rate, "rewind": {"to": rewind}}
    recipe = {"lr": 0.4, "schedule": "cosine", "lr_end_fraction": 0.1}
    given = {"dense": {"passes": 8}, "levels": {"max_passes": 2}, "training": recipe, **changes}
    return SearchConfig.model_validate({"method": axes, **given})


def rates(chosen: SearchConfig, facts: LevelFacts | None = None) -> list[float]:
    return [level_rate(chosen, facts or LevelFacts(), place) for place in PLACES]


def cosine(place: float, horizon: float, peak: float = 0.4, end: float = 0.1) -> float:
    half = (1 + math.cos(math.pi * min(place / horizon, 1))) / 2
    return peak * (end + (1 - end) * half)


# -- the kinds -----------------------------------------------------------------------------------


def test_the_dense_schedule_goes_on_from_where_the_rewind_restores() -> None:
    chosen = config({"kind": "schedule"}, "epoch")
    assert rates(chosen, LevelFacts(start=3)) == pytest.approx([cosine(3 + p, 8) for p in PLACES])
    assert rates(chosen, LevelFacts(start=8)) == pytest.approx([0.04] * 4)


def test_a_constant_rate_is_a_fraction_of_that_of_the_recipe() -> None:
    assert rates(config({"kind": "constant", "fraction": 0.25})) == pytest.approx([0.1] * 4)


def test_a_restarted_schedule_is_as_long_as_the_level() -> None:
    chosen = config({"kind": "restart"}, "learning-rate")
    assert rates(chosen) == pytest.approx([cosine(p, 2) for p in PLACES])


def test_another_schedule_can_be_restarted() -> None:
    chosen = config({"kind": "restart", "schedule": "step"})
    # The milestones lie at a half and three quarters: after 1 and 1.5 of 2 passes.
    assert rates(chosen) == pytest.approx([0.4, 0.4, 0.04, 0.004])


def test_a_restarted_schedule_shrinks_its_warm_up_too() -> None:
    recipe = {"lr": 0.4, "lr_warmup_passes": 4}
    chosen = config({"kind": "restart"}, training=recipe)
    assert rates(chosen) == pytest.approx([0.004, 0.16, 0.4, 0.4])


def test_a_full_budget_restarts_exactly_the_dense_schedule() -> None:
    chosen = config({"kind": "restart"}, levels={"max_passes": 8})
    for place in (*PLACES, 5.0, 7.9):
        assert level_rate(chosen, LevelFacts(start=8), place) == learning_rate(
            chosen.training, place, 8
        )


def test_a_line_falls_from_the_peak_to_nothing() -> None:
    chosen = config({"kind": "linear", "start": "peak", "warmup": 0})
    assert rates(chosen) == pytest.approx([0.4, 0.4 * 0.8, 0.4 * 0.5, 0.4 * 0.05])


def test_a_line_rises_first_along_a_half_cosine() -> None:
    chosen = config({"kind": "linear", "start": "peak", "warmup": 0.5})
    expected = [0.004, 0.4 * (1 - math.cos(math.pi * 0.4)) / 2, 0.4, 0.4 * 0.1]
    assert rates(chosen) == pytest.approx(expected)


def test_an_adaptive_line_starts_where_pruning_and_budget_say() -> None:
    chosen = config({"kind": "linear", "warmup": 0})
    # 0.15 of the norm with a quarter of the weights: 0.3, above the 2/8 of the budget.
    facts = LevelFacts(pruned_norm=0.15, pruned_fraction=0.25)
    assert rates(chosen, facts) == pytest.approx([0.12, 0.12 * 0.8, 0.12 * 0.5, 0.12 * 0.05])
    facts = LevelFacts(pruned_norm=0.1, pruned_fraction=0.25)
    assert rates(chosen, facts)[0] == pytest.approx(0.1), "the budget, above 0.2"


def test_one_run_is_the_final_schedule_over_everything() -> None:
    chosen = config({"kind": "one-run"}, final={"passes": 4, "lr": 0.2})
    # Five levels of 2 passes and 4 final ones; the third level begins after 4.
    expected = [cosine(4 + place, 14, peak=0.2) for place in PLACES]
    assert rates(chosen, LevelFacts(before=4, run_passes=14)) == pytest.approx(expected)
    final = [final_rate(chosen, p, LevelFacts(before=10, run_passes=14)) for p in (0, 1, 4)]
    assert final == pytest.approx([cosine(10 + place, 14, peak=0.2) for place in (0, 1, 4)])
    assert final[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["schedule", "constant", "restart", "linear"])
def test_otherwise_the_final_training_has_a_schedule_of_its_own(kind: str) -> None:
    chosen = config({"kind": kind}, final={"passes": 4, "lr": 0.2})
    facts = LevelFacts(before=10, run_passes=14)
    found = [final_rate(chosen, place, facts) for place in (0, 2, 4)]
    assert found == pytest.approx([cosine(place, 4, peak=0.2) for place in (0, 2, 4)])


# -- adaptive_start ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "fraction", "length", "expected"),
    [
        # norm / sqrt(fraction) against the length of the retraining, the larger of the two
        (0.2, 0.64, 0.1, 0.25),
        (0.2, 0.64, 0.3, 0.3),
        (0.9, 0.81, 0.1, 1.0),
        (0.0, 0.2, 0.125, 0.125),
        (0.0, 0.2, 3.0, 1.0),
        (0.3, 1.0, 0.0, 0.3),
    ],
)
def test_adaptive_starts_by_hand(
    norm: float, fraction: float, length: float, expected: float
) -> None:
    assert adaptive_start(norm, fraction, length) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=100)
@given(st.floats(0, 1), st.floats(1e-6, 1), st.floats(0, 10))
def test_an_adaptive_start_is_a_fraction_and_at_least_the_length(
    norm: float, fraction: float, length: float
) -> None:
    assert min(length, 1.0) <= adaptive_start(norm, fraction, length) <= 1


# -- linear_rate ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(warmup=st.floats(0, 0.9), steps=st.integers(2, 400))
def test_a_line_gives_every_step_a_rate(warmup: float, steps: int) -> None:
    found = [linear_rate(0.4, step / steps, warmup) for step in range(steps)]
    assert all(0 < rate <= 0.4 for rate in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
