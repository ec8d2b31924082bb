"""Imports point downwards, and what has to start fast starts without PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import infcop
from tests.reference.imports import cycle_in, imports_of, modules_of, outside_imports

PACKAGE = Path(infcop.__file__).parent
MODULES = modules_of(PACKAGE)
GRAPH = {name: imports_of(name, path, MODULES) for name, path in MODULES.items()}

STAGES = (
    *("training", "flow", "stopping", "scoring", "masking", "rewinding", "collapse"),
    *("export", "report"),
)
LAYERS = (
    ("errors",),
    ("core",),
    ("models", "data"),
    ("tasks",),
    STAGES,
    ("methods",),
    ("pipeline",),
    ("study",),
    ("cli_options", "terminal"),
    ("cli_networks",),
    ("cli",),
    ("__main__",),
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
EDGES = [(user, used) for user, targets in GRAPH.items() for used in sorted(targets)]

TORCH_FREE = [
    *("core.config", "core.method", "core.records", "core.values", "core.names"),
    *("core.validation", "errors", "methods", "pipeline.configure", "pipeline.demo"),
    *("core.edges", "core.measurement", "pipeline.measure_settings", "cli", "terminal"),
    *("core.footprint", "cli_options", "cli_networks"),
    *("core.compare", "core.study", "study.configure", "study.work", "study.executor"),
    *("core.replay", "study.replay_rules"),
]


def part_of(module: str) -> str:
    """Return the package or top-level module that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def test_the_graph_is_not_empty() -> None:
    assert len(MODULES) > 50
    assert len(EDGES) > 150
    assert ("infcop.pipeline.level", "infcop.masking.prune") in EDGES
    assert ("infcop.data.sets", "infcop.data.layouts") in EDGES, "from package import module"
    assert ("infcop.cli", "infcop.pipeline.workload") in EDGES, "inside a function"
    assert ("infcop.data.registry", "infcop.data.arrays") in EDGES, "for type checking"


def test_every_part_has_a_layer() -> None:
    assert {part_of(module) for module in MODULES} - {""} == set(RANK)


def test_imports_point_downwards() -> None:
    upward = [
        (user, used)
        for user, used in EDGES
        if part_of(user)
        and part_of(user) != part_of(used)
        # The package itself, at the top, is rank infinity: nothing below may use it.
        and RANK.get(part_of(used), len(LAYERS)) >= RANK[part_of(user)]
    ]
    assert upward == []


def test_stages_never_import_each_other() -> None:
    crossing = [
        (user, used)
        for user, used in EDGES
        if part_of(user) in STAGES and part_of(used) in STAGES and part_of(user) != part_of(used)
    ]
    assert crossing == []


def test_there_is_no_cycle() -> None:
    assert cycle_in(GRAPH) == []


def test_a_cycle_would_be_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}
    assert cycle_in(graph) == ["b", "c", "b"]


def test_only_the_report_draws() -> None:
    drawing = {m for m, path in MODULES.items() if outside_imports(path) & {"plotly", "jinja2"}}
    assert drawing
    assert {part_of(module) for module in drawing} == {"report"}


def test_only_training_knows_lightning() -> None:
    users = {m for m, path in MODULES.items() if "lightning_fabric" in outside_imports(path)}
    assert users == {"infcop.training.engine"}


def test_optional_packages_are_not_needed_to_import() -> None:
    """What only extras bring: importing every module must do without it."""
    code = f"""
import importlib, sys
for name in (
    *("sklearn", "PIL", "timm", "torchvision", "transformers"),
    *("onnx", "onnxscript", "onnxruntime"),
):
    sys.modules[name] = None
for name in {sorted(set(MODULES) - {"infcop.__main__"})!r}:
    importlib.import_module(name)
"""
    assert run(code) == ""


@pytest.fixture(scope="module")
def first_with_torch() -> str:
    """Import the modules one after the other; return the first after which torch is there."""
    return run(f"""
import importlib, sys
for name in {TORCH_FREE!r}:
    importlib.import_module(f"infcop.{{name}}")
    if "torch" in sys.modules or "numpy" in sys.modules:
        print(name)
        break
""")


def test_settings_and_methods_need_no_torch(first_with_torch: str) -> None:
    assert first_with_torch == ""


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["methods"], ["data"], ["study", "replay", "--help"]),
        *([command, "--help"] for command in ("search", "compare", "measure", "compact", "export")),
    ],
)
def test_light_commands_need_no_torch(words: list[str]) -> None:
    code = f"""
import runpy, sys
sys.argv = ["infcop", *{words!r}]
try:
    runpy.run_module("infcop", run_name="__main__")
except SystemExit as exit:
    print("code", exit.code, "torch" in sys.modules)
"""
    assert run(code).splitlines()[-1] == "code 0 False"


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
