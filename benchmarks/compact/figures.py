"""The figures that follow from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

__all__ = ["figures_of"]

Cells = Mapping[str, Mapping[str, Any]]


def figures_of(part: str, cells: Cells) -> dict[str, Any]:
    """Return the figures of a part; what they mean is told by the package's command."""
    found = {
        "structured": _structured,
        "torch-pruning": _peers,
        "resnet50": _memory,
        "zoo": _searches,
    }[part](cells)
    return {key: round(value, 4) if value >= 1e-3 else value for key, value in found.items()}


def _structured(cells: Cells) -> dict[str, float]:
    found = {}
    for key, cell in cells.items():
        kind, name, what = key.split(" ")
        label = f"latency_ratio_{name.replace('-', '')}"
        ratio = cell[max(of for of in cell if of.startswith("latency_"))]["ratio"]
        if kind == "search":
            found[f"{label}_search_{what}"] = ratio
        elif what.startswith("channels"):
            found[label + "_80" + _multiple(cell)] = ratio
        else:
            found[label + _multiple(cell)] = ratio
    return found


_USUAL = 16
"""Floats in a vector of AVX-512, which convolutions take at once there."""


def _multiple(cell: Mapping[str, Any]) -> str:
    return "" if cell["multiple"] == _USUAL else f"_multiples_of_{cell['multiple']}"


def _peers(cells: Cells) -> dict[str, float]:
    both = [cell for cell in cells.values() if "latency" in cell]
    times = [cell["latency"]["ratio"] for cell in both]
    return {
        "params_vs_torch_pruning": _worst(both, "parameters"),
        "flops_vs_torch_pruning": _worst(both, "multiply_adds"),
        "difference_vs_torch_pruning": max(cell["difference"] for cell in both),
        "latency_vs_torch_pruning": statistics.median(times),
        "latency_vs_torch_pruning_worst": max(times),
        "slower_than_torch_pruning": sum(cell["latency"]["interval"][0] > 1 for cell in both),
        "handled_by_both": len(both),
        "handled_by_infcop": sum("fails" not in cell["ours"] for cell in cells.values()),
        "handled_by_torch_pruning": sum("fails" not in cell["theirs"] for cell in cells.values()),
    }


def _worst(both: list[Mapping[str, Any]], what: str) -> float:
    return max(float(cell["ours"][what] / cell["theirs"][what]) for cell in both)


def _memory(cells: Cells) -> dict[str, float]:
    found = {}
    for size in sorted({cell["size"] for cell in cells.values()}):
        of_size = [cell for cell in cells.values() if cell["size"] == size]
        suffix = "" if size == 64 else f"_{size}"
        found[f"collapse_seconds_resnet50{suffix}"] = max(cell["seconds"] for cell in of_size)
        found[f"collapse_memory_resnet50{suffix}"] = max(cell["peak"] for cell in of_size)
    return found


def _searches(cells: Cells) -> dict[str, float]:
    found: dict[str, float] = {"networks_collapsed": len(cells)}
    found["difference_masked_to_compact"] = max(cell["difference"] for cell in cells.values())
    for key, cell in cells.items():
        name, density = key.split(" ")
        label = f"{name.replace('-', '')}_{density}"
        before, after = cell["parameters"]
        found[f"params_left_{label}"] = after / before
        found[f"useless_{label}"] = 1 - cell["surviving_after"] / cell["surviving"]
        last = max(of for of in cell if of.startswith("latency_"))
        found[f"latency_ratio_{label}"] = cell[last]["ratio"]
    return found
