"""``infcop export``: from a run folder to files that other programs read."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import infcop
from infcop.cli import main
from infcop.data.registry import load_set
from infcop.export.onnx import onnx_session
from infcop.pipeline.export_run import data_sha256
from tests.reference.export import same_bits

MODELS = """
import torch
from torch import nn

import infcop


def small(in_channels, image_size, num_classes, width=6):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(width * (image_size - 2) ** 2, 12), nn.ReLU(), nn.Linear(12, num_classes),
    )


class Turning(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.layers = nn.Flatten(), small(1, 8, 10)

    def forward(self, x):
        return self.layers(x) if x.sum() > 0 else self.layers(-x)


def turning():
    return Turning()


def from_python():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (torch.randn(3, 4),)


def another():
    return nn.Linear(4, 2), (torch.randn(3, 4),)
"""

RUN = """
density: 0.1
method: {name: lth, schedule: {remove: 0.9}}
data: {name: digits, train_examples: 200}
model: {name: "exported_models:small"}
training: {batch_size: 50}
dense: {passes: 1}
levels: {max_passes: 1}
final: {passes: 0}
execution: {threads: 1, device: cpu}
"""

Infcop = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with the module of models; its runs are made by the first test that asks."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "exported_models.py").write_text(MODELS)
    (folder / "run.yaml").write_text(RUN)
    yield folder
    sys.modules.pop("exported_models", None)


@pytest.fixture
def infcop_(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Infcop]:
    """Run the command line in this process; return its exit code, its output and its errors."""
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("INFCOP_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["infcop", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capfd.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    if not Path("runs/run").exists():
        assert run("search", "run.yaml", "--quiet")[0] == 0
    yield run
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, before)


def from_python(name: str) -> Path:
    """Search with a model from Python; return the run folder."""
    folder = Path("runs", name)
    if not folder.exists():
        inputs = torch.randn(20, 4)
        task = infcop.Classification(*[[(inputs, (inputs.sum(1) > 0).long())]] * 2)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        infcop.search(
            model,
            task,
            run_dir=folder,
            density=0.5,
            method={"name": "lth", "schedule": {"remove": 0.5}},
            dense={"passes": 1},
            levels={"max_passes": 1},
            final={"passes": 0},
        )
    return folder


def test_every_format_of_a_run(infcop_: Infcop) -> None:
    words = ["--to", "onnx,sparse", "--to", "safetensors,torch-export,state-dict"]
    code, out, err = infcop_("export", "runs/run", *words, "--license", "MIT")
    assert (code, err) == (0, "loading PyTorch and the data ...\n")
    lines = out.splitlines()
    folder = Path("runs", "run", "export")
    names = ["compact.onnx", "masked.sparse.safetensors", "masked.weights.safetensors"]
    names += ["compact.pt2", "masked.state.pt"]
    for name, line in zip(names, lines, strict=False):
        size = (folder / name).stat().st_size
        assert line.startswith(f"{folder / name}: the {name.partition('.')[0]} network as ")
        assert f", {size:,} bytes" in line
    assert "checked on 16 and 33 examples, outputs within " in lines[0]
    assert lines[-1] == "The manifest of each file is beside it: FILE.json"
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        name for file in names for name in (file, f"{file}.json")
    )

    weights = infcop.load_sparse(folder / "masked.sparse.safetensors")
    state = torch.load(folder / "masked.state.pt", weights_only=True)
    assert same_bits(weights, state)
    told = json.loads((folder / "compact.onnx.json").read_text())
    assert told["data"]["sha256"] == data_sha256(load_set("digits"))
    assert (told["licence"], told["metrics"]["measured_on"]) == ("MIT", "test")
    assert told["file"]["difference"] < 1e-5
    assert told["density"]["prunable"] == pytest.approx(0.1, abs=1e-3)
    inside = {p.key: p.value for p in onnx.load(folder / "compact.onnx").metadata_props}
    assert json.loads(inside["infcop"]) == {**told, "file": None}

    network = sys.modules["exported_models"].small(1, 8, 10)
    network.load_state_dict(weights, strict=True)
    inputs = torch.randn(7, 1, 8, 8)
    (found,) = onnx_session(folder / "compact.onnx")((inputs,))
    assert torch.allclose(found, network(inputs), atol=1e-5)
    masks = sum(int((weight != 0).sum()) for weight in weights.values() if weight.ndim > 1)
    assert masks == infcop.load_record("runs/run").outcome.kept  # type: ignore[union-attr]


def test_json_another_folder_and_another_network(infcop_: Infcop) -> None:
    words = ["--to", "sparse", "--network", "compact", "--out", "elsewhere"]
    code, out, err = infcop_("export", "runs/run", *words, "--json", "--quiet")
    assert (code, err) == (0, "")
    (told,) = json.loads(out)["files"]
    assert told["path"] == str(Path("elsewhere", "compact.sparse.safetensors"))
    assert Path(told["manifest_path"]).is_file()
    assert told["manifest"]["network"] == "compact"
    assert told["manifest"]["licence"] is None
    sizes = told["manifest"]["sizes"]
    assert sizes["sparse"] < sizes["dense"]


def test_the_same_run_gives_the_same_files(infcop_: Infcop) -> None:
    for folder in ("first", "second"):
        words = ["--to", "sparse,safetensors,state-dict", "--out", folder, "--quiet"]
        assert infcop_("export", "runs/run", *words)[0] == 0
    first, second = (
        {p.name: p.read_bytes() for p in Path(folder).iterdir()} for folder in ("first", "second")
    )
    assert len(first) == 6
    assert first == second


def test_a_run_from_python_by_its_factory(infcop_: Infcop) -> None:
    folder = from_python("mine")
    words = ["--to", "sparse,torch-export", "--quiet"]
    code, _, err = infcop_("export", str(folder), *words)
    assert code == 2
    assert "expected --model package.module:factory" in err
    code, _, err = infcop_("export", str(folder), *words, "--model", "exported_models:another")
    assert code == 2
    assert "was a search of another model" in err
    code, _, err = infcop_("export", str(folder), *words, "--model", "exported_models:from_python")
    assert (code, err) == (0, "")
    told = json.loads((folder / "export" / "compact.pt2.json").read_text())
    assert told["data"]["sha256"] is None
    assert told["inputs"] == [{"name": "0", "dtype": "float32", "shape": [3, 4]}]


SHORT: dict[str, Any] = {
    "density": 0.5,
    "method": {"name": "lth", "schedule": {"remove": 0.5}},
    "dense": {"passes": 1},
    "levels": {"max_passes": 1},
    "final": {"passes": 0},
}


def test_a_result_exports_itself(infcop_: Infcop) -> None:
    inputs = torch.randn(20, 4)
    task = infcop.Classification(*[[(inputs, (inputs.sum(1) > 0).long())]] * 2)
    result = infcop.search(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)),
        task,
        run_dir="runs/result",
        **SHORT,
    )
    before = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
    sparse, program = result.export(
        ["sparse", "torch-export"], example_inputs=(inputs[:2],), licence="MIT"
    )
    assert sparse.path == Path("runs/result/export/masked.sparse.safetensors")
    assert same_bits(infcop.load_sparse(sparse.path), before)
    assert same_bits(dict(result.model.state_dict()), before)
    loaded = torch.export.load(program.path).module()
    assert torch.allclose(loaded(inputs), result.model(inputs), atol=1e-6)
    (elsewhere,) = result.export("state-dict", out="mine")
    assert elsewhere.path == Path("mine/masked.state.pt")


def test_a_result_knows_how_many_examples_its_inputs_hold(infcop_: Infcop) -> None:
    """The first input is no batch; the batch size is free all the same."""

    class Weighted(nn.Sequential):
        def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            table, inputs = pair
            hidden: torch.Tensor = super().forward(inputs * table.sum(0))
            return hidden

    class Beside(infcop.Classification):
        def inputs(self, batch: Any) -> Any:
            return (batch[0],)

        def batch_size(self, batch: Any) -> int:
            return len(batch[1])

    inputs, table = torch.randn(20, 4), torch.rand(7, 4)
    task = Beside(*[[((table, inputs), (inputs.sum(1) > 0).long())]] * 2)
    result = infcop.search(
        Weighted(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)),
        task,
        run_dir="runs/table",
        **SHORT,
    )
    (program,) = result.export("torch-export")
    loaded = torch.export.load(program.path).module()
    assert torch.allclose(loaded((table, inputs[:5])), result.model((table, inputs[:5])), atol=1e-6)


CASES: dict[str, tuple[list[str], str]] = {
    "no format": (["runs/run"], "Missing option '--to'"),
    "misspelt format": (["runs/run", "--to", "onxn"], "no format 'onxn'; did you mean 'onnx'?"),
    "misspelt network": (
        ["runs/run", "--to", "sparse", "--network", "dense"],
        "no network 'dense'; known: compact, masked",
    ),
    "no run": (["nowhere", "--to", "sparse"], "'nowhere' is not a run folder"),
    "unfinished run": (["unfinished", "--to", "sparse"], "not finished; expected a finished one"),
    "a factory too many": (
        ["runs/run", "--to", "sparse", "--model", "exported_models:another"],
        "leave --model out",
    ),
    "a folder in the way": (
        ["runs/run", "--to", "sparse", "--out", "run.yaml"],
        "can't write 'run.yaml/masked.sparse.safetensors'",
    ),
    "data of another split": (
        ["split", "--to", "sparse"],
        "was run on other data: expected the split",
    ),
    "data of another size": (
        ["larger", "--to", "sparse"],
        "was run on other data: expected 7 held-out examples, got",
    ),
    "data that is gone": (
        ["moved", "--to", "sparse", "--data-dir", "empty"],
        "'mnist' is not in 'empty'",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, infcop_: Infcop) -> None:
    words, told = CASES[name]
    for folder, change in (
        ("unfinished", {"outcome": None}),
        ("moved", {}),
        ("split", {}),
        ("larger", {}),
    ):
        record = json.loads(Path("runs/run/record.json").read_text())
        if folder == "moved":
            record["data"]["name"] = record["config"]["data"]["name"] = "mnist"
        if folder == "split":
            record["data"]["split"]["fingerprint"] = "0" * 64
        if folder == "larger":
            record["data"]["held_out"] = 7
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "record.json").write_text(json.dumps({**record, **change}))
    code, out, err = infcop_("export", *words, "--quiet")
    assert (code, out) == (2, "")
    assert told in " ".join(err.split())


def test_a_network_that_cannot_be_captured(infcop_: Infcop) -> None:
    """Its weights can be exported all the same."""
    Path("turning.yaml").write_text(RUN.replace(":small", ":turning"))
    assert infcop_("search", "turning.yaml", "--quiet")[0] == 0
    words = ["export", "runs/turning", "--network", "masked", "--quiet", "--to"]
    code, out, err = infcop_(*words, "onnx")
    assert (code, out) == (2, "")
    assert "can't be captured by torch.export" in err
    assert "or export the weights: --to sparse, safetensors or state-dict" in err
    assert infcop_(*words, "sparse")[0] == 0
