"""``infcop measure``: from a name to a table, JSON and a page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import infcop
from infcop.cli import main
from infcop.core.measurement import MeasurementRecord
from infcop.models.build import build_model
from infcop.pipeline.measurement import Measurement

MODELS = """
from torch import nn


def small(in_channels, image_size, num_classes, width=8):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(width * (image_size - 2) ** 2, 12), nn.ReLU(), nn.Linear(12, num_classes),
    )


def one_layer(in_channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, num_classes))


class Dictionary(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.inner = one_layer(1, 8, num_classes)

    def forward(self, x):
        return {"logits": self.inner(x)}
"""

RUN = """
density: 0.3
method: {name: lth, schedule: {remove: 0.5}}
data: {name: digits, train_examples: 200}
model: {name: "measured_models:small"}
training: {batch_size: 50}
dense: {passes: 1}
levels: {max_passes: 1}
final: {passes: 0}
execution: {threads: 1, device: cpu}
"""

Infcop = Callable[..., tuple[int, str, str]]

SMALL = ["measure", "measured_models:small", "--examples", "128", "--quiet"]


@pytest.fixture
def infcop_(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Infcop]:
    """Run the command line in this process; return its exit code, its output and its errors."""
    (tmp_path / "measured_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFCOP_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["infcop", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    yield run
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, before)
    sys.modules.pop("measured_models", None)


def measured(infcop_: Infcop, *words: str) -> MeasurementRecord:
    """Return what ``--json`` gives, after making sure that nothing else was said."""
    code, out, err = infcop_(*words, "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert Path(content.pop("page")).is_file()
    return Measurement.from_json(json.dumps(content)).record


def test_a_model_of_the_zoo_as_a_table_and_a_page(infcop_: Infcop) -> None:
    code, out, err = infcop_("measure", "lenet-300-100", "--examples", "200")
    assert (code, err) == (0, "loading PyTorch and the data ...\n")
    lines = out.splitlines()
    assert lines[0] == (
        "lenet-300-100: weights drawn with seed 0; 200 examples of digits, in evaluation mode; "
        "full gradient"
    )
    assert lines[1].startswith("3 prunable layers and 2 edges; ")
    assert lines[-1] == f"Page: {Path('measure', 'lenet-300-100.html')}"
    page = Path("measure", "lenet-300-100.html").read_text(encoding="utf-8")
    assert "<h1>lenet-300-100</h1>" in page
    assert page.count("<rect") == 3


def test_the_same_seed_gives_the_same_json_and_page(infcop_: Infcop) -> None:
    outputs = [infcop_(*SMALL, "--seed", seed, "--json")[1] for seed in ("3", "3", "4")]
    assert outputs[0] == outputs[1] != outputs[2]
    pages = []
    for name in ("a.html", "b.html"):
        infcop_(*SMALL, "--html", name)
        pages.append(Path(name).read_bytes())
    assert pages[0] == pages[1]


def test_the_json_is_all_of_what_the_function_finds(infcop_: Infcop) -> None:
    record = measured(infcop_, *SMALL)
    assert record.data == "digits"
    assert record.seed == 0
    assert measured(infcop_, *SMALL, "--seed", "3").seed == 3
    assert [edge.ends for edge in record.edges] == [("0", "3"), ("3", "5")]
    assert record.examples == 128
    assert all(edge.signed_error is not None for edge in record.edges)
    assert [layer.shape for layer in record.layers] == [(8, 1, 3, 3), (12, 288), (10, 12)]


def test_options_reach_model_and_measurement(infcop_: Infcop) -> None:
    record = measured(
        infcop_,
        *SMALL,
        *("--option", "width=4", "--batch-size", "32", "--gradient", "per-batch"),
        *("--edges", "0,5", "--html", "deep/down/here.html"),
    )
    assert record.layers[0].shape == (4, 1, 3, 3)
    assert (record.gradient, record.selection) == ("per-batch", ("0", "5"))
    assert [edge.ends for edge in record.edges] == [("0", "5")]
    assert Path("deep/down/here.html").is_file()
    assert not Path("measure").exists()
    assert measured(infcop_, *SMALL, "--edges", "main-path").selection == "main-path"


def test_batches_of_another_size_change_only_gradients_per_batch(infcop_: Infcop) -> None:
    full, per_batch = (
        [
            measured(infcop_, *SMALL, "--gradient", how, "--batch-size", size).layers[0]
            for size in ("16", "64")
        ]
        for how in ("full", "per-batch")
    )
    assert full[0].gradient_norm == pytest.approx(full[1].gradient_norm, rel=1e-4)
    assert per_batch[0].gradient_norm > 1.1 * per_batch[1].gradient_norm


def test_trained_weights_are_loaded(infcop_: Infcop) -> None:
    facts = {"in_channels": 1, "image_size": 8, "num_classes": 10}
    torch.manual_seed(5)
    model = build_model("measured_models:small", **facts, options={})
    with torch.no_grad():
        model[3].weight[:, ::2] = 0
    save_file(model.state_dict(), "trained.safetensors")
    record = measured(infcop_, *SMALL, "--weights", "trained.safetensors")
    assert record.weights == "of 'trained.safetensors'"
    assert record.layers[1].density == 0.5
    assert measured(infcop_, *SMALL).layers[1].density == 1


def test_the_sparse_network_of_a_run_is_measured(infcop_: Infcop) -> None:
    Path("run.yaml").write_text(RUN)
    assert infcop_("search", "run.yaml", "--quiet")[0] == 0
    record = measured(infcop_, "measure", "runs/run", "--quiet")
    run = infcop.load_record("runs/run")
    kept = run.levels[-1].kept_per_layer
    assert run.outcome is not None
    assert {layer.parameter: round(layer.density * one) for layer, one in sizes(record)} == kept
    assert record.weights == "of the sparse network in 'runs/run'"
    assert record.model == "measured_models:small"
    assert Path("measure/run.html").is_file()
    assert record.examples == run.data.probe
    again = measured(infcop_, "measure", "runs/run", "--quiet", "--examples", "64")
    assert again.examples == 64
    sparse = Path("runs/run/checkpoints/sparse.safetensors")
    unmasked = measured(infcop_, *SMALL, "--weights", str(sparse))
    # Gradients of pruned weights count only where nobody knows that they are pruned.
    for one, other in zip(record.layers, unmasked.layers, strict=True):
        assert one.density == other.density
        assert (one.gradient_norm or 0) < 0.9 * (other.gradient_norm or 0)


def sizes(record: MeasurementRecord) -> list[tuple]:
    return [(one, int(torch.tensor(one.shape).prod())) for one in record.layers]


@pytest.mark.filterwarnings("default")
def test_one_layer_has_gradient_flow_and_a_warning(infcop_: Infcop) -> None:
    code, out, err = infcop_("measure", "measured_models:one_layer", "--quiet")
    assert code == 0
    assert err.startswith("warning: measure: information flow was not measured")
    assert "1 prunable layer and 0 edges" in out
    assert "gradient norm" in out


BAD: dict[str, tuple[list[str], str]] = {
    "model": (["lenet-5OO"], "no model 'lenet-5OO' in the zoo; did you mean 'lenet-5'"),
    "factory": (["measured_models:smal"], "did you mean 'small'"),
    "data": ([*SMALL[1:4], "--data", "digts"], "unknown data set 'digts'; did you mean 'digits'"),
    "missing data": ([*SMALL[1:4], "--data", "mnist", "--data-dir", "."], "'mnist' is not in '.'"),
    "option": ([*SMALL[1:4], "--option", "wdth=4"], "no option 'wdth'; did you mean 'width'"),
    "option without value": ([*SMALL[1:4], "--option", "width"], "expected key=value"),
    "one example": (
        ["measured_models:small", "--examples", "1"],
        "probe_examples: got 1; expected greater than or equal to 2",
    ),
    "batch size": ([*SMALL[1:4], "--batch-size", "0"], "training.batch_size: got 0"),
    "seed": ([*SMALL[1:4], "--seed", "-1"], "seed: got -1"),
    "edges": ([*SMALL[1:4], "--edges", "0,4"], "the layer '4' is not a prunable layer"),
    "gradient": ([*SMALL[1:4], "--gradient", "ful"], "did you mean 'full'"),
    "output": (["measured_models:Dictionary"], "TypeError"),
    "page": ([*SMALL[1:4], "--html", "file/net.html"], "file/net.html': "),
    "weights": ([*SMALL[1:4], "--weights", "nowhere.safetensors"], "there is no such file"),
    "weights of another model": (
        [*SMALL[1:4], "--weights", "other.safetensors"],
        "belongs to another model: only the model has '0.bias' and 5 more names; only the file "
        "has 'other'",
    ),
    "weights that are not finite": (
        [*SMALL[1:4], "--weights", "nan.safetensors"],
        "NaN or infinity in '0' from batch 0 on",
    ),
    "no run folder": (["empty"], "'empty' is not a run folder"),
    "no such folder": (["runs/nowhere"], "'runs/nowhere': there is no such folder"),
    "own model": (["from_python"], "given its model and data from Python"),
    "unfinished": (["unfinished"], "not finished"),
    "weights for a run": (
        ["from_python", "--weights", "other.safetensors"],
        "holds weights of its own; leave --weights out",
    ),
}


@pytest.fixture
def bad_files(infcop_: Infcop) -> None:
    Path("file").write_text("in the way")
    Path("empty").mkdir()
    save_file({"other": torch.zeros(1)}, "other.safetensors")
    facts = {"in_channels": 1, "image_size": 8, "num_classes": 10}
    state = build_model("measured_models:small", **facts, options={}).state_dict()
    state["0.weight"][0] = torch.nan
    save_file(state, "nan.safetensors")
    inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    batches = [(inputs, (inputs.sum(dim=1) > 0).long())]
    record = infcop.search(
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)),
        infcop.Classification(batches, batches),
        run_dir="from_python",
        density=0.5,
        method="lth",
        dense={"passes": 1},
        levels={"max_passes": 1},
        final={"passes": 0},
    ).record
    Path("unfinished").mkdir()
    unfinished = record.model_copy(update={"outcome": None})
    Path("unfinished/record.json").write_text(unfinished.model_dump_json())


@pytest.mark.usefixtures("bad_files")
def test_bad_input_is_refused_with_a_reason(infcop_: Infcop) -> None:
    for case, (words, reason) in BAD.items():
        code, out, err = infcop_("measure", *words, "--quiet")
        assert (code, out) == (2, ""), case
        assert err.startswith("error: "), case
        assert reason in err, case
        assert "Traceback" not in err, case
    assert not Path("measure").exists()


@pytest.mark.parametrize("module", ["infcop.core.measurement", "infcop.pipeline.measure_settings"])
def test_settings_and_values_need_no_torch(module: str) -> None:
    assert fresh(f"import sys, {module}\nprint('torch' in sys.modules)") == "False"


def test_help_needs_no_torch() -> None:
    code = """
import runpy, sys
sys.argv = ["infcop", "measure", "--help"]
try:
    runpy.run_module("infcop", run_name="__main__")
except SystemExit as exit:
    print("code", exit.code, "torch" in sys.modules)
"""
    told = fresh(code)
    assert told.splitlines()[-1] == "code 0 False"
    assert "--weights" in told


def fresh(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    source = str(Path(infcop.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": source, "COLUMNS": "100"},
    )
    return done.stdout.strip()
