"""Searches that read their flow from training, with errors, or on an adaptive probe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import infcop
from infcop.core.records import Reading, RunRecord, StopReason
from infcop.errors import ConfigError, InfcopWarning, ModelError
from infcop.pipeline.search import search as search_function
from tests.end_to_end.conftest import (
    SHORT,
    Interrupting,
    Search,
    Unplugged,
    toy_batches,
    toy_model,
    toy_task,
)
from tests.end_to_end.test_search import same_tensors, without_time

STOP: dict[str, Any] = {"rule": "information-flow", "epsilon": 1e-9, "statistic": "absolute"}


def method(**flow: Any) -> dict[str, Any]:
    """Return a method whose rule compares flow at every reading and never asks to stop."""
    return {**SHORT["method"], "stop": STOP, "reference": "dense", "flow": flow}


def readings(record: RunRecord) -> list[Reading]:
    final = record.final.readings if record.final else ()
    levels = [reading for level in record.levels for reading in level.readings]
    return [*record.dense.readings, *levels, *final]


def test_reading_from_training_costs_no_example_and_changes_nothing(search: Search) -> None:
    """The toy model has dropout: one draw more or less would change the weights."""
    from_training = search(method=method(source="training"))
    from_probe = search(method=method())
    assert same_tensors(from_training.model, from_probe.model)
    record = from_training.record
    cost = record.outcome.cost if record.outcome else None
    assert cost is not None
    assert cost.measuring == cost.measuring_gradient == 0
    read = [reading for reading in readings(record) if reading.flows]
    assert len(read) == 2 * len(record.levels) + 2
    assert {reading.source for reading in read} == {"training"}
    # The whole stretch since the reading before: 6 batches of 16, less than a probe.
    assert {reading.probe_examples for reading in read} == {96}


def test_after_pruning_training_has_nothing_to_tell(search: Search) -> None:
    record = search(method=method(source="training"), levels={"max_passes": 1, "min_passes": 0})
    pruned = [level.readings[0] for level in record.record.levels]
    assert {reading.phase for reading in pruned} == {"pruned"}
    assert not any(reading.flows for reading in pruned)
    # With a probe a level may end before it began; from training the first look is after a unit.
    assert {level.readings[1].passes for level in record.record.levels} == {1.0}


def test_only_the_last_examples_before_a_reading_are_listened_to(search: Search) -> None:
    record = search(method=method(source="training"), probe_examples=40).record
    read = [reading for reading in readings(record) if reading.flows]
    assert {reading.probe_examples for reading in read} == {48}, "three batches of 16"


def test_a_rule_that_names_a_place_close_to_a_reading_shortens_every_window(search: Search) -> None:
    """Readings over unlike numbers of examples differ by that alone."""
    stop = {"rule": "at-least", "passes": 7 / 6, "of": STOP}
    chosen = {**method(source="training"), "stop": stop}
    with pytest.warns(InfcopWarning, match=r"the last 1 training steps .* multiples of levels"):
        record = search(method=chosen).record
    read = [reading for reading in readings(record) if reading.flows]
    assert {reading.passes for reading in read if reading.phase == "level"} == {1.0, 7 / 6, 2.0}
    assert {reading.probe_examples for reading in read} == {16}
    assert any("the last 1 training steps" in warning for warning in record.warnings)


def test_a_stretch_with_one_example_decides_nothing_and_the_level_goes_on(tmp_path: Path) -> None:
    """Read after each of two batches, the first of them with one example."""
    inputs, labels = toy_batches(1, 33)[0]
    batches = list(zip(inputs.split([1, 32]), labels.split([1, 32]), strict=True))
    task = infcop.Classification(batches, toy_batches(1, seed=1))
    settings = {
        **SHORT,
        "method": method(source="training"),
        "levels": {"max_passes": 2, "unit": 0.5},
    }
    with pytest.warns(InfcopWarning, match="flow is not finite in '5', '7'"):
        record = search_function(toy_model(), task, run_dir=tmp_path / "r", **settings).record
    assert record.outcome is not None
    for level in record.levels:
        one = [r for r in level.readings if r.flows and r.probe_examples == 1]
        more = [r for r in level.readings if r.flows and r.probe_examples == 32]
        assert [reading.passes for reading in one] == [0.5, 1.5]
        assert [reading.passes for reading in more] == [1.0, 2.0]
        for reading in one:
            entries = [value for vector in reading.flows.values() for value in vector]
            assert entries
            assert not any(map(math.isfinite, entries))
        assert level.readings[-1].passes == 2.0
    assert infcop.load_record(tmp_path / "r").outcome == record.outcome


def test_matrices_of_one_example_decide_nothing_either(tmp_path: Path) -> None:
    inputs, labels = toy_batches(1, 33)[0]
    batches = list(zip(inputs.split([1, 32]), labels.split([1, 32]), strict=True))
    task = infcop.Classification(batches, toy_batches(1, seed=1))
    stop = {"rule": "matrix-flow", "epsilon": 1e9, "reference": "dense"}
    settings = {
        **SHORT,
        "method": {**method(source="training"), "stop": stop},
        "levels": {"max_passes": 2, "unit": 0.5},
    }
    with pytest.warns(InfcopWarning, match="flow is not finite in '5', '7'"):
        record = search_function(toy_model(), task, run_dir=tmp_path / "r", **settings).record
    for level in record.levels:
        one, more = level.readings[1:]
        assert one.decision is not None
        assert (one.probe_examples, one.decision.reason) == (1, StopReason.NON_FINITE)
        assert more.decision is not None
        assert (more.probe_examples, more.decision.reason) == (32, StopReason.FLOW)
    assert infcop.load_record(tmp_path / "r").outcome == record.outcome


def test_readings_without_flow_come_from_no_source(search: Search) -> None:
    for source in ("probe", "training"):
        record = search(method=method(source=source)).record
        taken = readings(record)
        assert any(reading.flows for reading in taken)
        for reading in taken:
            assert reading.source == (source if reading.flows else None)
            assert bool(reading.probe_examples) == bool(reading.flows)


def test_gradient_flow_from_training(search: Search) -> None:
    stop = {"rule": "gradient-flow", "epsilon": 1e-9}
    record = search(method={**method(source="training"), "stop": stop}).record
    assert record.reference is not None
    assert set(record.reference.flows) == {"gradient.norm", "gradient.mean"}
    assert min(record.reference.flows["gradient.norm"]) > 0


@pytest.mark.parametrize("every", [7, 13])
def test_interrupted_and_continued_is_the_same(tmp_path: Path, search: Search, every: int) -> None:
    settings = {**SHORT, "method": method(source="training", standard_errors=True)}
    whole = search(method=settings["method"])
    for _ in range(40):
        try:
            result = search_function(
                toy_model(),
                toy_task(),
                run_dir=tmp_path / "r",
                progress=Interrupting(every),
                **settings,
            )
            break
        except Unplugged:
            continue
    assert same_tensors(result.model, whole.model)
    assert without_time(result.record) == without_time(whole.record)


def test_standard_errors_are_recorded(search: Search) -> None:
    result = search(method=method(standard_errors=True))
    reference = result.record.reference
    assert reference is not None
    for name in ("information.signed", "information.absolute"):
        assert len(reference.standard_errors[name]) == len(reference.flows[name])
        assert all(0 < error < 0.5 for error in reference.standard_errors[name])
    read_back = infcop.load_record(result.run_dir)
    assert read_back.reference == reference


def test_a_small_probe_is_read_whole_whatever_the_precision(search: Search) -> None:
    record = search(method=method(precision=5.0)).record
    assert {r.probe_examples for r in readings(record) if r.flows} == {96}


def test_an_adaptive_probe_stops_early(tmp_path: Path) -> None:
    inputs = torch.randn(2000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (inputs[:, 0].mean(dim=(1, 2)) > 0).long()
    batches = [(inputs[i : i + 100], labels[i : i + 100]) for i in range(0, 2000, 100)]
    task = infcop.Classification(batches[:4], batches[:1], probe_loader=batches)
    settings = {**SHORT, "method": method(precision=0.05)}
    record = search_function(toy_model(), task, run_dir=tmp_path / "r", **settings).record
    assert record.reference is not None
    assert record.reference.probe_examples == 2000
    later = [r for level in record.levels for r in level.readings if r.flows]
    assert later
    assert all(300 <= r.probe_examples < 2000 for r in later)
    assert all(r.cost.measuring == r.probe_examples for r in later if r.cost.measuring)


def test_what_precision_cannot_go_with(search: Search) -> None:
    with pytest.raises(ConfigError, match=r"precision 0\.1 needs source 'probe'"):
        search(method=method(source="training", precision=0.1))
    with pytest.raises(ConfigError, match=r"one kind of information flow, got .* gradient\.norm"):
        search(method={**method(precision=0.1), "stop": {"rule": "gradient-flow", "epsilon": 1}})
    with pytest.raises(ConfigError, match="got one that compares none; leave precision out"):
        search(method={**method(precision=0.1), "stop": {"rule": "fixed-budget"}})


def test_a_wrapped_model_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"wrapped in DataParallel; pass model\.module"):
        search_function(
            nn.DataParallel(toy_model()),
            toy_task(),
            run_dir=tmp_path / "r",
            progress=Interrupting(0),
            **{**SHORT, "method": method(source="training")},
        )


def test_a_non_finite_reading_is_warned_of_by_layer_and_batch(tmp_path: Path) -> None:
    class Overflowing(nn.Sequential):
        """Gives infinity for one example of the probe, in evaluation mode, once it is pruned."""

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            pruned = bool((self[0].weight == 0).any())
            if not self.training and pruned and bool((inputs == 7).any()):
                inputs = inputs * torch.inf
            return super().forward(inputs)

    torch.manual_seed(0)
    model = Overflowing(*toy_model())
    task = toy_task()
    probe = [(x.clone(), y) for x, y in task.train_loader]
    probe[2][0][5] = 7
    task.probe_loader = probe
    with pytest.warns(InfcopWarning, match=r"not finite in '0' \(batch 2\)"):
        record = search_function(
            model,
            task,
            run_dir=tmp_path / "r",
            **{
                **SHORT,
                "method": method(),
            },
        ).record
    decisions = [r.decision.reason.value for level in record.levels for r in level.readings[1:-1]]
    assert set(decisions) == {"non-finite"}
