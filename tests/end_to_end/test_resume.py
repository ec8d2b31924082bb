"""Interrupted anywhere and run again equals uninterrupted, bit for bit on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

import infcop
from infcop.core.config import SearchConfig
from infcop.errors import RunFolderError, TrainingError
from infcop.pipeline.search import search as search_function
from tests.end_to_end.conftest import SHORT, Interrupting, Unplugged, toy_batches, toy_model
from tests.end_to_end.test_search import same_tensors, without_time


def shuffled_task() -> infcop.Classification:
    """Return a task on ordinary loaders, one of them with a generator of its own."""
    inputs = torch.cat([x for x, _ in toy_batches()])
    labels = torch.cat([y for _, y in toy_batches()])
    data = TensorDataset(inputs, labels)
    generator = torch.Generator().manual_seed(0)
    return infcop.Classification(
        DataLoader(data, batch_size=16, shuffle=True, generator=generator),
        DataLoader(data, batch_size=32, shuffle=True),
    )


SETTINGS: dict[str, Any] = {
    **SHORT,
    "method": {"name": "infcop-gf", "stop": {"rule": "plateau", "patience": 0.5}},
    "density": 0.5,
    "levels": {"max_passes": 2, "unit": 0.5, "min_passes": 0.5},
}


def run(folder: Path, progress: Any = None, **changes: Any) -> infcop.Result:
    settings = {**SETTINGS, **changes}
    return search_function(
        toy_model(), shuffled_task(), run_dir=folder, progress=progress, **settings
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> infcop.Result:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("seconds", [0.0, 1000.0], ids=["every reading", "ends of stages"])
@pytest.mark.parametrize("every", [7, 10, 13])
def test_interrupted_again_and_again(
    tmp_path: Path, uninterrupted: infcop.Result, every: int, seconds: float
) -> None:
    execution = {"device": "cpu", "checkpoint_seconds": seconds, "threads": 1}
    interruptions = 0
    # With rare checkpoints a run must get to the end of a stage in one go: give it more each time.
    for attempt in range(200):
        after = every if seconds == 0 else every * (attempt + 1)
        try:
            result = run(tmp_path, Interrupting(after), execution=execution)
            break
        except Unplugged:
            interruptions += 1
    assert interruptions >= 1
    assert same_tensors(result.model, uninterrupted.model)
    ours, theirs = without_time(result.record), without_time(uninterrupted.record)
    ours["config"].pop("execution"), theirs["config"].pop("execution")
    assert ours == theirs


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, Interrupting(0))
    assert same_tensors(first.model, again.model)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unplugged):
        run(tmp_path, Interrupting(20))
    with pytest.raises(RunFolderError, match=r"seed is 0 there, 1 now"):
        run(tmp_path, seed=1)


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unplugged):
        run(tmp_path, Interrupting(20))
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    with pytest.raises(RunFolderError, match="another model"):
        infcop.search(
            other,
            shuffled_task(),
            run_dir=tmp_path,
            **{**SETTINGS, "method": {"name": "lth", "stop": SETTINGS["method"]["stop"]}}
            | {"method": SETTINGS["method"]},
        )


def test_masks_and_zeros_survive_a_resume(tmp_path: Path) -> None:
    with pytest.raises(Unplugged):
        run(tmp_path, Interrupting(45))
    state = load_file(tmp_path / "checkpoints" / "latest.safetensors")
    masks = {k.removeprefix("mask."): v for k, v in state.items() if k.startswith("mask.")}
    assert any(not bool(mask.all()) for mask in masks.values())
    for name, mask in masks.items():
        assert bool((state[f"model.{name}"][~mask] == 0).all())
    result = run(tmp_path)
    for name, mask in result.masks.items():
        assert not bool((mask & ~masks[name]).any()), "masks only shrink"


def test_what_was_computed_before_a_failure_stays(tmp_path: Path) -> None:
    """A loss that becomes NaN in a level leaves a readable record of everything before."""

    class Exploding(infcop.Classification):
        calls = 0

        def training_step(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
            type(self).calls += 1
            loss = super().training_step(model, batch)
            return loss * float("nan") if type(self).calls > 40 else loss

    task = Exploding(toy_batches(), toy_batches(2))
    with pytest.raises(TrainingError, match="became nan in level 1"):
        infcop.search(toy_model(), task, run_dir=tmp_path, **{**SHORT, "dense": {"passes": 6}})
    record = infcop.load_record(tmp_path)
    assert len(record.dense.readings) == 6
    assert record.outcome is None


CONFIG = """
density: 0.2
method: {name: lth, rewind: {to: epoch, passes: 1}}
training: {batch_size: 32}
dense: {passes: 4}
levels: {max_passes: 4}
final: {passes: 12}
execution: {threads: 1, checkpoint_seconds: 0}
"""
"""The final training is long enough for a signal to arrive in time on a busy machine."""


def command(folder: Path, run_dir: Path) -> list[str]:
    words = [sys.executable, "-m", "infcop", "search", str(folder / "c.yaml")]
    return [*words, "--run-dir", str(run_dir), "--json"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_command_is_killed_and_run_again(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    whole = subprocess.run(command(tmp_path, tmp_path / "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command(tmp_path, tmp_path / "killed"),
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has it ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    record = tmp_path / "killed" / "record.json"
    deadline = time.monotonic() + 60
    while not (record.exists() and infcop.load_record(record.parent).levels):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=60)
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == codes[number]
    if number != signal.SIGKILL:
        assert "run the same command again" in told
    assert infcop.load_record(record.parent).outcome is None
    again = subprocess.run(command(tmp_path, tmp_path / "killed"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    killed = infcop.load_record(record.parent)
    assert without_time(killed) == without_time(infcop.load_record(tmp_path / "whole"))
    for name in ("sparse", "dense", "rewind"):
        ours = load_file(tmp_path / "killed" / "checkpoints" / f"{name}.safetensors")
        theirs = load_file(tmp_path / "whole" / "checkpoints" / f"{name}.safetensors")
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_settings_survive_the_trip_to_yaml_and_back(tmp_path: Path) -> None:
    result = run(tmp_path)
    config = dict(result.record.config)
    assert (config.pop("data"), config.pop("model")) == (
        {"name": "custom"},
        {"name": "Sequential"},
    )
    again = SearchConfig.model_validate(config).model_dump(mode="json")
    # The loaders decide the batch size, the task the smoothing.
    del again["training"]["batch_size"], again["training"]["label_smoothing"]
    assert again == config
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert stored == result.record.config
