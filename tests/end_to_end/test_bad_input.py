"""What a newcomer sees who gets something wrong; the wording is kept in a golden file.

Set INFCOP_UPDATE_GOLDEN=1 to write the file anew, and read the difference.
"""

from __future__ import annotations

import gzip
import os
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from infcop.cli import main

GOLDEN = Path(__file__).with_name("bad_input.golden")

CONFIG = """
density: 0.3
method: {name: lth, schedule: {remove: 0.5}}
dense: {passes: 1}
levels: {max_passes: 1}
final: {passes: 0}
execution: {threads: 1, device: cpu}
"""

COMPARISON = {
    "seeds": [0, 1],
    "baseline": "lth",
    "densities": [0.2, 0.05],
    "settings": {"digits": {"dense": {"passes": 2}}},
    "methods": {"lth": {"method": "lth"}},
}
COMPARISONS = {
    "unfair": {"methods": {"lth": {"method": "lth"}, "mine": {"method": "lth", "training": {}}}},
    "baseline": {"baseline": "lht"},
    "unfit": {"methods": {"lth": {"method": {"name": "lth-rewind", "rewind": {"passes": 3}}}}},
}

MODELS = """
import torch
from torch import nn


class NormOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.offset = nn.Parameter(torch.zeros(10))

    def forward(self, x):
        return self.norm(x).mean((1, 2, 3)).unsqueeze(1) + self.offset


def norm_only(in_channels, image_size, num_classes):
    return NormOnly()


def half(in_channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).half()


def narrow(in_channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def frozen(in_channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
"""


def idx(path: Path, shape: tuple[int, ...], values: bytes) -> None:
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    path.write_bytes(gzip.compress(header + values, mtime=0))


def write_images(folder: Path, *, label: int = 9) -> None:
    """Write a tiny set in the form of MNIST; the last training label is ``label``."""
    folder.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        labels = [i % 10 for i in range(count)]
        labels[-1] = label if part == "train" else labels[-1]
        idx(folder / f"{part}-images-idx3-ubyte.gz", (count, 28, 28), bytes(count * 784))
        idx(folder / f"{part}-labels-idx1-ubyte.gz", (count,), bytes(labels))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


CASES: dict[str, list[str]] = {
    "misspelt command": ["serch", "ok.yaml"],
    "misspelt method": ["search", "ok.yaml", "method=lht"],
    "density in percent": ["search", "ok.yaml", "density=5"],
    "density zero": ["search", "ok.yaml", "density=0"],
    "misspelt score": ["search", "ok.yaml", "method.score=taylr"],
    "misspelt scope": ["search", "ok.yaml", "method.scope=globl"],
    "misspelt start": ["search", "ok.yaml", "method.start=initialization"],
    "n of m that does not divide": ["search", "ok.yaml", "method.pattern={kind: n-of-m, m: 7}"],
    "n of m at another density": ["search", "ok.yaml", "method.pattern=n-of-m"],
    "n above m": ["search", "ok.yaml", "method.pattern={kind: n-of-m, n: 4, m: 2}"],
    "nothing of that name to exclude": ["search", "ok.yaml", "method.exclude=[conv1]"],
    "everything excluded": ["search", "ok.yaml", "method.exclude=[Linear]"],
    "floor above the density": ["search", "ok.yaml", "method.keep_per_layer=20000"],
    "budgets that miss a layer": [
        "search",
        "ok.yaml",
        "method.scope={kind: budgets, densities: {fc1*: 0.5}}",
    ],
    "budgets of another density": [
        "search",
        "ok.yaml",
        "method.scope={kind: budgets, densities: {'*': 0.5}}",
    ],
    "flow without a dense network": [
        "search",
        "ok.yaml",
        "method=infcop",
        "method.start=early-bird",
    ],
    "unknown key": ["search", "unknown.yaml"],
    "unknown nested key": ["search", "ok.yaml", "training.optimiser=sgd"],
    "epsilon missing": ["search", "ok.yaml", "method.stop.rule=information-flow"],
    "misspelt stop rule": ["search", "ok.yaml", "method.stop.rule=shock-buget"],
    "misspelt reference": ["search", "ok.yaml", "method.reference=traind"],
    "misspelt state": [
        "search",
        "ok.yaml",
        "method.stop={rule: matrix-flow, kappa: 1, reference: pruend}",
    ],
    "threshold out of range": ["search", "ok.yaml", "method.stop={rule: matrix-flow, kappa: -1}"],
    "no threshold": ["search", "ok.yaml", "method.stop={rule: matrix-flow}"],
    "too few readings for a noise floor": [
        "search",
        "ok.yaml",
        "method.stop={rule: matrix-flow, kappa: 1}",
    ],
    "a probe that can't be halved": [
        "search",
        "ok.yaml",
        "method.stop={rule: matrix-flow, kappa: 1, floor: halves}",
        "probe_examples=2",
    ],
    "a shock that is not waited for": [
        "search",
        "ok.yaml",
        "method.stop={rule: shock-budget}",
        "levels.min_passes=1",
    ],
    "milestones that rise": ["search", "ok.yaml", "milestones=[0.4, 0.5]"],
    "no mapping": ["search", "list.yaml"],
    "no config": ["search", "nowhere.yaml"],
    "no key": ["search", "ok.yaml", "lr"],
    "missing data": ["search", "ok.yaml", "data.name=mnist", "--data-dir", "empty"],
    "misspelt data": ["search", "ok.yaml", "data.name=fashon-mnist"],
    "truncated gz": ["search", "ok.yaml", "data.name=mnist", "--data-dir", "truncated"],
    "label out of range": ["search", "ok.yaml", "data.name=mnist", "--data-dir", "labels"],
    "folder of another run": ["search", "ok.yaml", "seed=4", "--run-dir", "done"],
    "folder that can't be written": ["search", "ok.yaml", "--run-dir", "file"],
    "NaN loss": ["search", "ok.yaml", "training.lr=1e30", "--run-dir", "nan"],
    "nothing prunable": ["search", "ok.yaml", "model.name=golden_models:norm_only"],
    "half precision": ["search", "ok.yaml", "model.name=golden_models:half"],
    "too few outputs": ["search", "ok.yaml", "model.name=golden_models:narrow"],
    "frozen": ["search", "ok.yaml", "model.name=golden_models:frozen"],
    "misspelt factory": ["search", "ok.yaml", "model.name=golden_models:nrm_only"],
    "no such module": ["search", "ok.yaml", "model.name=nowhere_models:net"],
    "image too small": ["search", "ok.yaml", "model.name=vgg-16"],
    "rewind beyond the dense training": [
        "search",
        "ok.yaml",
        "method.rewind={to: epoch, passes: 5}",
    ],
    "no run folder": ["report", "empty"],
    "newer record": ["report", "newer"],
    "misspelt rule to replay": ["study", "replay", "empty", "--rules", "rules.yaml"],
    "methods with recipes of their own": ["compare", "unfair.yaml"],
    "misspelt baseline": ["compare", "baseline.yaml"],
    "a method that does not fit": ["compare", "unfit.yaml"],
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bad_input")
    (folder / "ok.yaml").write_text(CONFIG)
    (folder / "unknown.yaml").write_text("trainig: {lr: 0.1}\n")
    (folder / "list.yaml").write_text("- density\n")
    (folder / "rules.yaml").write_text("near: {stop: {rule: matrx-flow, kappa: 1}}\n")
    (folder / "golden_models.py").write_text(MODELS)
    for name, changes in COMPARISONS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(COMPARISON | changes))
    (folder / "empty").mkdir()
    (folder / "file").write_text("in the way")
    write_images(folder / "truncated")
    cut(folder / "truncated" / "train-images-idx3-ubyte.gz")
    write_images(folder / "labels", label=10)
    (folder / "newer").mkdir()
    (folder / "newer" / "record.json").write_text('{"schema_version": 99}')
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        sys.modules.pop("golden_models", None)


@pytest.fixture
def infcop(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[list[str]], str]]:
    """Run the command line in this process and return what it said and its exit code."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("INFCOP_DATA", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def run(words: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["infcop", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        lines = [line.rstrip() for line in f"{told.err}{told.out}".splitlines()]
        return "\n".join([*lines, f"exit {caught.value.code}"])

    yield run
    signal.signal(signal.SIGTERM, before)


def golden() -> dict[str, str]:
    parts = GOLDEN.read_text(encoding="utf-8").split("=== ")[1:] if GOLDEN.exists() else []
    return {title: text.rstrip("\n") for title, _, text in (p.partition("\n") for p in parts)}


@pytest.mark.parametrize("case", CASES)
def test_the_message_is_the_one_agreed_on(case: str, infcop: Callable[[list[str]], str]) -> None:
    if case == "folder of another run":
        assert infcop(["search", "ok.yaml", "--run-dir", "done"]).endswith("exit 0")
    told = infcop(CASES[case])
    if os.environ.get("INFCOP_UPDATE_GOLDEN"):
        known = {**golden(), case: told}
        text = "".join(f"=== {title}\n{known[title]}\n" for title in CASES if title in known)
        GOLDEN.write_text(text, encoding="utf-8")
    assert told == golden()[case]
    assert "Traceback" not in told
    code = 3 if case == "NaN loss" else 2
    assert told.endswith(f"exit {code}")


def test_nothing_is_trained_before_bad_input_is_refused(
    infcop: Callable[[list[str]], str], workplace: Path
) -> None:
    infcop(["search", "ok.yaml", "density=5", "--run-dir", "untouched"])
    infcop(["search", "ok.yaml", "model.name=golden_models:narrow", "--run-dir", "untouched"])
    written = [path.name for path in (workplace / "untouched").rglob("*") if path.is_file()]
    assert written in ([], [".lock"])
