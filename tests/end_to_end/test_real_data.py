"""The named methods on real images, from files to the finished page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks.common import data_dir
from infcop.methods import METHODS
from infcop.models.build import build_model
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.workload import build_workload, run_config

FOLDER = data_dir()


def config(name: str, model: str, method: str, **changes: Any) -> Any:
    return resolve_config(
        {
            "density": 0.2,
            "method": {"name": method, "schedule": {"kind": "fraction", "remove": 0.5}},
            "data": {"name": name, "dir": str(FOLDER), "train_examples": 1200},
            "model": {"name": model, "options": {} if model == "lenet-300-100" else {"width": 0.5}},
            "training": {"lr": 0.05, "batch_size": 32},
            "dense": {"passes": 3},
            "levels": {"max_passes": 2},
            "final": {"passes": 2},
            "probe_examples": 256,
            "execution": {"device": "cpu", "threads": 1},
            **changes,
        }
    )


def needs(folder: str) -> pytest.MarkDecorator:
    there = FOLDER is not None and (FOLDER / folder).is_dir()
    return pytest.mark.skipif(not there, reason=f"the files of {folder} are not on this machine")


@needs("fashion-mnist")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_a_sparse_network_on_fashion_mnist(tmp_path: Path, method: str) -> None:
    # It compares the masks of five passes.
    longer = {"dense": {"passes": 5}} if method == "early-bird" else {}
    result = run_config(config("fashion-mnist", "lenet-5", method, **longer), run_dir=tmp_path)
    record = result.record
    assert (record.data.train, record.data.held_out, record.data.test) == (1080, 120, 10_000)
    assert record.data.split["fingerprint"]
    assert result.outcome.measured_on == "test"
    # Ten classes: 10 % is chance, and so short a dense training reaches about 70 %. Methods that
    # prune before it have these few passes only, in which a random mask learns next to nothing.
    untrained = record.dense.cost.training == 0
    drawn = record.config["method"]["score"]["kind"] == "random"
    assert untrained or result.outcome.dense["accuracy"] > 0.5
    assert drawn or result.outcome.sparse["accuracy"] > (0.2 if untrained else 0.5)
    plain = build_model(
        "lenet-5", in_channels=1, image_size=28, num_classes=10, options={"width": 0.5}
    )
    plain.load_state_dict(load_file(tmp_path / "checkpoints" / "sparse.safetensors"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert method in page


@needs("cifar-10-subset")
def test_a_residual_network_is_searched_on_colour_images(tmp_path: Path) -> None:
    settings = config(
        "cifar-10", "resnet-20", "infcop-if", dense={"passes": 1}, final={"passes": 1}, density=0.5
    )
    settings = settings.model_copy(
        update={"model": settings.model.model_copy(update={"options": {"width": 0.25}})}
    )
    record = run_config(settings, run_dir=tmp_path).record
    assert len(record.model.edges) == 19, "the main path of ResNet-20 has 20 layers"
    assert len(record.levels[0].readings[0].flows["information.signed"]) == 19
    assert all(level.stopped_by for level in record.levels)


@needs("fashion-mnist")
def test_no_part_of_the_data_overlaps_another(tmp_path: Path) -> None:
    task = build_workload(config("fashion-mnist", "lenet-5", "lth")).task
    parts = {
        name: {x.numpy().tobytes() for batch, _ in loader for x in batch}
        for name, loader in (("train", task.train_loader), ("held-out", task.held_out_loader))
    }
    assert not parts["train"] & parts["held-out"]
    probe = {x.numpy().tobytes() for batch, _ in task.probe_loader or [] for x in batch}
    assert probe <= parts["train"]
