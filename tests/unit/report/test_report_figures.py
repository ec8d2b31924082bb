from __future__ import annotations

import math

import pytest

from infcop.core.records import StopDecision, StopReason
from infcop.report.drawing import Figure, Omitted, thinned
from infcop.report.figure_accuracy import accuracy_figure
from infcop.report.figure_density import density_figure
from infcop.report.figure_distance import distance_figure
from infcop.report.figure_flow import flow_figures
from infcop.report.figure_passes import passes_figure
from infcop.report.figures import all_figures
from infcop.report.heat import Grid, heat_map
from infcop.report.spending import kept_per_layer
from infcop.report.words import number
from tests.reference.records import make_record


def drawn(figure: Figure | Omitted) -> Figure:
    assert isinstance(figure, Figure)
    return figure


def trace(figure: Figure, name: str):
    return next(trace for trace in figure.plot.data if trace.name == name)


def test_every_figure_says_what_it_shows() -> None:
    record = make_record(flow="both")
    figures = [drawn(figure) for figure in all_figures(record)]
    assert [figure.key for figure in figures] == [
        "accuracy",
        "passes",
        "information-signed",
        "gradient-norm",
        "distance",
        "density",
    ]
    for figure in figures:
        assert figure.finding.endswith(".")
        assert figure.reading.endswith(".")
        assert all(len(row) == len(figure.table.headings) for row in figure.table.rows)


def test_accuracy_is_drawn_against_density() -> None:
    record = make_record(levels=4)
    figure = drawn(accuracy_figure(record))
    pruned = trace(figure, "right after pruning")
    assert pruned.x == tuple(100 * level.density for level in record.levels)
    assert pruned.y == tuple(100 * level.readings[0].main for level in record.levels)
    ends = trace(figure, "at the end of the level")
    assert ends.y == tuple(100 * level.readings[-1].main for level in record.levels)
    assert record.final is not None
    assert trace(figure, "after the final training").y == (100 * record.final.readings[-1].main,)


def test_the_worst_value_follows_the_metrics_direction() -> None:
    for higher in (True, False):
        record = make_record(metric="score", higher_is_better=higher)
        values = [level.readings[0].main for level in record.levels]
        worst = min(values) if higher else max(values)
        assert f"right after pruning is {number(worst)}" in drawn(accuracy_figure(record)).finding


@pytest.mark.parametrize("remove", [0.01, 0.2, 0.9])
def test_density_axis_has_few_ticks_inside_its_range(remove: float) -> None:
    record = make_record(levels=5, remove=remove)
    axis = drawn(accuracy_figure(record)).plot.layout.xaxis
    left, right = axis.range
    assert left > right
    assert 1 <= len(axis.tickvals) <= 7
    assert all(right <= math.log10(tick) <= left for tick in axis.tickvals)


def test_bars_are_grouped_by_reason() -> None:
    record = make_record()
    figure = drawn(passes_figure(record))
    flow, budget = trace(figure, "flow has come back"), trace(figure, "budget used up")
    assert flow.x == (1, 2, 3, 4, 5)
    assert budget.x == (6,)
    assert dict(zip(flow.x + budget.x, flow.y + budget.y, strict=True)) == {
        level.level: level.passes for level in record.levels
    }
    assert flow.marker.color != budget.marker.color
    assert flow.marker.pattern.shape != budget.marker.pattern.shape
    assert trace(figure, "full budget").y == (8.0, 8.0)


def test_a_level_in_training_has_its_own_bar() -> None:
    figure = drawn(passes_figure(make_record(levels=3, finished=False)))
    assert trace(figure, "still training").x == (3,)


def test_the_full_budget_saves_nothing_and_all_levels_are_alike() -> None:
    finding = drawn(passes_figure(make_record(flow="none"))).finding
    assert "6 levels took 48 training passes, all of the full budget. Each took 8 passes" in finding


def test_flow_has_the_dense_reference_as_first_row() -> None:
    record = make_record(flow="information")
    (figure,) = map(drawn, flow_figures(record))
    heat = figure.plot.data[0]
    assert record.reference is not None
    assert tuple(heat.z[0]) == record.reference.flows["information.signed"]
    assert tuple(heat.z[3]) == record.levels[2].readings[-1].flows["information.signed"]
    assert figure.plot.layout.yaxis.ticktext[0] == "dense"
    assert figure.plot.layout.yaxis.autorange == "reversed"


def test_absolute_information_stands_in_for_signed() -> None:
    record = make_record(flow="information")

    def only_absolute(reading):
        flows = {"information.absolute": reading.flows["information.absolute"]}
        return reading.model_copy(update={"flows": flows})

    levels = tuple(
        level.model_copy(update={"readings": tuple(map(only_absolute, level.readings))})
        for level in record.levels
    )
    reference = only_absolute(record.reference)
    record = record.model_copy(update={"levels": levels, "reference": reference})
    assert [drawn(figure).key for figure in flow_figures(record)] == ["information-absolute"]


def test_values_that_are_not_finite_are_gaps_and_counted() -> None:
    record = make_record(flow="both", not_finite=True)
    information, gradient = map(drawn, flow_figures(record))
    for figure in (information, gradient):
        assert figure.plot.data[0].z[2][0] is None
        assert "1 value is not finite and left blank" in figure.finding
    assert "without a finite distance" in drawn(distance_figure(record)).finding


def test_flow_without_names_is_numbered() -> None:
    record = make_record(levels=2)
    record = record.model_copy(update={"model": record.model.model_copy(update={"edges": ()})})
    (figure,) = map(drawn, flow_figures(record))
    assert [row[1] for row in figure.table.rows] == ["1", "2"]


def test_distance_runs_over_all_levels() -> None:
    record = make_record(levels=3)
    figure = drawn(distance_figure(record))
    readings = [x for level in record.levels for x in level.readings if x.decision]
    assert len(figure.table.rows) == len(readings)
    stops = trace(figure, "level stops")
    ends = [sum(level.passes for level in record.levels[: n + 1]) for n in range(3)]
    assert stops.x == pytest.approx(ends)
    assert stops.y == tuple(
        level.readings[-1].decision.evidence["distance"] for level in record.levels
    )
    assert "at the last reading of 2 of 3 levels" in figure.finding


def test_distance_tells_when_the_first_reading_was_already_below() -> None:
    decision = StopDecision(
        stop=True, reason=StopReason.FLOW, evidence={"distance": 0.01, "threshold": 0.11}
    )
    record = make_record(levels=2)
    levels = tuple(
        level.model_copy(
            update={"readings": (level.readings[1].model_copy(update={"decision": decision}),)}
        )
        for level in record.levels
    )
    finding = drawn(distance_figure(record.model_copy(update={"levels": levels}))).finding
    assert "2 of 2 levels, and already at the first reading of 2" in finding


def test_density_of_layers_matches_the_accounting() -> None:
    record = make_record(levels=3)
    heat = drawn(density_figure(record)).plot.data[0]
    assert [*map(tuple, heat.z)] == list(zip(*kept_per_layer(record).values(), strict=True))


def test_figures_without_data_say_why() -> None:
    begun = all_figures(make_record(levels=0, flow="none", finished=False))
    assert all(isinstance(figure, Omitted) for figure in begun)
    fixed = all_figures(make_record(flow="none"))
    assert [x.heading for x in fixed if isinstance(x, Omitted)] == [
        "Flow per edge and level",
        "Distance of the flow from its reference",
    ]


def test_a_name_is_shown_as_it_is_written() -> None:
    grid = Grid(["<b>row</b>"], ["<i>a</i>", "b"], [[0.1, 0.2]], number)
    plot = heat_map(grid, x="x", y="y", diverging=False, ruled=False)
    assert list(plot.layout.xaxis.ticktext) == ["&lt;i&gt;a&lt;/i&gt;", "b"]
    assert list(plot.layout.yaxis.ticktext) == ["&lt;b&gt;row&lt;/b&gt;"]
    assert "<b>" not in plot.data[0].hovertext[0][0]


def test_many_columns_are_numbered_and_thinned() -> None:
    grid = Grid(
        [str(n) for n in range(20)],
        [f"layer{n}.conv" for n in range(62)],
        [[0.1 + n for n in range(62)] for _ in range(20)],
        number,
    )
    plot = heat_map(grid, x="x", y="y", diverging=False, ruled=True)
    assert len(plot.layout.xaxis.tickvals) <= 9
    assert plot.layout.xaxis.ticktext[:2] == ("1", "8")
    assert len(plot.layout.yaxis.tickvals) == 20
    assert plot.data[0].texttemplate is None
    # From 0.1 to 61.1 the logarithm is coloured.
    assert plot.data[0].zmin == pytest.approx(-1)


def test_a_signed_grid_is_centred_on_zero() -> None:
    grid = Grid(["a"], ["b", "c"], [[-0.1, 0.3]], number)
    heat = heat_map(grid, x="x", y="y", diverging=True, ruled=False).data[0]
    assert (heat.zmin, heat.zmax) == (-0.3, 0.3)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_grid_without_extent_can_be_drawn(value: float) -> None:
    for diverging in (True, False):
        grid = Grid(["a"], ["b"], [[value]], number)
        heat = heat_map(grid, x="x", y="y", diverging=diverging, ruled=False).data[0]
        assert heat.zmin < heat.zmax


@pytest.mark.parametrize("count", [1, 5, 12, 13, 100])
def test_ticks_are_thinned_evenly(count: int) -> None:
    labels = [str(place) for place in range(count)]
    ticks = thinned(labels, 12)
    assert len(ticks["tickvals"]) <= 12
    assert [labels[place] for place in ticks["tickvals"]] == ticks["ticktext"]
    assert len({b - a for a, b in zip(ticks["tickvals"], ticks["tickvals"][1:], strict=False)}) <= 1
