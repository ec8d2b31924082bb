from __future__ import annotations

import pytest

from infcop.core.study import StudyCell, StudyRow
from infcop.study.configure import resolve_comparison
from infcop.study.statistics import bootstrap_interval, estimate
from infcop.study.summary import summarise
from tests.reference.studies import comparison, make_row, make_study

CONFIG = resolve_comparison(comparison(densities=[0.05]))


def row(method: str, seed: int, accuracy: float, cost: float, **changes: object) -> StudyRow:
    """Return a row with these numbers; ``cost`` in dense trainings."""
    made = make_row("digits", method, seed, 0.05)
    spent = made.cost.model_copy(update={"total": round(1000 * cost)})
    metrics = {"sparse": {"accuracy": accuracy}, "dense": {"accuracy": 0.9}}
    numbers = {"cost": spent, "cost_vs_dense": cost, "seconds": 10 * cost}
    return made.model_copy(update=metrics | numbers | changes)


def cells_of(rows: list[StudyRow]) -> dict[str, StudyCell]:
    return {cell.method: cell for cell in summarise(CONFIG, rows)}


def test_differences_and_ratios_are_paired_by_seed() -> None:
    lth = [row("lth", seed, value, 10 + seed) for seed, value in enumerate((0.80, 0.84, 0.88))]
    gains, costs = (0.01, 0.03, 0.02), (2.0, 1.1, 3.0)
    shock = [row("shock", s, lth[s].main + gains[s], costs[s]) for s in (2, 0, 1)]
    cells = cells_of([*shock, *lth])
    cell = cells["shock"]
    assert cell.difference is not None
    assert cell.difference.mean == pytest.approx(0.02)
    # The seeds scatter by 4 points, their differences by one: pairing is what shows it.
    assert cell.difference.half_width == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    ratios = [2.0 / 10, 1.1 / 11, 3.0 / 12]
    assert cell.cost_vs_baseline == estimate([ratios[2], ratios[0], ratios[1]])
    assert cell.seconds_vs_baseline is not None
    assert cell.seconds_vs_baseline.mean == pytest.approx(sum(ratios) / 3)
    assert cell.bootstrap == bootstrap_interval([s.main - lth[s.seed].main for s in shock])
    assert cells["lth"].difference is None
    assert cells["lth"].cost_vs_baseline is None
    assert cells["lth"].main.mean == pytest.approx(0.84)


def test_a_seed_that_only_one_has_is_left_out_of_the_difference() -> None:
    cells = cells_of(
        [
            *(row("lth", seed, 0.8, 10) for seed in (0, 1)),
            *(row("shock", seed, value, 2) for seed, value in ((0, 0.9), (1, 0.9), (2, 0.1))),
        ]
    )
    assert cells["shock"].seeds == 3
    assert cells["shock"].difference is not None
    assert cells["shock"].difference.mean == pytest.approx(0.1)
    assert not cells["lth"].pareto, "it lacks a seed"


def test_without_a_common_seed_there_is_no_difference() -> None:
    cells = cells_of([row("lth", 0, 0.8, 10), row("shock", 1, 0.9, 2)])
    assert cells["shock"].difference is None
    assert cells["shock"].bootstrap is None


@pytest.mark.parametrize("higher", [True, False])
def test_the_pareto_line_goes_by_direction(higher: bool) -> None:
    sign = 1 if higher else -1
    numbers = {"lth": (0.9, 10.0), "cheap": (0.8, 2.0), "worse": (0.7, 5.0), "same": (0.8, 2.0)}
    methods = {label: {"method": "lth"} for label in numbers}
    config = resolve_comparison(comparison(densities=[0.05], methods=methods))
    rows = [
        row(label, seed, sign * value, cost, higher_is_better=higher)
        for label, (value, cost) in numbers.items()
        for seed in range(3)
    ]
    on_line = {cell.method: cell.pareto for cell in summarise(config, rows)}
    assert on_line == {"lth": True, "cheap": True, "worse": False, "same": True}


def test_cells_come_in_the_order_of_the_settings() -> None:
    study = make_study(settings={"b": {}, "a": {}})
    places = [(cell.setting, cell.density, cell.method) for cell in study.cells]
    assert places == [
        (setting, density, method)
        for setting in ("b", "a")
        for density in (0.2, 0.05)
        for method in ("lth", "shock")
    ]


def test_the_cost_of_levels_is_held_against_the_target() -> None:
    fixed = {"method": "lth", "equal_cost_to": "shock"}
    methods = {**comparison()["methods"], "fixed": fixed}
    config = resolve_comparison(comparison(densities=[0.05], methods=methods))
    rows = [make_row("digits", m, seed, 0.05) for m in ("lth", "shock", "fixed") for seed in (0, 1)]
    cell = summarise(config, rows)[2]
    assert cell.method == "fixed"
    ratios = [rows[4 + seed].cost.levels / rows[2].cost.levels for seed in (0, 1)]
    assert cell.levels_cost_vs_target is not None
    assert cell.levels_cost_vs_target.mean == pytest.approx(sum(ratios) / 2)
