from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from infcop.core.config import TrainingConfig
from infcop.training.recipe import build_optimizer, learning_rate

SCHEDULES = ("constant", "step", "cosine", "one-cycle")
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def rates(recipe: TrainingConfig, places: list[float], horizon: float) -> list[float]:
    return [learning_rate(recipe, place, horizon) for place in places]


@pytest.mark.parametrize(
    ("schedule", "settings", "places", "expected"),
    [
        ("constant", {}, [0, 3, 10], [0.4, 0.4, 0.4]),
        # default milestones: half and three quarters, each dividing by ten
        ("step", {}, [0, 4.99, 5, 7.49, 7.5, 10], [0.4, 0.4, 0.04, 0.04, 0.004, 0.004]),
        ("step", {"milestones": (0.2,), "step_factor": 0.5}, [1.9, 2, 9], [0.4, 0.2, 0.2]),
        ("step", {"milestones": ()}, [0, 9], [0.4, 0.4]),
        # from 1 to e = 1/2: the middle is their mean, a third of the way cos(pi/3) = 1/2
        (
            "cosine",
            {"lr_end_fraction": 0.5},
            [0, 10 / 3, 5, 10],
            [0.4, 0.4 * 0.875, 0.4 * 0.75, 0.2],
        ),
        # 1/25 of the peak at first, the mean of both half way up, the peak at 30 %
        (
            "one-cycle",
            {"lr_end_fraction": 0.5},
            [0, 1.5, 3, 6.5, 10],
            [0.4 / 25, 0.4 * 26 / 50, 0.4, 0.4 * 0.75, 0.2],
        ),
    ],
)
def test_rates_by_hand(schedule, settings, places, expected) -> None:
    recipe = TrainingConfig(lr=0.4, schedule=schedule, **settings)
    assert rates(recipe, places, 10) == pytest.approx(expected, rel=1e-12)


@every_schedule
def test_a_schedule_stays_at_its_last_value(schedule) -> None:
    recipe = TrainingConfig(lr=0.4, schedule=schedule)
    end = learning_rate(recipe, 8, 8)
    assert rates(recipe, [8.001, 9, 1000], 8) == pytest.approx([end] * 3, rel=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_curves_are_continuous(schedule) -> None:
    recipe = TrainingConfig(lr=1.0, schedule=schedule)
    values = rates(recipe, [k / 1000 for k in range(1101)], 1)
    steepest = math.pi / 2 / 0.3 / 1000
    assert max(abs(a - b) for a, b in pairwise(values)) < steepest * 1.01
    assert min(values) > 0


def test_warmup_is_linear_and_then_gone() -> None:
    recipe = TrainingConfig(lr=0.4, lr_warmup_passes=2)
    assert rates(recipe, [0.5, 1, 1.5, 2, 3], 10) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert learning_rate(recipe, 0, 10) == pytest.approx(0.004), "not zero: the step would be lost"


@every_schedule
def test_warmup_multiplies_every_schedule(schedule) -> None:
    plain = TrainingConfig(lr=0.4, schedule=schedule)
    warm = TrainingConfig(lr=0.4, schedule=schedule, lr_warmup_passes=4)
    for place in (0.0, 0.02, 1, 2, 3.999, 4, 9):
        factor = max(place / 4, 0.01) if place < 4 else 1
        expected = learning_rate(plain, place, 10) * factor
        assert learning_rate(warm, place, 10) == pytest.approx(expected, rel=1e-12)


@every_schedule
@settings(deadline=None, max_examples=40)
@given(place=st.floats(0, 50), horizon=st.floats(0.1, 40), warmup=st.floats(0, 5))
def test_rates_are_positive_and_at_most_the_peak(schedule, place, horizon, warmup) -> None:
    recipe = TrainingConfig(lr=0.4, schedule=schedule, lr_warmup_passes=warmup)
    assert 0 < learning_rate(recipe, place, horizon) <= 0.4 * (1 + 1e-12)


@pytest.mark.parametrize("steps_per_pass", [3, 7, 10, 49, 391])
@pytest.mark.parametrize("tenths", [1, 2, 5])
def test_a_milestone_falls_on_its_step(steps_per_pass, tenths) -> None:
    """Also where the rounded place of the step lies just below the milestone."""
    recipe = TrainingConfig(lr=1.0, schedule="step", milestones=(tenths / 10,))
    horizon = 7
    for step in range(horizon * steps_per_pass):
        rate = learning_rate(recipe, step / steps_per_pass, horizon)
        passed = 10 * step >= tenths * horizon * steps_per_pass
        assert rate == pytest.approx(0.1 if passed else 1.0)


def test_another_schedule_and_peak_replace_those_of_the_recipe() -> None:
    recipe = TrainingConfig(lr=0.4, schedule="constant", lr_end_fraction=0.5)
    assert learning_rate(recipe, 10, 10, schedule="cosine") == pytest.approx(0.2)
    assert learning_rate(recipe, 10, 10, peak=0.1) == pytest.approx(0.1)
    assert learning_rate(recipe, 10, 10, schedule="cosine", peak=0.1) == pytest.approx(0.05)


def test_sgd_is_built_as_the_recipe_says() -> None:
    recipe = TrainingConfig(lr=0.3, momentum=0.7, weight_decay=0.01)
    optimizer = build_optimizer(nn.Linear(2, 2).parameters(), recipe)
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.7, 0.01)
    assert not group["nesterov"]
    assert len(group["params"]) == 2


def test_adamw_takes_the_momentum_as_its_first_beta() -> None:
    recipe = TrainingConfig(optimizer="adamw", lr=0.3, momentum=0.7, weight_decay=0.01)
    optimizer = build_optimizer(nn.Linear(2, 2).parameters(), recipe)
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.3, (0.7, 0.999), 0.01)


def test_frozen_parameters_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = build_optimizer(layer.parameters(), TrainingConfig())
    assert [p is layer.weight for p in optimizer.param_groups[0]["params"]] == [True]
