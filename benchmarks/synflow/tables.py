"""The tables and figures that follow from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.synflow.measures import SCORES

__all__ = ["PUBLISHED", "collapse_table", "conserved_table", "figures", "ratio_table", "runs_table"]

Cells = Mapping[str, Mapping[str, Any]]

PUBLISHED = {"magnitude": 2.75, "random": 3.33, "snip": 3.58, "grasp": 3.58, "synflow": 5.92}
"""Largest exponents without an empty layer, VGG-16 and CIFAR-100, in the mean over 3 runs."""
PUBLISHED_RATIOS: dict[tuple[float, str, int], float] = {
    (2, "exponential", 100): 0.42,
    (2, "linear", 100): 5.84,
    (3, "exponential", 100): 0.67,
    (3, "linear", 100): 14.41,
    (3, "once", 1): 15.35,
}
"""Largest prune to cut by exponent, spacing and rounds, VGG-19 and ImageNet."""
PUBLISHED_CONSERVED = {"layers": 3e-6, "units": 1.5e-6}
"""Relative differences, VGG-19 and ImageNet, in float32."""


def reached(cells: Cells, network: str, label: str) -> dict[str, list[float]]:
    """Return the largest exponents of each seed, without an empty layer and with a path left."""
    named = f"collapse {network} {label}"
    found = [cell for key, cell in cells.items() if key.rpartition(" ")[0] == named]
    return {
        what: [cell[what] for cell in found if what in cell]
        for what in ("without_empty", "with_path")
    }


def collapse_table(cells: Cells, network: str) -> str:
    """Return the largest exponents of all scores as a table."""
    rows = [
        "| score | published | no empty layer, mean | by seed | a path left, mean | by seed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label in (*SCORES, "synflow"):
        found = reached(cells, network, label)
        if found["with_path"]:
            published = PUBLISHED[label.partition(",")[0]] if network == "vgg-16" else "-"
            whole, path = (_mean_and_each(found[what]) for what in found)
            rows.append(f"| {label} | {published} | {whole} | {path} |")
    return "\n".join(rows)


def _mean_and_each(values: list[float]) -> str:
    if not values:
        return "- | -"
    return f"{statistics.mean(values):.2f} | {', '.join(f'{value:.2f}' for value in values)}"


def runs_table(cells: Cells, network: str) -> str:
    """Return the single runs of SynFlow as a table."""
    rows = [
        "| exponent | seed | spacing | entries kept | empty layers | flow left | "
        "largest prune / cut |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, cell in cells.items():
        if key.startswith(f"run {network} ") and cell["rounds_asked"] > 1:
            flow = "yes" if cell["flow"] > 0 else "no"
            ratio = f"{cell['largest_ratio']:.2f}" if "largest_ratio" in cell else "-"
            rows.append(
                f"| {cell['exponent']:g} | {cell['seed']} | {cell['spacing']} | {cell['kept']:,} "
                f"| {_listed(cell['empty'])} | {flow} | {ratio} |"
            )
    return "\n".join(rows)


def _listed(layers: list[str]) -> str:
    """Return the names of layers' weights, or only their number where they are many."""
    return f"{len(layers)} layers" if len(layers) > 3 else ", ".join(layers) or "none"


def ratio_table(cells: Cells) -> str:
    """Return the largest parts of a layer that a round removes as a table."""
    rows = [
        "| exponent | rounds | spacing | VGG-19, ImageNet, published | VGG-16, CIFAR-100 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for exponent, spacing, rounds, ratio in _ratios(cells):
        published = PUBLISHED_RATIOS.get((exponent, spacing, rounds), "-")
        rows.append(f"| {exponent:g} | {rounds} | {spacing} | {published} | {ratio:.2f} |")
    return "\n".join(rows)


def _ratios(cells: Cells) -> Iterator[tuple[float, str, int, float]]:
    """Yield exponent, spacing, rounds and ratio of the runs that can be compared."""
    for cell in cells.values():
        if "largest_ratio" in cell and cell["exponent"] in (2, 3) and cell["seed"] == 0:
            once = cell["rounds_asked"] == 1
            spacing = "once" if once else cell["spacing"]
            yield cell["exponent"], spacing, cell["rounds_asked"], cell["largest_ratio"]


def conserved_table(cells: Cells) -> str:
    """Return how far sums differ that should be equal as a table."""
    rows = ["| network | precision, weights | cuts | hidden units |", "| --- | --- | --- | --- |"]
    published = [f"{PUBLISHED_CONSERVED[what]:.1e}" for what in ("layers", "units")]
    rows.append(f"| VGG-19, ImageNet, published | float32 | {' | '.join(published)} |")
    for key, cell in cells.items():
        if key.startswith("conservation "):
            for label, found in cell.items():
                units = f"{found['units']:.1e}" if "units" in found else "-"
                network = key.removeprefix("conservation ")
                rows.append(f"| {network} | {label} | {found['layers']:.1e} | {units} |")
    return "\n".join(rows)


def figures(cells: Cells) -> dict[str, float]:
    """Return the figures of a result."""
    found: dict[str, float] = {}
    for network in ("vgg-16", "resnet-18"):
        name = network.replace("-", "")
        if f"sizes {network}" in cells:
            sizes = cells[f"sizes {network}"]
            found[f"most_{name}"] = round(sizes["no data"]["exponent"], 4)
        for label in (*SCORES, "synflow"):
            values = reached(cells, network, label)
            key = f"{name}_{label.replace(', ', '_').replace(' ', '_').replace(',', '')}"
            for what, each in values.items():
                if each:
                    found[f"{what}_{key}"] = round(statistics.mean(each), 4)
    for exponent, spacing, _, ratio in _ratios(cells):
        found[f"largest_ratio_{spacing}_{exponent:g}"] = round(ratio, 4)
    for key, cell in cells.items():
        if key.startswith("conservation "):
            name = key.removeprefix("conservation ").replace("-", "")
            for what, value in cell["float64"].items():
                found[f"differ_{what}_{name}"] = float(f"{value:.2e}")
    return found
