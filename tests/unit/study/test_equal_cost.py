from __future__ import annotations

import pytest

from infcop.core.method import Adaptive, Fraction, MethodConfig, OneShot, Schedule
from infcop.study.equal_cost import equal_budget
from tests.reference.studies import TRAIN, make_row

ROWS = [make_row("s", "shock", seed, 0.05) for seed in range(3)]


@pytest.mark.parametrize(
    ("schedule", "levels"),
    # 0.8^13 is 5.5 % and 0.8^14 is 4.4 %; 0.5^4 is 6.3 % and 0.5^5 is 3.1 %.
    [(Fraction(remove=0.2), 14), (Fraction(remove=0.5), 5), (OneShot(), 1)],
)
def test_the_budget_costs_what_the_target_costs(schedule: Schedule, levels: int) -> None:
    cost = sum(row.cost.levels_training + row.cost.levels_measuring for row in ROWS) / 3
    budget = equal_budget(ROWS, MethodConfig(name="mine", schedule=schedule), 100)
    assert budget * levels * 3 * TRAIN == pytest.approx(cost, rel=1e-5)


def test_a_target_without_any_cost_leaves_the_smallest_budget() -> None:
    free = {"levels_training": 0, "levels_measuring": 0, "levels_evaluating": 0}
    row = ROWS[0].model_copy(update={"cost": ROWS[0].cost.model_copy(update=free)})
    assert 0 < equal_budget([row], MethodConfig(name="mine"), 100) < 1e-3


def test_an_adaptive_schedule_has_no_equal_budget() -> None:
    with pytest.raises(AssertionError, match="adaptive"):
        equal_budget(ROWS, MethodConfig(name="mine", schedule=Adaptive()), 100)
