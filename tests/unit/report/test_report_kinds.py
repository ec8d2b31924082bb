"""Pages of searches that evaluate less, train less, stop for other reasons, or give more."""

from __future__ import annotations

import json

import pytest

from infcop.core.records import (
    Cost,
    LevelRecord,
    Milestone,
    Reading,
    RunRecord,
    StopDecision,
    StopReason,
)
from infcop.report.page import render_report
from infcop.report.spending import dense_main, main_after_pruning, main_at_end
from infcop.report.summary import milestone_line, summary_dict, summary_lines
from infcop.report.tables import level_table, network_table
from infcop.report.words import SHORT_REASONS
from tests.reference.pages import Page
from tests.reference.records import make_record


def page_of(record: RunRecord) -> Page:
    return Page(render_report(record, "runs/first"))


# -- readings without metrics ----------------------------------------------------------------------


def silent(reading: Reading) -> Reading:
    return reading.model_copy(update={"main": None, "metrics": {}})


def evaluated_at_ends(record: RunRecord) -> RunRecord:
    """Return the record of the same search with metrics at the last reading of a phase only."""

    def ends(readings: tuple[Reading, ...]) -> dict[str, tuple[Reading, ...]]:
        return {"readings": (*map(silent, readings[:-1]), readings[-1])}

    assert record.final is not None
    return record.model_copy(
        update={
            "dense": record.dense.model_copy(update=ends(record.dense.readings)),
            "levels": tuple(x.model_copy(update=ends(x.readings)) for x in record.levels),
            "final": record.final.model_copy(update=ends(record.final.readings)),
        }
    )


def test_what_was_not_evaluated_is_said_to_be_so() -> None:
    often, rare = make_record(), evaluated_at_ends(make_record())
    assert dense_main(rare) == dense_main(often)
    for level, other in zip(rare.levels, often.levels, strict=True):
        assert main_after_pruning(level) is None
        assert main_at_end(level) == main_at_end(other)
    rows = level_table(rare).rows
    assert [row[4] for row in rows] == [""] + ["not measured"] * len(rare.levels)
    assert [row[5] for row in rows] == [row[5] for row in level_table(often).rows]
    page = page_of(rare)
    assert "The worst value at the end of a level is" in page.text
    assert "The worst value right after pruning" not in page.text
    assert len(page.figures) == len(page_of(often).figures)
    assert json.dumps(summary_dict(rare), allow_nan=False)


def test_nothing_evaluated_at_all_leaves_the_figure_out() -> None:
    record = make_record(finished=False)
    levels = tuple(
        level.model_copy(update={"readings": tuple(map(silent, level.readings))})
        for level in record.levels
    )
    text = page_of(record.model_copy(update={"levels": levels})).text
    assert "no level has been evaluated on held-out data" in text


# -- levels without training, and other reasons ----------------------------------------------------


def untrained(level: LevelRecord) -> LevelRecord:
    """Return a level that ended at the reading right after its pruning."""
    decision = StopDecision(
        stop=True,
        reason=StopReason.UNDISTURBED,
        evidence={"distance": 0.1, "threshold": 0.3, "passes": 0.0, "budget": 0.01},
    )
    pruned = level.readings[0]
    read = pruned.model_copy(update={"phase": "level", "cost": Cost(), "decision": decision})
    changes = {"stopped_by": decision, "readings": (pruned, read), "cost": pruned.cost}
    return level.model_copy(update={**changes, "rewound_to": "none"})


def test_a_level_without_training_is_named() -> None:
    record = make_record()
    first = untrained(record.levels[0])
    record = record.model_copy(update={"levels": (first, *record.levels[1:])})
    cells = level_table(record).rows[1]
    assert cells[3] == "0"
    assert cells[4] == cells[5]
    assert cells[6] == (
        "Pruning has hardly disturbed the flow (distance 0.100 < 0.300, passes 0 of 0.010)."
    )
    text = page_of(record).text
    assert "stopped without training, pruning has hardly disturbed the flow" in text
    assert "flow undisturbed (1)" in text


def test_smaller_networks_that_were_trained_are_counted() -> None:
    record = make_record()
    assert "parameters trained" not in level_table(record).headings
    first, *others = record.levels
    levels = (first, others[0].model_copy(update={"trained_parameters": 1234}), *others[1:])
    table = level_table(record.model_copy(update={"levels": levels}))
    place = table.headings.index("parameters trained")
    whole = f"{record.model.parameters:,}"
    assert [row[place] for row in table.rows[:3]] == [whole, whole, "1,234"]
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert table.headings[max(table.text)] == "why it stopped"


def test_a_search_without_any_training_of_levels_has_a_page() -> None:
    record = make_record()
    record = record.model_copy(update={"levels": tuple(map(untrained, record.levels))})
    page = page_of(record)
    assert "Each took 0 passes." in page.text
    assert "flow undisturbed (6)" in "\n".join(summary_lines(record))
    assert summary_dict(record)["passes"]["levels"] == 0


@pytest.mark.parametrize("reason", StopReason)
def test_every_reason_can_be_told_and_drawn(reason: StopReason) -> None:
    record = make_record(levels=2)
    last = record.levels[-1]
    decision = StopDecision(stop=True, reason=reason, evidence={"passes": 1.0, "budget": 1.0})
    record = record.model_copy(
        update={"levels": (record.levels[0], last.model_copy(update={"stopped_by": decision}))}
    )
    page = page_of(record)
    sentence = reason.sentence
    assert f"{sentence[0].upper()}{sentence[1:]} (passes 1 of 1)." in page.text
    assert f"{SHORT_REASONS[reason]} (" in page.text
    bars = next(figure for figure in page.figures if figure["key"] == "passes")
    assert SHORT_REASONS[reason] in [trace["name"] for trace in bars["data"]]  # type: ignore[attr-defined]


# -- milestones ------------------------------------------------------------------------------------


def with_milestones(record: RunRecord) -> RunRecord:
    """Return a record with one finished network on the way, and one that is being trained."""
    third, fifth = record.levels[2], record.levels[4]
    dense = record.dense.cost.training
    finished = Milestone(
        level=third.level,
        kept=third.kept,
        density=third.density,
        metrics={record.data.main_metric: 0.9512},
        # Twice the dense training, and half of it in evaluating: 3 d + 1.5 d forward passes more.
        cost=Cost(training=2 * dense, evaluating=3 * dense // 2),
    )
    training = Milestone(level=fifth.level, kept=fifth.kept, density=fifth.density)
    return record.model_copy(update={"milestones": (finished, training)})


def test_networks_on_the_way_have_a_table_with_the_last_one() -> None:
    record = with_milestones(make_record())
    table = network_table(record)
    assert table.headings == ("density", "weights kept", "test accuracy", "times dense training")
    first, second, last = table.rows
    assert first == ("26.9 %", f"{record.levels[2].kept:,}", "95.1 %", "2.50")
    assert second == ("11.3 %", f"{record.levels[4].kept:,}", "not measured", "")
    assert record.outcome is not None
    assert last[0] == "7.4 %"
    assert last[2] == f"{100 * record.outcome.sparse['accuracy']:.1f} %"
    page = page_of(record)
    assert "Networks of this search" in page.text
    assert "95.1 %" in page.text


def test_a_search_without_milestones_has_no_such_table() -> None:
    assert "Networks of this search" not in page_of(make_record()).text
    assert summary_dict(make_record())["milestones"] == []


def test_an_unfinished_search_shows_the_networks_there_are() -> None:
    record = with_milestones(make_record(finished=False))
    assert [row[0] for row in network_table(record).rows] == ["26.9 %", "11.3 %"]
    assert "Networks of this search" in page_of(record).text


def test_networks_on_the_way_are_in_the_summary() -> None:
    record = with_milestones(make_record())
    first, second = summary_dict(record)["milestones"]
    assert (first["level"], first["sparse"], first["search_cost"]) == (3, {"accuracy": 0.9512}, 2.5)
    assert (second["level"], second["sparse"], second["search_cost"]) == (5, {}, None)
    assert milestone_line(record, record.milestones[0]) == (
        "milestone, density 26.9 %: trained to the end, accuracy 95.1 %"
    )


def test_milestones_survive_json() -> None:
    record = with_milestones(make_record())
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
