from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from infcop.core.records import LevelRecord, Reading, RunRecord, StopDecision, StopReason
from infcop.report.decisions import compared_distance, evidence_text, reasons_text, stop_counts
from infcop.report.summary import decision_line, summary_dict, summary_lines
from infcop.report.words import change, duration, metric, number, passes, percent
from tests.reference.records import make_record


def level(passes: float, decision: StopDecision | None) -> LevelRecord:
    return LevelRecord(
        level=3,
        kept=512,
        density=0.512,
        kept_per_layer={"fc.weight": 512},
        removed=128,
        rewound_to="epoch",
        readings=(Reading(phase="level", level=3, passes=passes),),
        stopped_by=decision,
    )


def stop(reason: StopReason, **evidence: float) -> StopDecision:
    return StopDecision(stop=True, reason=reason, evidence=evidence)


def test_the_result_in_words() -> None:
    record = make_record(levels=6)
    assert record.outcome is not None
    dense, sparse = record.outcome.dense["accuracy"], record.outcome.sparse["accuracy"]
    lines = summary_lines(record)
    assert lines[0] == f"Dense network: {100 * dense:.1f} % test accuracy"
    assert lines[1] == (
        f"Sparse network: 7.4 % of 50,200 weights kept, {100 * sparse:.1f} % "
        f"({100 * (sparse - dense):+.1f} points)"
    )
    assert lines[2] == (
        "Training: 36.5 passes (8 dense, 20.5 in 6 levels, 8 final); "
        "the full budget would have been 64"
    )
    assert lines[3] == "Why levels stopped: flow has come back (5), budget used up (1)"
    assert lines[4].startswith("Whole search: 6.0 times the work of training the dense network")
    assert lines[5] == "Warnings: 1, the first: the data loader shuffles with its own generator"


def test_an_unfinished_run_says_so_first() -> None:
    lines = summary_lines(make_record(levels=3, finished=False))
    assert lines[0].startswith("Unfinished")
    assert "Weights kept so far: 26.9 %" in lines
    assert not any("full budget" in line for line in lines)
    assert "unfinished (1)" in reasons_text(make_record(levels=3, finished=False))


def test_a_run_that_has_only_begun() -> None:
    record = RunRecord(
        config={}, versions={}, hardware={}, model=make_record().model, data=make_record().data
    )
    assert summary_lines(record) == [
        "Unfinished: the run was interrupted or is still going on; run it again to go on",
        "Training: 0 passes (0 dense)",
    ]
    assert summary_dict(record)["density"] == 1.0


@pytest.mark.parametrize(
    ("spent", "decision", "ending"),
    [
        (
            1.25,
            stop(StopReason.FLOW, distance=0.04, threshold=0.11),
            "stopped after 1.25 passes, the flow has come back to that of the reference "
            "(distance 0.040 < 0.110)",
        ),
        (
            0.0,
            stop(StopReason.UNDISTURBED, distance=0.1099, threshold=0.11, passes=0, budget=0.2),
            "stopped without training, pruning has hardly disturbed the flow "
            "(distance 0.1099 < 0.1100, passes 0 of 0.200)",
        ),
        (
            1.5,
            stop(StopReason.SHOCK, passes=1.5, budget=1.4375),
            "stopped after 1.5 passes, it has trained as long as the shock of its pruning asks for "
            "(passes 1.500 of 1.438)",
        ),
        (
            2.0,
            stop(StopReason.SETTLED, change_per_pass=0.04, threshold=0.05),
            "stopped after 2 passes, the flow has stopped changing (change per pass 0.040 < 0.050)",
        ),
        (
            2.0,
            stop(StopReason.MASK, mask_change=0.04, threshold=0.05),
            "stopped after 2 passes, the mask that would be drawn next has stopped changing "
            "(mask change 0.040 < 0.050)",
        ),
        (
            2.0,
            stop(StopReason.LOSS, passes_without_improvement=2.0, patience=2.0, best=0.4),
            "stopped after 2 passes, the training loss has stopped falling "
            "(passes without improvement 2 >= 2, best 0.400)",
        ),
        (
            1.0,
            stop(StopReason.ACCURACY, metric=0.975, threshold=0.97),
            "stopped after 1 pass, the held-out metric has reached its target "
            "(metric 0.975 >= 0.970)",
        ),
        (
            8.0,
            stop(StopReason.BUDGET, distance=0.2, threshold=0.11, passes=8.0, budget=8.0),
            "stopped after 8 passes, the budget of passes is used up "
            "(distance 0.200 >= 0.110, passes 8 of 8)",
        ),
        (2.0, stop(StopReason.BUDGET), "stopped after 2 passes, the budget of passes is used up"),
        (0.5, None, "still training, 0.5 passes so far"),
    ],
)
def test_decision_lines(spent: float, decision: StopDecision | None, ending: str) -> None:
    assert decision_line(level(spent, decision)) == f"level 3, density 51.2 %: {ending}"


def test_evidence_of_combined_rules_keeps_its_pairs() -> None:
    both = stop(
        StopReason.PLATEAU,
        passes_without_improvement=2.0,
        patience=2.0,
        best=0.95,
        **{"distance (2)": 0.3, "threshold (2)": 0.1},
    )
    assert evidence_text(both) == (
        "passes without improvement 2 >= 2, best 0.950, distance 0.300 >= 0.100"
    )
    assert compared_distance(both) == (0.3, 0.1)


def test_a_flow_that_is_not_finite_has_no_distance() -> None:
    broken = stop(StopReason.NON_FINITE, non_finite_entries=2.0, threshold=0.1)
    found = compared_distance(broken)
    assert found is not None
    assert math.isnan(found[0])
    assert found[1] == 0.1
    assert evidence_text(broken) == "non finite entries 2, threshold 0.100"
    assert evidence_text(stop(StopReason.BUDGET, distance=math.nan, threshold=0.1)) == (
        "distance not a number, threshold 0.100"
    )
    assert compared_distance(stop(StopReason.BUDGET, passes=8.0, budget=8.0)) is None
    assert compared_distance(stop(StopReason.ACCURACY, metric=0.9, threshold=0.8)) is None


@pytest.mark.parametrize("finished", [True, False])
def test_the_dictionary_is_standard_json(finished: bool) -> None:
    record = make_record(not_finite=True, flow="both", finished=finished)
    summary = summary_dict(record)
    again = json.loads(json.dumps(summary, allow_nan=False))
    assert again == summary
    assert again["finished"] is finished
    assert [entry["level"] for entry in again["levels"]] == [1, 2, 3, 4, 5, 6]
    assert again["stop_reasons"] == stop_counts(record)


def test_the_dictionary_agrees_with_the_outcome() -> None:
    record = make_record(metric="loss", higher_is_better=False)
    outcome, summary = record.outcome, summary_dict(record)
    assert outcome is not None
    assert summary["density"] == outcome.density
    assert summary["change"] == outcome.sparse["loss"] - outcome.dense["loss"]
    assert summary["passes"]["total"] == 36.5
    assert summary["passes"]["full_budget"] == 64


def test_numbers_that_json_cannot_hold_become_null() -> None:
    record = make_record(levels=1)
    assert record.outcome is not None
    outcome = record.outcome.model_copy(update={"sparse": {"accuracy": math.nan}})
    summary = summary_dict(record.model_copy(update={"outcome": outcome}))
    assert summary["sparse"] == {"accuracy": None}
    assert summary["change"] is None


def test_metrics_other_than_accuracy_say_what_is_better() -> None:
    loss = make_record(metric="error", higher_is_better=False).data
    psnr = make_record(metric="psnr").data
    assert change(loss, 0.5, 0.4) == "-0.100, better"
    assert change(psnr, 39.0, 38.5) == "-0.500, worse"
    assert change(psnr, 39.0, 39.0) == "unchanged"
    assert metric(psnr, 39.0) == "39.000"
    lines = summary_lines(make_record(metric="psnr"))
    assert lines[0].endswith("test psnr")
    assert "%" not in lines[0]


def test_accuracy_moves_in_points() -> None:
    data = make_record().data
    assert change(data, 0.978, 0.972) == "-0.6 points"
    assert change(data, 0.97, 0.98) == "+1.0 points"
    assert change(data, 0.97, 0.96999) == "0.0 points"
    assert change(data, None, 0.9) == change(data, math.nan, 0.9) == "change unknown"
    assert metric(data, None) == "not measured"


def test_numbers_at_the_edges() -> None:
    assert percent(0.0) == "0.0 %"
    assert percent(0.00951) == "1.0 %"
    assert percent(0.0094) == "0.94 %"
    assert passes(0.0) == "0"
    assert passes(1234.5) == "1,234.5"
    assert number(math.inf) == "infinite"
    assert number(-math.inf) == passes(-math.inf) == "minus infinite"
    assert duration(59.96) == "60.0 s"
    assert duration(3600) == "1 h 0 min"


def test_the_summary_needs_no_page() -> None:
    code = (
        "import sys, infcop.report.summary; "
        "print([name for name in ('plotly', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
