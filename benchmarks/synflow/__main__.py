"""SynFlow and its baselines on untrained networks: where layers are emptied, and why not.

    python -m benchmarks.synflow [--quick] [--out FILE]

Nothing is trained. ``without_empty_NETWORK_SCORE``: the largest exponent ``a``, of 0, 0.25, ... 6,
at which a compression by ``10 ** a`` leaves no layer without weights, in the mean over the seeds;
``with_path_...``: at which any path from input to output is left; ``most_NETWORK``: the exponent of
one weight per layer. ``differ_...``: relative differences of sums of SynFlow's scores that should
be equal, in float64. ``largest_ratio_SPACING_EXPONENT``: the largest part of a layer's score that a
round removes, ``once`` with a single round.

With ``--out`` the file is written after each measurement, and an unfinished one is gone on with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import arguments, data_dir, machine
from benchmarks.synflow.measures import GRID, SCORES, conservation, in_rounds, one_shot, sizes
from benchmarks.synflow.tables import (
    collapse_table,
    conserved_table,
    figures,
    ratio_table,
    runs_table,
)
from infcop.scoring import needs_data

SEEDS = (0, 1, 2)
ONCE = (1.0, 2.0, 3.0, 4.0, 5.0)
"""Exponents at which SynFlow is run with one seed, beside those that look for its largest."""


class Cells:
    """What was measured so far, by name, and the file that keeps it."""

    def __init__(self, command: str, out: Path | None) -> None:
        self.command, self.out = command, out
        self.found: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        if out is not None and out.exists():
            content = json.loads(out.read_text(encoding="utf-8"))
            if content["command"] == command and content.get("unfinished"):
                self.found, self.seconds = content["details"], content["seconds"]

    def add(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure, unless that was done before the benchmark was interrupted."""
        if name not in self.found:
            begun = time.perf_counter()
            self.found[name] = measure()
            self.seconds[name] = round(time.perf_counter() - begun, 1)
            print(f"{name} [{self.seconds[name]} s]: {self.found[name]}", flush=True)
            self.write(unfinished=True)
        found: dict[str, Any] = self.found[name]
        return found

    def write(self, *, unfinished: bool) -> None:
        """Write everything measured so far."""
        if self.out is not None:
            content = {"command": self.command, **machine()}
            content |= {"unfinished": True} if unfinished else {"figures": figures(self.found)}
            content |= {"seconds": self.seconds, "details": self.found}
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _run(cells: Cells, network: str, exponent: float, seed: int, **options: Any) -> dict[str, Any]:
    asked = {"spacing": "exponential", "rounds": 100, **options}

    def measure() -> dict[str, Any]:
        about = {"network": network, "exponent": exponent, "seed": seed}
        about |= {"spacing": asked["spacing"], "rounds_asked": asked["rounds"]}
        return about | in_rounds(network, exponent, seed, **asked)

    name = f"run {network} {exponent:g} {seed} {asked['spacing']} {asked['rounds']}"
    return cells.add(name, measure)


def _largest(cells: Cells, network: str, seed: int, most: float, **options: Any) -> dict[str, Any]:
    """Go down from what no method can pass, until no layer of VGG-16 is empty.

    Of ResNet-18, until a path is left: at small exponents already its shortcuts are empty.
    """
    path = None
    for exponent in (a for a in reversed(GRID) if a <= most):
        run = _run(cells, network, exponent, seed, **options)
        if path is None and run["flow"] > 0:
            path = exponent
        if network == "vgg-16" and not run["empty"]:
            return {"without_empty": exponent, "with_path": path}
        if network == "resnet-18" and path is not None:
            break
    return {"with_path": path}


def _measure(cells: Cells, quick: bool) -> None:
    small = {"width": 0.1} if quick else {}
    rounds = {"rounds": 10, **small} if quick else {}
    seeds, once = (SEEDS[:1], ONCE[:2]) if quick else (SEEDS, ONCE)
    for network in ("vgg-16",) if quick else ("vgg-16", "resnet-18"):
        is_vgg = network == "vgg-16"
        most = cells.add(f"sizes {network}", partial(sizes, network, **small))
        cells.add(f"conservation {network}", partial(conservation, network, **small))
        for label, scored in SCORES.items():
            for seed in seeds if is_vgg or not needs_data(scored.score) else ():
                measure = partial(one_shot, network, label, seed, **small)
                cells.add(f"collapse {network} {label} {seed}", measure)
        for exponent in once:
            _run(cells, network, exponent, 0, **rounds)
            if is_vgg and exponent in (2, 3):
                _run(cells, network, exponent, 0, **{**rounds, "spacing": "linear"})
                _run(cells, network, exponent, 0, **{**rounds, "rounds": 1})
        for seed in seeds if is_vgg else seeds[:1]:
            found = _largest(cells, network, seed, most["no data"]["exponent"], **rounds)
            cells.add(f"collapse {network} synflow {seed}", partial(dict, found))


def main() -> None:
    """Run the benchmark."""
    given = arguments(__doc__ or "")
    if data_dir() is None:
        raise SystemExit("the real data sets are needed: set INFCOP_DATA to their folder")
    torch.set_num_threads(1)
    cells = Cells("python -m benchmarks.synflow" + (" --quick" if given.quick else ""), given.out)
    _measure(cells, given.quick)
    cells.write(unfinished=False)
    for network in ("vgg-16", "resnet-18"):
        print(f"\n{network}\n{collapse_table(cells.found, network)}\n")
        print(runs_table(cells.found, network))
    print(f"\n{ratio_table(cells.found)}\n\n{conserved_table(cells.found)}")
    print(json.dumps(figures(cells.found)))


if __name__ == "__main__":
    main()
