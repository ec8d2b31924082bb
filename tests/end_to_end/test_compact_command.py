"""``infcop compact``: from a run folder to a smaller network, its numbers and the page."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import infcop
from infcop.cli import main
from infcop.models.build import build_model
from infcop.pipeline.store import RunStore
from tests.reference.pages import Page

RUN = """
density: 0.05
method: {name: lth, schedule: {remove: 0.8}}
data: {name: digits, train_examples: 200}
model: {name: lenet-300-100}
training: {batch_size: 50}
dense: {passes: 2}
levels: {max_passes: 1}
final: {passes: 0}
execution: {threads: 1, device: cpu}
"""

Infcop = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one run has finished."""
    place = tmp_path_factory.mktemp("compact")
    (place / "small.yaml").write_text(RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["infcop", "search", "small.yaml", "--quiet"])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            main()
        signal.signal(signal.SIGTERM, before)
    assert not caught.value.code
    return place


@pytest.fixture
def infcop_(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Infcop]:
    """Run the command line beside a copy of the run; return exit code, output and errors."""
    shutil.copytree(runs / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
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


def test_a_run_made_smaller(infcop_: Infcop) -> None:
    code, out, err = infcop_("compact", "runs/small")
    assert (code, err) == (0, "loading PyTorch and the data ...\n")
    lines = out.splitlines()
    assert lines[0].startswith("With all that is dead left out, the network has ")
    table = {line.split()[0]: line.split() for line in lines if line.split()[1:]}
    # Whole inputs and units of the first layer go, and with them parameters.
    assert int(table["compact"][3].replace(",", "")) < int(table["masked"][3].replace(",", ""))
    assert table["compact"][1:3] == table["masked"][1:3]
    assert "speed-up" not in out
    assert lines[-3:] == [
        f"Network: {Path('runs/small/export/compact.safetensors')}",
        f"Numbers: {Path('runs/small/compact.json')}",
        f"Report: {Path('runs/small/report.html')}",
    ]
    assert all(Path(line.partition(": ")[2]).is_file() for line in lines[-3:])


def test_the_network_can_be_used_without_the_search(infcop_: Infcop) -> None:
    infcop_("compact", "runs/small", "--quiet")
    facts = {"in_channels": 1, "image_size": 8, "num_classes": 10, "options": {}}
    masked = build_model("lenet-300-100", **facts).eval()
    small = infcop.load_compact(masked, "runs/small/export/compact.safetensors")
    run = infcop.load_record("runs/small")
    assert run.outcome is not None
    assert sum(p.numel() for p in small.parameters()) < run.model.parameters
    assert small(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_speed_on_request(infcop_: Infcop) -> None:
    code, out, _ = infcop_("compact", "runs/small", "--report", "--threads", "1", "--quiet")
    assert code == 0
    assert "Its measured speed-up over the dense network" in out
    assert "times fewer multiply-adds" in out
    page = Page(Path("runs/small/report.html").read_text(encoding="utf-8"))
    assert "How fast they are" in page.text
    assert "plot-removed" in [x.get("id") for x in page.all("div")]
    # A page that is written anew keeps the section.
    infcop_("report", "runs/small")
    assert "How fast they are" in Path("runs/small/report.html").read_text(encoding="utf-8")
    assert len(out.partition("Times were measured on ")[2].splitlines()[0]) > len("2026-01-31, ")


def test_times_stay_until_the_network_is_another(infcop_: Infcop) -> None:
    infcop_("compact", "runs/small", "--report", "--threads", "1", "--quiet")
    numbers = Path("runs/small/compact.json")
    before = numbers.read_bytes()
    code, out, _ = infcop_("compact", "runs/small", "--quiet")
    assert code == 0
    assert numbers.read_bytes() == before
    assert "Times were measured on " in out
    assert "How fast they are" in Path("runs/small/report.html").read_text(encoding="utf-8")

    numbers.write_text(json.dumps({**json.loads(before), "source_sha256": "0" * 64}))
    code, out, _ = infcop_("compact", "runs/small", "--quiet")
    assert code == 0
    assert "speed-up" not in out
    assert "by an older infcop, and are left out; --report measures them anew." in out


@pytest.mark.parametrize("command", [["compact"], ["export", "--to", "sparse"]])
def test_a_folder_in_use_can_be_left_alone(infcop_: Infcop, command: list[str]) -> None:
    words = [command[0], "runs/small", *command[1:], "--quiet"]
    with RunStore("runs/small").locked():
        code, _, err = infcop_(*words)
        assert code == 2
        assert "wait for it, or choose another folder with --out FOLDER" in " ".join(err.split())
        assert infcop_(*words, "--out", "elsewhere")[0] == 0
    assert any(Path("elsewhere").rglob("*.safetensors"))


def test_json(infcop_: Infcop) -> None:
    code, out, err = infcop_("compact", "runs/small", "--quiet", "--json", "--out", "elsewhere")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [x["network"] for x in told["networks"]] == ["dense", "masked", "compact", "onnx"]
    assert told["speed_ups"] == []
    assert Path(told["weights"]) == Path("elsewhere/export/compact.safetensors")
    assert "page" not in told
    assert not Path("runs/small/compact.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs/none"], "'runs/none' is not a run folder: expected a file record.json in it"),
        (["runs/small", "--model", "a:b"], "knows its model, lenet-300-100, and its data"),
        (["runs/small", "--threads", "two"], "expected positive whole numbers with commas"),
        (["runs/small", "--threads", "1"], "--threads: expected --report beside it"),
        (["runs/small", "--report", "--threads", "9" * 11], "each at most 1024"),
        (["runs/small", "--report", "--threads", "9" * 5000], "each at most 1024"),
        (["runs/small", "--threads", "0"], "expected positive whole numbers with commas"),
        (["runs/small", "--device", "abc"], "expected a device of this machine, got 'abc'"),
    ],
)
def test_bad_input(infcop_: Infcop, words: list[str], told: str) -> None:
    code, out, err = infcop_("compact", *words, "--quiet")
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("error: ")
