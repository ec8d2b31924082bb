"""Levels that are ended, or not begun, by what pruning and training do to the flow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import infcop
from infcop.core.comparison import distance
from infcop.core.records import Cost, LevelRecord, Reading, RunRecord, StopReason
from infcop.pipeline.search import search as search_function
from infcop.pipeline.store import RunStore
from tests.end_to_end.conftest import SHORT, Interrupting, Search, Unplugged, toy_model, toy_task
from tests.end_to_end.test_search import same_tensors, without_time

STEPS = 6
"""Of a pass over the toy problem."""

SHOCK: dict[str, Any] = {"rule": "shock-budget", "fraction": 0.5, "power": 1.0, "least": 0.0}
NEVER: dict[str, Any] = {"rule": "shock-budget", "fraction": 0.2, "least": 0.9}
"""No level ever gets so large a part of the dense training."""


def method(stop: dict[str, Any], **axes: Any) -> dict[str, Any]:
    return {**SHORT["method"], "rewind": {"to": "none"}, "stop": stop, **axes}


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def training_of(level: LevelRecord) -> list[Reading]:
    return [reading for reading in level.readings if reading.phase == "level"]


# -- levels without training -----------------------------------------------------------------------


@pytest.mark.parametrize("to", ["initialisation", "none"])
def test_a_level_that_need_not_train_is_decided_before_any_rewinding(
    tmp_path: Path, to: str
) -> None:
    settings = {**SHORT, "final": {"passes": 0}, "method": method(NEVER, rewind={"to": to})}
    result = infcop.search(toy_model(), toy_task(), run_dir=tmp_path, **settings)
    assert len(result.record.levels) >= 2
    for level in result.record.levels:
        pruned, read = level.readings
        assert (pruned.phase, read.phase) == ("pruned", "level")
        assert (level.passes, level.rewound_to) == (0.0, "none")
        assert level.stopped_by == read.decision
        assert level.stopped_by is not None
        assert level.stopped_by.reason is StopReason.UNDISTURBED
        # The same moment, paid once.
        assert (read.flows, read.main, read.cost) == (pruned.flows, pruned.main, Cost())
        assert level.cost == pruned.cost
        assert level.cost.training == 0
    # So the sparse network is the dense one with holes, and so is its ticket.
    dense = tensors(tmp_path / "checkpoints", "dense")
    values = tensors(tmp_path / "ticket", "values")
    for name, tensor in result.model.state_dict().items():
        expected = dense[name] * result.masks[name] if name in result.masks else dense[name]
        assert torch.equal(tensor, expected), name
        assert torch.equal(values[name], expected), name


def test_the_shock_of_untrained_levels_adds_up_and_trained_ones_begin_anew(
    search: Search,
) -> None:
    """Every level is compared with the network as it was last trained."""

    def trained(reading: Reading) -> Any:
        return reading.comparisons["trained"]

    never = search(method=method(NEVER)).record
    references = {trained(level.readings[0]).reference for level in never.levels}
    assert references == {trained(never.levels[0].readings[0]).reference}
    shocks = [distance(trained(level.readings[0])) for level in never.levels]
    assert 0 < shocks[0] < shocks[1]
    always = search(method=method(SHOCK)).record
    for before, level in zip(always.levels, always.levels[1:], strict=False):
        # What a level is compared with is what the one before it left.
        assert trained(level.readings[0]).reference == trained(before.readings[-1]).present


def test_a_level_trains_as_long_as_its_shock_asks_for(search: Search) -> None:
    record = search(method=method(SHOCK), levels={"max_passes": 2}).record
    for level in record.levels:
        first = training_of(level)[0]
        shock = distance(level.readings[0].comparisons["trained"])
        budget = 0.5 * min(shock, 1) * 2
        assert first.decision is not None
        assert first.decision.until == pytest.approx(budget)
        # Asked at the first step at which so much is trained, units of one pass or not.
        assert level.passes * STEPS == math.ceil(budget * STEPS)
        assert level.passes != round(level.passes)
        assert level.stopped_by is not None
        assert level.stopped_by.reason is StopReason.SHOCK
        assert level.cost.training == 16 * level.passes * STEPS
        assert len(training_of(level)) == 2


def test_beside_another_rule_the_shock_is_asked_at_its_place_too(search: Search) -> None:
    alone = search(method=method(SHOCK)).record
    stop = {"rule": "any-of", "rules": [{"rule": "fixed-budget", "passes": 2}, SHOCK]}
    beside = search(method=method(stop)).record
    assert [level.passes for level in beside.levels] == [level.passes for level in alone.levels]


def test_an_untrained_level_and_a_trained_one_are_both_resumed(tmp_path: Path) -> None:
    # The first levels are below the least part, until the shock has added up.
    stop = {"rule": "shock-budget", "fraction": 0.5, "power": 3.0, "least": 0.1}
    settings = {
        **SHORT,
        "density": 0.2,
        "method": method(stop, schedule={"kind": "fraction", "remove": 0.25}),
    }

    def run(folder: Path, progress: Any = None) -> infcop.Result:
        return search_function(
            toy_model(), toy_task(), run_dir=folder, progress=progress, **settings
        )

    whole = run(tmp_path / "whole")
    passes = [level.passes for level in whole.record.levels]
    assert 0.0 in passes
    assert max(passes) > 0
    cuts = 0
    for _ in range(100):
        try:
            again = run(tmp_path / "cut", Interrupting(7))
            break
        except Unplugged:
            cuts += 1
    assert cuts >= 2
    assert same_tensors(again.model, whole.model)
    assert without_time(again.record) == without_time(whole.record)


# -- what a level is compared with -----------------------------------------------------------------


@pytest.mark.parametrize("reference", ["pruned", "trained"])
def test_vectors_are_compared_with_the_state_that_is_asked_for(
    search: Search, reference: str
) -> None:
    stop = {"rule": "information-flow", "epsilon": 1e-9}
    record = search(method=method(stop, reference=reference)).record
    last = record.dense.readings[-1]
    for level in record.levels:
        there = level.readings[0] if reference == "pruned" else last
        for reading in training_of(level):
            here, before = (r.flows["information.signed"] for r in (reading, there))
            assert reading.decision is not None
            assert reading.decision.evidence["distance"] == math.dist(here, before)
        last = level.readings[-1]


@pytest.mark.parametrize("reference", ["warm-up", "dense", "trained", "pruned", "last"])
def test_matrices_are_compared_with_the_state_that_is_asked_for(
    search: Search, reference: str
) -> None:
    stop = {"rule": "matrix-flow", "epsilon": 1e-9, "reference": reference}
    record = search(
        method=method(stop, reference="dense"), dense={"passes": 3, "warmup_passes": 1}
    ).record
    assert [bool(reading.flows) for reading in record.dense.readings] == [
        reference == "warm-up",
        False,
        True,
    ]
    for level in record.levels:
        pruned, first, *others = training_of(level)
        assert level.stopped_by is not None
        assert level.stopped_by.reason is StopReason.BUDGET
        for reading in (first, *others):
            assert reading.decision is not None
            if reference == "last" and reading is first:
                assert reading.decision.evidence == {}
            else:
                found = distance(reading.comparisons[reference])
                assert reading.decision.evidence["distance"] == found > 0
        assert pruned.decision is not None
        found = distance(pruned.comparisons["trained"])
        assert pruned.decision.evidence["distance"] == found


def test_the_noise_floor_is_what_the_dense_network_moved_by(search: Search) -> None:
    stop = {"rule": "matrix-flow", "kappa": 0.5, "floor": "larger", "floor_readings": 2}
    record = search(method=method(stop), dense={"passes": 4}, probe_examples=64).record
    changes = [
        distance(reading.comparisons["last"])
        for reading in record.dense.readings
        if "last" in reading.comparisons
    ]
    assert len(changes) == 2
    drift = sum(changes) / 2
    halves = distance(record.dense.readings[-1].comparisons["halves"]) / math.sqrt(2)
    first = training_of(record.levels[0])[0]
    assert first.decision is not None
    assert first.decision.evidence["threshold"] == pytest.approx(0.5 * max(drift, halves))
    # Both halves are read once more.
    probe = record.data.probe
    assert [r.cost.measuring for r in record.dense.readings] == [0, probe, probe, 2 * probe]


def test_alignment_is_measured_where_a_rule_compares_it(search: Search) -> None:
    stop = {"rule": "relative-information-flow", "epsilon": 1e-9, "statistic": "cka"}
    record = search(method=method(stop)).record
    for level in record.levels:
        assert all(0 < value < 1 for value in level.readings[-1].flows["information.cka"])
    plain = search(method=method({**stop, "statistic": "signed"})).record
    assert "information.cka" not in plain.levels[0].readings[-1].flows


def test_the_next_mask_is_compared_from_the_second_reading_of_a_level_on(search: Search) -> None:
    stop = {"rule": "mask-distance", "epsilon": 1e-9, "readings": 3}
    record = search(
        method=method(stop), levels={"max_passes": 2, "unit": 0.5, "min_passes": 0.5}
    ).record
    for level in record.levels:
        changes = [reading.mask_change for reading in training_of(level)]
        assert changes[0] is None
        assert all(change is not None and 0 <= change < 1 for change in changes[1:])
        assert any(change for change in changes[1:])
    plain = search().record
    assert all(r.mask_change is None for level in plain.levels for r in level.readings)


# -- rewinding once, evaluating less, reading more -------------------------------------------------


def test_rewinding_at_the_end_searches_with_the_trained_weights(tmp_path: Path) -> None:
    settings = {
        **SHORT,
        "dense": {"passes": 3},
        "method": method({"rule": "fixed-budget"}, rewind={"to": "epoch", "when": "end"}),
        "final": {"passes": 1, "lr": 1e-30},
    }
    result = infcop.search(toy_model(), toy_task(), run_dir=tmp_path, **settings)
    kept = tensors(tmp_path / "checkpoints", "rewind")
    values = tensors(tmp_path / "ticket", "values")
    for name, tensor in result.model.named_parameters():
        expected = kept[name] * result.masks[name] if name in result.masks else kept[name]
        assert torch.equal(values[name], expected), name
        # At this rate the final training moves nothing.
        assert torch.allclose(tensor, expected, rtol=0, atol=1e-20), name
    assert {level.rewound_to for level in result.record.levels} == {"none"}


RECOVERING: dict[str, Any] = {
    "rewind": {"to": "initialisation", "when": "end"},
    "rate": {"kind": "constant", "fraction": 0.5},
}


def test_going_back_at_the_end_is_one_more_shock_to_recover_from(
    search: Search, rates: list[list[float]]
) -> None:
    record = search(
        method=method(SHOCK, **RECOVERING), final={"passes": 2}, training={"lr": 0.1}
    ).record
    assert record.final is not None
    back, *others = record.final.readings
    assert (back.phase, back.passes, back.cost.training) == ("final", 0.0, 0)
    # Of two dense passes a half, times how far going back has moved the flow.
    budget = 0.5 * min(distance(back.comparisons["trained"]), 1) * 2
    assert back.decision is not None
    assert back.decision.until == pytest.approx(budget)
    recovery = math.ceil(budget * STEPS)
    assert recovery >= 1
    assert record.final.cost.training == 16 * (recovery + 2 * STEPS)
    assert others[-1].passes == pytest.approx(recovery / STEPS + 2)
    assert recovery / STEPS in [reading.passes for reading in others]
    # At the rate of a level, then down as any final training.
    assert rates[-1][:recovery] == [0.05] * recovery
    assert rates[-1][recovery] == pytest.approx(0.1)
    assert rates[-1][-1] < 0.01


@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        ({"rule": "any-of", "rules": [SHOCK, {"rule": "accuracy-target", "target": 2.0}]}, {}),
        (SHOCK, {"density": 1.0}),
        ({"rule": "fixed-budget"}, {}),
        (NEVER, {}),
    ],
    ids=["a rule that needs the metric", "nothing pruned", "a fixed budget", "undisturbed"],
)
def test_going_back_at_the_end_suits_every_rule(
    search: Search, stop: dict[str, Any], settings: dict[str, Any]
) -> None:
    record = search(method=method(stop, **RECOVERING), **settings).record
    assert record.final is not None
    asked = record.final.readings[0].passes == 0
    assert asked == (bool(record.levels) and stop["rule"] != "fixed-budget")
    recovers = stop["rule"] == "any-of"
    assert (record.final.cost.training > 16 * STEPS) == recovers


def test_a_search_that_rewinds_at_the_end_prunes_as_one_that_keeps_its_weights(
    search: Search,
) -> None:
    constant = {"rate": {"kind": "constant", "fraction": 1.0}}
    stop = {"rule": "fixed-budget"}
    once = search(method=method(stop, rewind={"to": "epoch", "when": "end"}, **constant))
    never = search(method=method(stop, **constant))
    ours, theirs = (without_time(result.record)["levels"] for result in (once, never))
    assert ours == theirs
    assert not same_tensors(once.model, never.model)


def plain(record: RunRecord) -> list[list[dict[str, Any]]]:
    """Return the flows and decisions of all levels."""
    return [
        [{"flows": r.flows, "decision": r.decision} for r in training_of(level)]
        for level in record.levels
    ]


def test_evaluating_at_the_ends_only_costs_less_and_changes_nothing(search: Search) -> None:
    settings: dict[str, Any] = {
        "method": method({"rule": "matrix-flow", "epsilon": 0.02}),
        "dense": {"passes": 3},
        "final": {"passes": 2},
    }
    levels = {"max_passes": 2, "unit": 0.5}
    often = search(**settings, levels=levels)
    rare = search(**settings, levels={**levels, "evaluate": "ends"})
    assert same_tensors(often.model, rare.model)
    assert plain(often.record) == plain(rare.record)
    record = rare.record
    assert [r.main is not None for r in record.dense.readings] == [False, False, True]
    assert record.final is not None
    assert [r.main is not None for r in record.final.readings] == [False, True]
    for level in record.levels:
        *before, last = level.readings
        assert len(before) >= 2
        assert not any(reading.metrics for reading in before)
        assert last.main is not None
        assert level.cost.evaluating == record.data.held_out
    report = rare.report().read_text(encoding="utf-8")
    assert '<td data-label="after pruning">not measured</td>' in report


def test_a_rule_that_needs_the_metric_gets_it_at_every_reading(search: Search) -> None:
    record = search(
        method=method({"rule": "accuracy-target"}), levels={"max_passes": 2, "evaluate": "ends"}
    ).record
    readings = [*record.dense.readings, *(r for level in record.levels for r in level.readings)]
    assert all(reading.main is not None for reading in readings)


@pytest.mark.parametrize("source", ["probe", "training"])
def test_a_study_compares_with_every_state_there_is_a_reading_of(
    search: Search, source: str
) -> None:
    flow = {"every_reading": True, "source": source}
    record = search(method=method({"rule": "fixed-budget"}, flow=flow)).record
    assert all(reading.flows for reading in record.dense.readings)
    for level in record.levels:
        pruned, *trained = level.readings
        assert bool(pruned.comparisons) == (source == "probe")
        names = {"warm-up", "dense", "trained"} | ({"pruned"} if source == "probe" else set())
        for place, reading in enumerate(trained):
            found = {name for name in reading.comparisons if "alive" not in name}
            assert found == names | ({"last"} if place else set())
            assert "information.cka" in reading.flows
    halves = "halves" in record.dense.readings[-1].comparisons
    assert halves == (source == "probe")


def test_a_study_of_a_model_without_edges_reads_gradients(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    settings = {**SHORT, "method": method({"rule": "fixed-budget"}, flow={"every_reading": True})}
    record = infcop.search(model, toy_task(), run_dir=tmp_path, **settings).record
    for reading in (*record.dense.readings, *record.levels[0].readings):
        assert set(reading.flows) == {"gradient.norm", "gradient.mean"}
        assert reading.comparisons == {}


def test_a_checkpoint_from_before_states_were_kept_goes_on(tmp_path: Path) -> None:
    settings = {**SHORT, "levels": {"max_passes": 2, "min_passes": 1}}

    def run(folder: Path, progress: Any = None) -> infcop.Result:
        return search_function(
            toy_model(), toy_task(), run_dir=folder, progress=progress, **settings
        )

    with pytest.raises(Unplugged):
        run(tmp_path / "old", Interrupting(20))
    store = RunStore(tmp_path / "old")
    values, meta = store.read_tensors(store.latest)
    del meta["states"]
    store.write_tensors(store.latest, values, meta)
    again, whole = run(tmp_path / "old"), run(tmp_path / "whole")
    assert same_tensors(again.model, whole.model)
    assert without_time(again.record) == without_time(whole.record)
