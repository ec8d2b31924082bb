"""What the guides promise of a search, each checked against arithmetic done by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import infcop
from infcop.core.records import SCHEMA_VERSION, LevelRecord, Reading, StopReason
from infcop.errors import ConfigError, DataError, ModelError, RunFolderError, TrainingError
from infcop.pipeline.configure import load_config
from infcop.pipeline.search import search as search_function
from infcop.pipeline.workload import build_workload
from infcop.tasks.base import Metrics
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

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05, "weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 1e-1, "clip_norm": 1.0},
}


def interrupted(folder: Path, after: int, **changes: Any) -> None:
    with pytest.raises(Unplugged):
        search_function(
            toy_model(),
            toy_task(),
            run_dir=folder,
            progress=Interrupting(after),
            **{**SHORT, **changes},
        )


def passes_of(level: LevelRecord) -> list[float]:
    return [reading.passes for reading in level.readings if reading.phase == "level"]


# -- pruned entries ------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_of_pruned_entries_are_zero_inside_a_level(tmp_path: Path, optimizer: str) -> None:
    # Two passes of six steps each for the dense network and level 1, and one and a half of level 2.
    interrupted(tmp_path, 33, training=OPTIMIZERS[optimizer])
    assert len(infcop.load_record(tmp_path).levels) == 2
    state = load_file(tmp_path / "checkpoints" / "latest.safetensors")
    expected = {"sgd": ["momentum_buffer"], "adamw": ["exp_avg", "exp_avg_sq"]}[optimizer]
    for index, (name, _) in enumerate(toy_model().named_parameters()):
        for moment in (state[f"optimizer.{index}.{key}"] for key in expected):
            mask = state.get(f"mask.{name}", torch.ones_like(moment, dtype=torch.bool))
            assert moment.shape == mask.shape
            assert bool((moment[~mask] == 0).all()), name
            assert bool((moment[mask] != 0).any()), name
    assert sum(int((~state[key]).sum()) for key in state if key.startswith("mask.")) > 0


# -- the answer ----------------------------------------------------------------------------------


class WatchedLoader(DataLoader[Any]):
    """Counts how often it is iterated over, and refuses before training has ended."""

    task: Training
    iterations = 0

    def __iter__(self) -> Any:
        assert self.task.steps_left == 0, "the test data was read before the end of training"
        self.iterations += 1
        return super().__iter__()


class Training(infcop.Classification):
    """Counts training steps down."""

    steps_left = 0

    def training_step(self, model: nn.Module, batch: Any) -> torch.Tensor:
        if torch.is_grad_enabled():  # not when the task is tried out
            self.steps_left -= 1
        return super().training_step(model, batch)


def accuracy(model: nn.Module, batches: Iterable[Any]) -> float:
    model.eval()
    with torch.no_grad():
        hits = [(model(inputs).argmax(dim=1) == labels).float() for inputs, labels in batches]
    return float(torch.cat(hits).mean())


def test_the_answer_is_read_on_the_test_data_once_at_the_end(tmp_path: Path) -> None:
    # The same images, learnt by heart, under other labels: what is right on one is wrong on the
    # other.
    held_out = toy_batches(2)
    inputs, labels = (torch.cat(parts) for parts in zip(*held_out, strict=True))
    test = WatchedLoader(TensorDataset(inputs, (labels + 1) % 3), batch_size=32)
    task = Training(toy_batches(), held_out, test)
    test.task = task
    task.steps_left = 6 * (8 + 2 * 3 + 1)  # dense, three levels, final
    settings = {**SHORT, "dense": {"passes": 8}, "training": {"lr": 0.1}}
    result = infcop.search(toy_model(), task, run_dir=tmp_path, **settings)
    assert len(result.record.levels) == 3
    assert test.iterations == 2
    dense = toy_model()
    dense.load_state_dict(load_file(tmp_path / "checkpoints" / "dense.safetensors"))
    outcome, record = result.outcome, result.record
    assert outcome.measured_on == "test"
    assert record.final is not None
    for model, answer, phase in [
        (dense, outcome.dense, record.dense),
        (result.model, outcome.sparse, record.final),
    ]:
        assert answer["accuracy"] == pytest.approx(accuracy(model, test))
        assert phase.readings[-1].main == pytest.approx(accuracy(model, held_out))
        assert answer["accuracy"] < 0.4 < 0.6 < accuracy(model, held_out)


def test_the_full_budget_is_that_of_the_same_levels(search: Search) -> None:
    stop = {"rule": "fixed-budget", "passes": 1}
    result = search(method={**SHORT["method"], "stop": stop}, levels={"max_passes": 3.5})
    levels = len(result.record.levels)
    assert levels == 3
    assert result.outcome.full_budget_training == 3.5 * 96 * levels
    # Two passes of dense training, one final one.
    line = "Training: 6 passes (2 dense, 3 in 3 levels, 1 final)"
    assert f"{line}; the full budget would have been 13.5" in result.summary()
    page = result.report().read_text(encoding="utf-8")
    assert "with the full budget at every level it would have been 13.5" in page


# -- learning rates ------------------------------------------------------------------------------


def cosine(peak: float, place: float, horizon: float, end: float) -> float:
    half = (1 + math.cos(math.pi * min(place / horizon, 1))) / 2
    return peak * (end + (1 - end) * half)


def places(start: float, passes: int) -> list[float]:
    """Return where on a schedule the steps of so many passes of six batches lie."""
    return [start + step / 6 for step in range(6 * passes)]


@pytest.mark.parametrize(
    ("to", "start"),
    [("initialisation", 0), ("epoch", 1), ("warm-up", 3), ("learning-rate", 0), ("none", 4)],
)
def test_levels_go_on_from_their_place_of_the_schedule(
    search: Search, rates: list[list[float]], to: str, start: int
) -> None:
    search(
        density=0.6,
        method={**SHORT["method"], "rewind": {"to": to, "passes": 1}},
        dense={"passes": 4, "warmup_passes": 3},
        training={"lr": 0.1, "schedule": "cosine", "lr_end_fraction": 0.1},
        final={"passes": 0},
    )
    dense, level = rates
    assert dense == pytest.approx([cosine(0.1, place, 4, 0.1) for place in places(0, 4)])
    assert level == pytest.approx([cosine(0.1, place, 4, 0.1) for place in places(start, 2)])


def test_the_learning_rate_warms_up_again_where_the_schedule_starts_over(
    search: Search, rates: list[list[float]]
) -> None:
    search(density=0.6, training={"lr": 0.1, "lr_warmup_passes": 1}, final={"passes": 0})
    warmup = [0.001, *(0.1 * step / 6 for step in range(1, 6))]
    assert rates[0] == rates[1] == pytest.approx([*warmup, *[0.1] * 6])


@pytest.mark.parametrize(
    ("final", "expected"),
    [
        ({"lr": 0.02}, [cosine(0.02, place, 2, 0.01) for place in places(0, 2)]),
        ({}, [cosine(0.1, place, 2, 0.01) for place in places(0, 2)]),
        ({"schedule": "constant", "lr": 0.03}, [0.03] * 12),
        ({"schedule": "step", "lr": 0.03}, [0.03] * 6 + [0.003] * 3 + [0.0003] * 3),
    ],
    ids=["lr", "defaults", "constant", "step"],
)
def test_the_final_training_has_a_schedule_of_its_own(
    search: Search, rates: list[list[float]], final: dict[str, Any], expected: list[float]
) -> None:
    search(density=0.6, training={"lr": 0.1}, final={"passes": 2, **final})
    assert rates[1] == [0.1] * 12
    assert rates[-1] == pytest.approx(expected)


# -- a metric that falls -------------------------------------------------------------------------


class Regression:
    """A user's own task: its main metric, the root mean square error, is better when lower."""

    test_loader = None
    probe_loader = None

    def __init__(self) -> None:
        self.train_loader, self.held_out_loader = self.batches(6, 0), self.batches(2, 1)

    @staticmethod
    def batches(count: int, seed: int) -> list[Any]:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(count, 16, 8, generator=generator)
        return [(x, x[:, :1] * x[:, 1:2] + x[:, 2:3]) for x in inputs]

    def training_step(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, loader: Iterable[Any]) -> Metrics:
        errors = torch.cat([model(inputs) - target for inputs, target in loader])
        rmse = float(errors.square().mean().sqrt())
        return Metrics({"rmse": rmse}, "rmse", higher_is_better=False, examples=len(errors))

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        return (batch[0],)

    def batch_size(self, batch: Any) -> int:
        return len(batch[0])


def regression_search(folder: Path, stop: dict[str, Any], **changes: Any) -> infcop.Result:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 1))
    settings: dict[str, Any] = {
        **SHORT,
        "density": 0.4,
        "method": {"name": "lth", "schedule": {"kind": "fraction", "remove": 0.4}, "stop": stop},
        "dense": {"passes": 6, "warmup_passes": 3},
        "levels": {"max_passes": 6, "min_passes": 0.5, "unit": 0.5},
        "training": {"lr": 0.05},
    }
    return infcop.search(model, Regression(), run_dir=folder, **{**settings, **changes})


def reason_of(level: LevelRecord) -> StopReason | None:
    return level.stopped_by.reason if level.stopped_by else None


def mains(readings: Iterable[Reading]) -> list[float]:
    return [reading.main for reading in readings if reading.main is not None]


def test_a_target_of_a_falling_metric_is_the_lowest_of_the_warm_up(tmp_path: Path) -> None:
    record = regression_search(tmp_path, {"rule": "accuracy-target"}).record
    seen = mains(reading for reading in record.dense.readings if reading.passes <= 3)
    target = min(seen)
    # Neither the direction nor the end of the warm-up can be missed.
    assert min(mains(record.dense.readings)) < target < max(seen)
    decisions = []
    for level in record.levels:
        for reading in level.readings[1:]:
            assert reading.main is not None
            assert reading.decision is not None
            decisions.append(reading.decision.stop)
            assert reading.decision.stop == (reading.main <= target or reading.passes >= 6)
            assert reading.decision.evidence.get("threshold", target) == target
        met = mains(level.readings)[-1] <= target
        assert reason_of(level) == (StopReason.ACCURACY if met else StopReason.BUDGET)
    assert StopReason.ACCURACY in map(reason_of, record.levels)
    assert False in decisions


def test_a_plateau_of_a_falling_metric_is_one_that_no_longer_falls(tmp_path: Path) -> None:
    stop = {"rule": "plateau", "patience": 1, "improvement": 0.03}
    record = regression_search(tmp_path, stop).record
    for level in record.levels:
        best, place = math.inf, 0.0
        for reading in level.readings[1:]:
            assert reading.main is not None
            assert reading.decision is not None
            if reading.main < best * 0.97:
                best, place = reading.main, reading.passes
            waited = reading.passes - place
            assert reading.decision.stop == (waited >= 1 - 1e-9 or reading.passes >= 6)
        assert level.passes > 1.5, "an error that falls is no plateau"
    assert StopReason.PLATEAU in map(reason_of, record.levels)


# -- places in training --------------------------------------------------------------------------


@pytest.mark.parametrize(("reference", "place"), [("warm-up", 2), ("dense", 3)])
def test_the_reference_is_the_reading_at_its_place(
    search: Search, reference: str, place: int
) -> None:
    record = search(
        method={"name": "infcop-if", "reference": reference},
        dense={"passes": 3, "warmup_passes": 2},
        density=0.7,
    ).record
    assert record.reference is not None
    assert record.reference == record.dense.readings[place - 1]
    assert record.reference.passes == place
    then = torch.tensor(record.reference.flows["information.signed"], dtype=torch.float64)
    for level in record.levels:
        last = level.readings[-1]
        now = torch.tensor(last.flows["information.signed"], dtype=torch.float64)
        assert last.decision is not None
        assert last.decision.evidence["distance"] == pytest.approx(float((now - then).norm()))


@pytest.mark.parametrize(
    ("stop", "passes"),
    [
        ({"rule": "fixed-budget", "passes": 1.5}, [3 / 5, 5 / 5, 8 / 5]),
        ({"rule": "at-most", "passes": 0.7, "of": {"rule": "plateau"}}, [3 / 5, 4 / 5]),
        (
            {"rule": "at-least", "passes": 1.3, "of": {"rule": "fixed-budget", "passes": 0.5}},
            [3 / 5, 5 / 5, 7 / 5],
        ),
    ],
    ids=["fixed-budget", "at-most", "at-least"],
)
def test_passes_that_a_rule_names_are_kept_at_the_first_step_that_makes_them(
    tmp_path: Path, stop: dict[str, Any], passes: list[float]
) -> None:
    task = infcop.Classification(toy_batches(5), toy_batches(2, seed=1))
    settings = {
        **SHORT,
        "method": {**SHORT["method"], "stop": stop},
        "levels": {"max_passes": 3, "min_passes": 0.5, "unit": 1},
    }
    record = infcop.search(toy_model(), task, run_dir=tmp_path, **settings).record
    for level in record.levels:
        assert passes_of(level) == passes
        assert level.cost.training == round(passes[-1] * 5) * 16


# -- failures midway -----------------------------------------------------------------------------


class Fragile(nn.Module):
    """A user's model whose forward fails once a number of calls is used up."""

    calls_left: float = math.inf

    def __init__(self) -> None:
        super().__init__()
        self.net = toy_model()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        Fragile.calls_left -= 1
        if Fragile.calls_left < 0:
            raise ValueError("the sensor is gone")
        output: torch.Tensor = self.net(inputs)
        return output


@pytest.mark.parametrize("calls", [15, 60])
def test_a_model_that_fails_midway_is_explained_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    whole = infcop.search(Fragile(), toy_task(), run_dir=tmp_path / "whole", **SHORT)
    folder = tmp_path / "failed"
    monkeypatch.setattr(Fragile, "calls_left", calls)
    with pytest.raises(TrainingError, match="ValueError: the sensor is gone") as failure:
        infcop.search(Fragile(), toy_task(), run_dir=folder, **SHORT)
    assert failure.value.exit_code == 3
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "failed"
    assert "the sensor is gone" in events[-1]["error"]
    assert infcop.load_record(folder).outcome is None
    monkeypatch.setattr(Fragile, "calls_left", math.inf)
    again = infcop.search(Fragile(), toy_task(), run_dir=folder, **SHORT)
    assert without_time(again.record) == without_time(whole.record)
    assert same_tensors(again.model, whole.model)


# -- the run folder ------------------------------------------------------------------------------


def test_a_config_of_somebody_elses_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(RunFolderError, match="was there before any run"):
        infcop.search(toy_model(), toy_task(), run_dir=tmp_path, **SHORT)
    assert (tmp_path / "config.yaml").read_text() == "mine: 1\n"
    assert not (tmp_path / "checkpoints").exists()


def test_only_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    foreign = [".mine.tmp", ".record.json.mine.tmp", "checkpoints/.mine.tmp", "own/.mine.12.tmp"]
    leftovers = [".record.json.123.tmp", "checkpoints/.latest.safetensors.7.tmp"]
    for name in (*foreign, *leftovers):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    infcop.search(toy_model(), toy_task(), run_dir=tmp_path, **SHORT)
    assert [(tmp_path / name).read_text() for name in foreign] == foreign
    assert not any((tmp_path / name).exists() for name in leftovers)


def test_a_run_from_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    whole = infcop.search(toy_model(), toy_task(), run_dir=tmp_path / "whole", **SHORT)
    folder = tmp_path / "older"
    interrupted(folder, 20)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    del settings["levels"]["max_levels"]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    resumed = infcop.search(toy_model(), toy_task(), run_dir=folder, **SHORT)
    assert without_time(resumed.record) == without_time(whole.record)
    assert same_tensors(resumed.model, whole.model)


def test_a_run_from_before_a_setting_existed_had_its_default(tmp_path: Path) -> None:
    interrupted(tmp_path, 20)
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del settings["levels"]["max_levels"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    levels = {**SHORT["levels"], "max_levels": 7}
    with pytest.raises(RunFolderError, match=r"levels\.max_levels is 100 there, 7 now"):
        infcop.search(toy_model(), toy_task(), run_dir=tmp_path, **{**SHORT, "levels": levels})


def test_a_run_of_a_newer_version_is_named_and_left_alone(tmp_path: Path) -> None:
    interrupted(tmp_path, 20)
    record = json.loads((tmp_path / "record.json").read_text())
    newer = json.dumps({**record, "schema_version": SCHEMA_VERSION + 1, "unheard of": True})
    (tmp_path / "record.json").write_text(newer)
    with pytest.raises(RunFolderError, match=r"newer infcop .*upgrade"):
        infcop.search(toy_model(), toy_task(), run_dir=tmp_path, **SHORT)
    assert (tmp_path / "record.json").read_text() == newer


def test_settings_of_a_search_are_no_run_for_the_command_line(search: Search) -> None:
    config = search().run_dir / "config.yaml"
    assert yaml.safe_load(config.read_text())["data"]["name"] == "custom"
    with pytest.raises(ConfigError, match="'custom'"):
        build_workload(load_config(config))


# -- wrong use -----------------------------------------------------------------------------------


class Endless(IterableDataset[Any]):
    """A dataset that does not know its length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(toy_batches())


class Streaming(Regression):
    def __init__(self) -> None:
        super().__init__()
        self.train_loader = DataLoader(Endless(), batch_size=None)  # type: ignore[assignment]


def test_a_class_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"an instance of nn\.Module, got the class Fragile"):
        infcop.search(Fragile, toy_task(), run_dir=tmp_path, **SHORT)  # type: ignore[arg-type]


def test_a_compiled_module_is_refused_with_the_remedy(tmp_path: Path) -> None:
    compiled: Any = torch.compile(nn.Linear(2, 2), backend="eager")
    with pytest.raises(ModelError, match=r"pass model\._orig_mod"):
        infcop.search(compiled, toy_task(), run_dir=tmp_path, **SHORT)


def test_batches_of_another_kind_are_named(tmp_path: Path) -> None:
    batches = [{"inputs": inputs, "labels": labels} for inputs, labels in toy_batches()]
    task = infcop.Classification(batches, batches)
    with pytest.raises(DataError, match=r"expected batches \(inputs, labels\), got dict"):
        infcop.search(toy_model(), task, run_dir=tmp_path, **SHORT)


def test_a_loader_without_a_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train_loader to be iterable with a length"):
        infcop.Classification(DataLoader(Endless(), batch_size=None), toy_batches())
    with pytest.raises(DataError, match="train_loader to be iterable with a length"):
        infcop.search(toy_model(), Streaming(), run_dir=tmp_path, **SHORT)
