"""From a finished search to files: which network, in which format, with which manifest."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import infcop
from infcop.core.config import SearchConfig
from infcop.core.records import Cost, DataFacts, ModelFacts, Outcome, RunRecord
from infcop.data.arrays import Images, ImageSet
from infcop.errors import ConfigError, ExportError
from infcop.export.manifest import Manifest
from infcop.export.sparse_read import sparse_meta
from infcop.methods import resolve_method
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.export_run import data_sha256
from infcop.pipeline.export_words import export_dict, export_lines
from infcop.pipeline.exporting import Source, export_files, formats_of, settings_sha256
from infcop.pipeline.settings import differences, written
from tests.reference.export import same_bits

INPUTS = (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),)


def network(width: int) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)).eval()


def source(**changes: Any) -> Source:
    outcome = Outcome(
        density=0.25,
        kept=10,
        prunable=40,
        dense={"accuracy": 0.9},
        sparse={"accuracy": 0.8},
        measured_on="held-out",
        cost=Cost(),
        full_budget_training=1,
        seconds=1.0,
    )
    data = DataFacts(
        name="custom",
        train=30,
        probe=8,
        held_out=9,
        test=0,
        main_metric="accuracy",
        higher_is_better=True,
    )
    record = RunRecord(
        config=written(SearchConfig(density=0.25, seed=7, method=resolve_method("lth")), "Net"),
        versions={},
        hardware={},
        model=ModelFacts(name="Net", parameters=50, prunable={}),
        data=data,
        outcome=outcome,
    )
    facts: dict[str, Any] = {
        "record": record,
        "masked": network(5),
        "compact": lambda: network(3),
        "inputs": INPUTS,
    }
    return Source(**{**facts, **changes})


def test_each_format_gets_the_network_that_suits_it(tmp_path: Path) -> None:
    given = source()
    before = copy.deepcopy(given.masked.state_dict())
    wanted = ["state-dict", "torch-export", "sparse", "safetensors"]
    done = export_files(given, wanted, tmp_path)
    assert [one.path.name for one in done] == [
        "masked.state.pt",
        "compact.pt2",
        "masked.sparse.safetensors",
        "masked.weights.safetensors",
    ]
    assert [one.manifest.file.format for one in done if one.manifest.file] == wanted
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        name for one in done for name in (one.path.name, one.manifest_path.name)
    )
    assert same_bits(infcop.load_sparse(done[2].path), before)
    assert same_bits(given.masked.state_dict(), before)


def test_either_network_in_any_format(tmp_path: Path) -> None:
    for kind, width in (("masked", 5), ("compact", 3)):
        (one,) = export_files(source(), "sparse", tmp_path, network=kind)
        assert one.path.name == f"{kind}.sparse.safetensors"
        assert infcop.load_sparse(one.path)["0.weight"].shape == (width, 4)
        assert one.manifest.parameters == 7 * width + 2
    (program,) = export_files(source(), "torch-export", tmp_path, network="masked")
    assert program.path.name == "masked.pt2"


def test_the_manifest_says_where_the_network_comes_from(tmp_path: Path) -> None:
    given = source(data_sha256="ab")
    (one,) = export_files(given, "sparse", tmp_path, licence="CC-BY-4.0")
    told = json.loads(one.manifest_path.read_text())
    assert Manifest.model_validate(told) == one.manifest
    inside = sparse_meta(one.path)
    file = told.pop("file")
    assert {**told, "file": None} == inside
    content = one.path.read_bytes()
    assert (file["name"], file["bytes"]) == ("masked.sparse.safetensors", len(content))
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert (told["model"], told["network"], told["seed"]) == ("Net", "masked", 7)
    assert (told["method"], told["licence"]) == ("lth", "CC-BY-4.0")
    assert told["density"] == {
        "asked": 0.25,
        "asked_in": "parameters",
        "prunable": 0.25,
        "all": 1 - 30 / 50,
    }
    assert told["data"] == {
        "name": "custom",
        "sha256": "ab",
        "train": 30,
        "held_out": 9,
        "test": 0,
        "split": {},
    }
    assert told["metrics"] == {
        "measured_on": "held-out",
        "dense": {"accuracy": 0.9},
        "sparse": {"accuracy": 0.8},
    }
    assert told["inputs"] == [{"name": "0", "dtype": "float32", "shape": [3, 4]}]
    assert {"infcop", "torch", "python"} <= set(told["versions"])


def test_the_same_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        export_files(source(), "sparse,safetensors,state-dict,torch-export", tmp_path / folder)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in "ab"
    )
    assert len(first) == 8
    assert first == second


def test_without_inputs_only_the_weights_of_full_size(tmp_path: Path) -> None:
    given = source(inputs=None)
    done = export_files(given, "sparse,safetensors,state-dict", tmp_path)
    assert all(one.manifest.inputs == () for one in done)
    before = sorted(tmp_path.iterdir())
    for to, kind in (("sparse,onnx", None), ("sparse", "compact")):
        with pytest.raises(ExportError, match=r"expected example inputs, got none.*\(x,\)"):
            export_files(given, to, tmp_path, network=kind)
    assert sorted(tmp_path.iterdir()) == before


def test_a_network_that_holds_more_than_tensors_is_refused(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> int:
            return 3

    with pytest.raises(ExportError, match="expected tensors, got int in '_extra_state'"):
        export_files(source(masked=Counting(4, 2)), "sparse", tmp_path)


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("onxn", "no format 'onxn'; did you mean 'onnx'"),
        ("sparse,", "no format ''; known: onnx, safetensors"),
        ([], "no format ''"),
        (["sparse", "zip"], "no format 'zip'"),
    ],
)
def test_unknown_formats_are_refused(to: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        formats_of(to)


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no network 'compct'; did you mean 'compact'"):
        export_files(source(), "sparse", tmp_path, network="compct")


def changed(config: Mapping[str, Any], *path: str, to: object) -> dict[str, Any]:
    first, *rest = path
    value = changed(config.get(first) or {}, *rest, to=to) if rest else to
    return {**config, first: value}


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        (("data", "dir"), "elsewhere", True),
        (("execution", "device"), "cuda", True),
        (("execution", "threads"), 7, True),
        (("execution", "checkpoint_seconds"), 1, True),
        (("execution", "precision"), "other", False),
        (("seed",), 9, False),
        (("method", "keep_per_layer"), 3, False),
        (("data", "held_out"), 0.3, False),
    ],
)
def test_the_hash_of_settings_agrees_with_what_may_change(
    path: tuple[str, ...], value: object, same: bool
) -> None:
    config = resolve_config({}).model_dump(mode="json")
    other = changed(config, *path, to=value)
    assert other != config
    assert (settings_sha256(other) == settings_sha256(config)) == same
    assert (differences(config, other) == []) == same


def test_the_hash_of_data_sees_every_byte() -> None:
    def images(**changes: Any) -> ImageSet:
        part = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
        facts = {"train": part, "test": part, **changes}
        return ImageSet("tiny", num_classes=2, class_names=("a", "b"), **facts)

    pixel, wide = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 2, 8).byte()
    pixel[1, 0, 3, 3] = 1
    labels = torch.tensor([0, 1])
    sets = [
        images(),
        images(test=Images(pixel, labels)),
        images(train=Images(pixel, labels)),
        images(train=Images(pixel * 0, torch.tensor([1, 1]))),
        images(train=Images(wide, labels), test=Images(wide, labels)),
    ]
    assert len({data_sha256(one) for one in sets}) == len(sets)
    assert data_sha256(images()) == data_sha256(images())


def test_what_is_said(tmp_path: Path) -> None:
    done = export_files(source(), "sparse,torch-export", tmp_path)
    lines = export_lines(done)
    assert lines[0] == (
        f"{done[0].path}: the masked network as sparse, {done[0].path.stat().st_size:,} bytes"
    )
    assert lines[1].endswith("takes any batch size; checked on 3 and 7 examples, outputs the same")
    assert "The masked network, 37 parameters:" in lines
    assert "The compact network, 23 parameters:" in lines
    told = export_dict(done)["files"]
    assert [entry["path"] for entry in told] == [str(one.path) for one in done]
    assert json.loads(json.dumps(told))[0]["manifest"]["file"]["format"] == "sparse"
