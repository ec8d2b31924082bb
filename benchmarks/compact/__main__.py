"""Compact networks: how small, how fast, and beside torch-pruning.

    python -m benchmarks.compact [PART ...] [--quick] [--out FOLDER] [--work FOLDER]
    python -m benchmarks.compact --summary   tables and figures from the committed results

``structured``: networks with channels removed to half of their FLOPs at most.
``latency_ratio_NETWORK`` is the time of the compact network over that of the dense one, batch 64
and all threads, where all layers keep the same part in multiples of 16 channels, the floats of a
vector of AVX-512; ``..._multiples_of_N`` for others. ``..._80`` is with 80 % of the channels
removed. How networks are trained doesn't matter to their time; ``..._search_SCOPE`` is after a
search with ``one-shot``, in multiples of 8.

``torch-pruning``: half of the channels of every group removed by both. ``params_vs_torch_pruning``,
``flops_...`` and ``difference_...`` are the worst of all networks that both handle,
``latency_vs_torch_pruning`` the median of the networks' ratios, ours over theirs, and
``slower_than_...`` on how many of them ours is slower at 95 % confidence.

``resnet50``: collapsing timm's ResNet-50 with two images of 64 x 64 in a process of its own, the
worse of two kinds of masks. ``collapse_seconds_resnet50``; ``collapse_memory_resnet50``, the peak
above what was held before, over the model's bytes; both with ``_224`` for images of 224 x 224.

``zoo``: each network of the zoo after real searches for single weights.
``params_left_NETWORK_DENSITY``; ``useless_...``, the part of the surviving weights that do nothing;
``latency_ratio_...`` of the compact network over the masked one.

Times are taken in a process that keeps the memory it has freed (``turns.keep_freed_memory``).

With ``--out`` each part is written to ``compact_PART.json`` after each measurement, and an
unfinished one is gone on with. Searches are kept under ``--work`` and gone on with too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.compact.cells import Cells
from benchmarks.compact.figures import figures_of
from benchmarks.compact.memory import MASKS, alone
from benchmarks.compact.networks import ZOO_IMAGES, image_network, known_networks
from benchmarks.compact.peers import beside_torch_pruning
from benchmarks.compact.searches import after_a_search
from benchmarks.compact.structured import by_search, by_width
from benchmarks.compact.tables import (
    layers_table,
    memory_table,
    only_theirs_table,
    peers_lists,
    peers_table,
    searches_table,
    structured_table,
    widths_table,
)
from benchmarks.compact.turns import THREADS, keep_freed_memory

RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("structured", "torch-pruning", "resnet50", "zoo")
DENSITIES = (0.2, 0.05, 0.01)
_SCOPES: tuple[Literal["global", "uniform"], ...] = ("global", "uniform")


def file_of(part: str, folder: Path = RESULTS) -> Path:
    """Return where the result of a part is kept."""
    return folder / f"compact_{part.replace('-', '_')}.json"


def _structured(cells: Cells, work: Path, quick: bool) -> None:
    repeats = 2 if quick else 5
    for name in ("resnet-20",) if quick else ("resnet-20", "vgg-16", "resnet-18"):
        network = image_network(name, *ZOO_IMAGES[name])
        for multiple in (1, 8) if quick else (1, 8, 16):
            keep = partial(by_width, network, multiple=multiple, repeats=repeats)
            cells.add(f"widths {name} flops-{multiple}", partial(keep, flops=0.5))
            if name == "vgg-16":
                cells.add(f"widths {name} channels-{multiple}", partial(keep, channels=0.2))
    for scope in _SCOPES:
        search = partial(by_search, "resnet-20", scope, flops=0.5, work=work, quick=quick)
        cells.add(f"search resnet-20 {scope}", partial(search, repeats=repeats))


def _torch_pruning(cells: Cells, work: Path, quick: bool) -> None:
    known = known_networks()
    chosen = ("lenet-5", "resnet-20", "BERT", "GPT-2") if quick else tuple(known)
    for name in chosen:
        times = {"repeats": 2 if quick else 5, "copies": 1 if quick else 3}
        cells.add(name, partial(beside_torch_pruning, known[name], batch=16, **times))


def _resnet50(cells: Cells, work: Path, quick: bool) -> None:
    network = "resnet-20" if quick else "timm:resnet50"
    for size in (32,) if quick else (64, 224):
        for masks in MASKS:
            measure = partial(_collapsing, network, size, masks, 1 if quick else 3)
            cells.add(f"{size} {masks}", measure)


def _collapsing(network: str, size: int, masks: str, repeats: int) -> dict[str, Any]:
    found = [alone(network, size, masks, THREADS[-1]) for _ in range(repeats)]
    middle = {key: statistics.median(one[key] for one in found) for key in _MEASURED}
    peak = max(one["peak_bytes"] / one["model_bytes"] for one in found)
    return {**found[0], **middle, "peak": peak, "repeats": repeats, "size": size, "masks": masks}


_MEASURED = ("seconds", "processor_seconds")


def _zoo(cells: Cells, work: Path, quick: bool) -> None:
    for name in ("lenet-300-100", "resnet-20") if quick else ZOO_IMAGES:
        for density in DENSITIES[1:2] if quick else DENSITIES:
            times = {"repeats": 2 if quick else 5}
            cells.add(
                f"{name} {density}",
                partial(after_a_search, name, density, work, quick=quick, **times),
            )


_MEASURE: dict[str, Callable[[Cells, Path, bool], None]] = {
    "structured": _structured,
    "torch-pruning": _torch_pruning,
    "resnet50": _resnet50,
    "zoo": _zoo,
}


def tables(part: str, cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the tables of a part."""
    if part == "structured":
        return [structured_table(cells), widths_table(cells)]
    if part == "torch-pruning":
        return [peers_table(cells), peers_lists(cells), only_theirs_table(cells)]
    if part == "resnet50":
        return [memory_table(cells)]
    deep = {key: cell for key, cell in cells.items() if key == "vgg-16 0.01"}
    return [searches_table(cells), *(layers_table(cell) for cell in deep.values())]


def main(argv: list[str] | None = None) -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compact", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--summary", action="store_true", help="from the committed results")
    parser.add_argument("--quick", action="store_true", help="small, for a check")
    parser.add_argument("--out", type=Path, help="folder for the results, one file for each part")
    parser.add_argument("--work", type=Path, help="folder of the searches; else a temporary one")
    given = parser.parse_args(argv)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    chosen = given.parts or list(PARTS)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        for part in chosen:
            found = _committed(part) if given.summary else _measured(part, given, work)
            for table in tables(part, found):
                print(f"\n{part}\n\n{table}")
            figures |= figures_of(part, found)
    print(json.dumps(figures))


def _committed(part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(file_of(part).read_text(encoding="utf-8"))["details"]
    return found


def _measured(part: str, given: argparse.Namespace, work: Path) -> Mapping[str, Any]:
    command = f"python -m benchmarks.compact {part}" + (" --quick" if given.quick else "")
    if not keep_freed_memory():
        print("the allocator can't be told to keep memory: times may hold those of new pages")
    cells = Cells(command, None if given.out is None else file_of(part, given.out))
    _MEASURE[part](cells, work, given.quick)
    cells.write(figures_of(part, cells.found))
    return cells.found


if __name__ == "__main__":
    main()
