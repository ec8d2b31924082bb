"""A whole search on a toy problem: what it returns, what it leaves, what it promises."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import infcop
from infcop.core.records import RunRecord
from infcop.errors import InfcopWarning, NoEffectWarning
from tests.end_to_end.conftest import SHORT, Search, toy_batches, toy_model, toy_task


def without_time(record: RunRecord) -> dict[str, Any]:
    """Return a record as plain values with all wall-clock times taken out."""

    def stripped(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: stripped(value) for key, value in node.items() if key != "seconds"}
        return [stripped(item) for item in node] if isinstance(node, list) else node

    plain: dict[str, Any] = stripped(record.model_dump(mode="json"))
    return plain


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_the_result_is_a_plain_sparse_model(search: Search) -> None:
    result = search()
    assert type(result.model) is nn.Sequential
    fresh = toy_model(seed=5)
    fresh.load_state_dict(result.model.state_dict())
    kept = 0
    for name, mask in result.masks.items():
        weight = result.model.state_dict()[name]
        assert bool((weight[~mask] == 0).all())
        kept += int(mask.count_nonzero())
    total = sum(mask.numel() for mask in result.masks.values())
    assert kept == round(0.3 * total) == result.outcome.kept
    assert result.density == kept / total
    assert set(result.masks) == {"0.weight", "5.weight", "7.weight"}


def test_nothing_is_left_on_the_users_model(tmp_path: Path) -> None:
    model = toy_model()
    model[3].requires_grad_(True)
    model.eval()
    model[4].train()
    before = copy.deepcopy(model.state_dict())
    attributes = [set(vars(module)) for module in model.modules()]
    modes = [module.training for module in model.modules()]
    infcop.search(model, toy_task(), run_dir=tmp_path / "run", **SHORT)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_returned_model_carries_nothing_either(search: Search) -> None:
    result = search()
    plain = toy_model()
    for ours, theirs in zip(result.model.modules(), plain.modules(), strict=True):
        assert set(vars(ours)) == set(vars(theirs))
        assert not ours._forward_hooks
        assert not ours._forward_pre_hooks
    copy.deepcopy(result.model)(torch.randn(2, 1, 8, 8)).sum().backward()


def test_the_callers_generators_are_left_alone(tmp_path: Path) -> None:
    model = toy_model()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = [random.random(), np.random.rand(), torch.rand(()).item()]
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    infcop.search(model, toy_task(), run_dir=tmp_path / "run", **SHORT)
    assert [random.random(), np.random.rand(), torch.rand(()).item()] == expected


def test_the_record_explains_every_stop(search: Search) -> None:
    record = search(method="infcop-if", levels={"max_passes": 3}).record
    assert record.reference is not None
    for level in record.levels:
        assert level.stopped_by is not None
        assert level.stopped_by.stop
        assert level.stopped_by.reason.sentence
        assert level.stopped_by == level.readings[-1].decision
        assert {"distance", "threshold"} <= set(level.stopped_by.evidence)
        assert [reading.phase for reading in level.readings][:2] == ["pruned", "level"]
        assert all(reading.flows for reading in level.readings)
    densities = [level.density for level in record.levels]
    assert densities == sorted(densities, reverse=True)


def test_cost_adds_up(search: Search) -> None:
    result = search()
    record = result.record
    assert record.data.train == 96
    parts = [record.dense.cost, *(level.cost for level in record.levels)]
    assert record.final is not None
    total = sum((part.training for part in [*parts, record.final.cost]), 0)
    assert result.outcome.cost.training == total == 96 * (2 + 2 * len(record.levels) + 1)
    for level in record.levels:
        # A rule that compares no flow reads it after pruning and at the end, for the report.
        assert level.cost.measuring == 2 * record.data.probe
        assert level.cost.measuring_gradient == 0
        assert level.cost.evaluating == 3 * record.data.held_out


def test_same_seed_same_record_bit_for_bit(search: Search) -> None:
    first, second, other = search(), search(), search(seed=1)
    assert without_time(first.record) == without_time(second.record)
    assert same_tensors(first.model, second.model)
    assert not same_tensors(first.model, other.model)


def test_a_rule_that_never_stops_equals_plain_pruning(search: Search) -> None:
    """The rule must not disturb training."""
    stop = {"rule": "information-flow", "epsilon": 1e-12}
    watched = search(method={"name": "sap", "stop": stop, "schedule": {"p": 1, "q": 2}})
    plain = search(method={"name": "sap", "schedule": {"p": 1, "q": 2}})
    assert same_tensors(watched.model, plain.model)
    assert all(level.passes == 2 for level in watched.record.levels)


def test_a_rule_that_always_stops_takes_one_unit(search: Search) -> None:
    stop = {"rule": "information-flow", "epsilon": 1e6}
    record = search(method={"name": "sap", "stop": stop}, levels={"max_passes": 3}).record
    assert {level.passes for level in record.levels} == {1.0}


@pytest.mark.parametrize("method", ["infcop-if", "infcop-gf"])
def test_with_one_unit_all_methods_of_one_pruner_agree(search: Search, method: str) -> None:
    levels = {"max_passes": 1}
    assert same_tensors(
        search(method="sap", levels=levels).model, search(method=method, levels=levels).model
    )


def test_readings_fall_at_fractions_of_a_pass(search: Search) -> None:
    levels = {"max_passes": 1, "min_passes": 0.5, "unit": 0.25}
    record = search(levels=levels).record
    passes = [r.passes for r in record.levels[0].readings if r.phase == "level"]
    # Six batches a pass: the first step at or after each quarter.
    assert passes == [2 / 6, 3 / 6, 5 / 6, 1.0]


def test_a_level_may_end_without_training(search: Search) -> None:
    stop = {"rule": "information-flow", "epsilon": 1e6}
    method = {"name": "sap", "stop": stop, "rewind": {"to": "none"}}
    record = search(method=method, levels={"max_passes": 2, "min_passes": 0}).record
    assert all(level.passes == 0 for level in record.levels)
    assert all(level.cost.training == 0 for level in record.levels)


@pytest.mark.parametrize("to", ["initialisation", "epoch", "warm-up", "learning-rate", "none"])
def test_the_ticket_holds_what_the_level_started_from(search: Search, to: str) -> None:
    result = search(method={**SHORT["method"], "rewind": {"to": to}})
    store = result._store
    values, masks = store.read_tensors(store.values)[0], store.read_tensors(store.masks)[0]
    start = {
        "initialisation": toy_model().state_dict(),
        "warm-up": store.read_tensors(store.dense)[0],
    }.get(to)
    for name, mask in masks.items():
        assert bool((values[name][~mask] == 0).all())
        if start is not None:
            assert torch.equal(values[name], start[name] * mask)
    if start is not None:
        # Batch norm's statistics go back with the weights.
        assert torch.equal(values["1.running_mean"], start["1.running_mean"])


def test_density_one_prunes_nothing(search: Search) -> None:
    result = search(density=1.0)
    assert result.record.levels == ()
    assert result.density == 1.0


def test_a_finished_run_is_returned_at_once(search: Search, tmp_path: Path) -> None:
    first = search(run_dir=tmp_path / "same")
    second = search(run_dir=tmp_path / "same")
    assert first.record == second.record
    assert same_tensors(first.model, second.model)


def test_the_dense_network_is_the_same_for_every_method(search: Search) -> None:
    first, second = search(method="lth"), search(method="infcop-gf")
    assert first.outcome.dense == second.outcome.dense
    held_out = [[r.main for r in result.record.dense.readings] for result in (first, second)]
    assert held_out[0] == held_out[1]


def test_max_levels_ends_the_search_with_a_warning(search: Search) -> None:
    with pytest.warns(InfcopWarning, match=r"levels\.max_levels is 1"):
        result = search(levels={"max_passes": 1, "max_levels": 1})
    assert len(result.record.levels) == 1
    assert result.density > 0.3
    assert "max_levels" in result.record.warnings[0]


def test_a_schedule_that_finds_nothing_ends_the_search_with_a_warning(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Linear(1, 3))
    # With hardly any weights left, floor(c * d) of the adaptive schedule becomes 0.
    with pytest.warns(NoEffectWarning, match="finds nothing to remove at density"):
        result = infcop.search(
            model, toy_task(), run_dir=tmp_path, **{**SHORT, "method": "sap", "density": 0.03}
        )
    assert result.density > 0.03
    assert result.outcome.sparse["accuracy"] > 0


def test_adamw_and_float64_work(tmp_path: Path) -> None:
    batches = [(x.double(), y) for x, y in toy_batches()]
    task = infcop.Classification(batches, batches)
    settings = {**SHORT, "training": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.1}}
    result = infcop.search(toy_model().double(), task, run_dir=tmp_path / "run", **settings)
    assert next(result.model.parameters()).dtype == torch.float64
    assert result.density == pytest.approx(0.3, abs=1e-3)


def test_bf16_mixed_keeps_float32_weights(search: Search) -> None:
    result = search(execution={"device": "cpu", "precision": "bf16-mixed"})
    assert next(result.model.parameters()).dtype == torch.float32
    assert result.outcome.measured_on == "test"
