"""What a search saves by training smaller networks on the way, channels being pruned.

``wall_clock_ratio_resnet20``, ``wall_clock_ratio_vgg16``: the wall-clock time of all levels and the
final training with ``levels.collapse``, over the same without; collapsing, measuring and evaluating
included, the dense training not. Below 1 is faster. The searches of a pair run one after the
other in alternating order, and the median of the ratios is given.

Before that, a short search of each network in float64 has to come to the same masks, metrics
and weights both ways. In float32 rounding differs, and so does what training makes of it; the
accuracies of both ways, on held-out examples, are printed.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import arguments, data_dir, finish, median_ratio
from infcop.core.config import RunConfig
from infcop.core.records import LevelRecord, PhaseRecord, RunRecord
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.result import Result
from infcop.pipeline.search import run_search
from infcop.pipeline.workload import build_workload

_REPEATS = 3
_NEAR = 1e-9
"""How near two searches in float64 come to each other."""

_EXAMPLES = {"resnet-20": 3000, "vgg-16": 1000}


def _settings(network: str, *, collapse: bool, quick: bool, digits: bool = False) -> dict[str, Any]:
    folder = data_dir()
    fashion = folder is not None and (folder / "fashion-mnist").is_dir() and not digits
    # VGG halves the sides five times.
    padding = {"padding": 2 if fashion else 12} if network == "vgg-16" else {}
    return {
        "density": 0.15,
        "density_in": "flops",
        "model": {"name": network, "options": padding},
        "data": {
            "name": "fashion-mnist" if fashion else "digits",
            "dir": str(folder) if fashion else None,
            "train_examples": 600 if quick else _EXAMPLES[network] if fashion else None,
            "held_out": 0.2,
        },
        "method": {
            "name": "lth",
            "pattern": "coupled-channels",
            "scope": "uniform",
            "schedule": {"kind": "fraction", "remove": 0.4},
            "rewind": {"to": "learning-rate"},
        },
        "training": {"lr": 0.02},
        "dense": {"passes": 1 if quick else 2},
        "levels": {"max_passes": 1 if quick else 3, "evaluate": "ends", "collapse": collapse},
        "final": {"passes": 1 if quick else 4},
        "execution": {"device": "cpu", "threads": torch.get_num_threads()},
    }


class _InDouble(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.network(inputs.double())
        return outputs


def _short(network: str, folder: Path, *, collapse: bool) -> Result:
    """Search in float64 with little training."""
    settings = _settings(network, collapse=collapse, quick=True, digits=True)
    settings["data"]["train_examples"] = 100
    settings["training"] = {"lr": 0.01, "batch_size": 32}
    settings["method"]["schedule"] = {"kind": "fraction", "remove": 0.7}
    return _searched(resolve_config(settings), folder / str(collapse), double=True)


def _searched(
    config: RunConfig, run_dir: Path, *, double: bool = False, dense_dir: Path | None = None
) -> Result:
    workload = build_workload(config)
    # Thousands of test images would take longer than the searches that are compared.
    workload.task.test_loader = None
    return run_search(
        _InDouble(workload.model) if double else workload.model,
        workload.task,
        config,
        run_dir=run_dir,
        model_name=config.model.name,
        data_name=config.data.name,
        dense_dir=dense_dir,
    )


def _check_same(network: str) -> float:
    """Compare both ways in float64; return the largest difference of a weight."""
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = (_short(network, Path(folder), collapse=way) for way in (True, False))
        pairs = zip(ours.model.parameters(), plain.model.parameters(), strict=True)
        difference = max(float((one - other).detach().abs().max()) for one, other in pairs)
        same = all(torch.equal(mask, plain.masks[name]) for name, mask in ours.masks.items())
    found, expected = (_accuracy(result.record) for result in (ours, plain))
    if not same or difference > _NEAR or abs(found - expected) > _NEAR:
        raise SystemExit(
            f"{network}: the search came out differently: masks {'equal' if same else 'differ'}, "
            f"weights by up to {difference:.1e}, accuracy {found} instead of {expected}"
        )
    if _phases(ours.record)[-1].trained_parameters is None:
        raise SystemExit(f"{network}: no smaller network was trained")
    return difference


def _phases(record: RunRecord) -> list[LevelRecord | PhaseRecord]:
    return [*record.levels, *([] if record.final is None else [record.final])]


def _accuracy(record: RunRecord) -> float:
    return (record.outcome.sparse if record.outcome else {})["accuracy"]


def _timed(network: str, folder: Path, *, collapse: bool, quick: bool) -> RunRecord:
    config: RunConfig = resolve_config(_settings(network, collapse=collapse, quick=quick))
    with tempfile.TemporaryDirectory(dir=folder) as run_dir:
        # Both ways begin with the same dense network.
        return _searched(config, Path(run_dir) / "run", dense_dir=folder / "dense").record


def _pairs(network: str, repeats: int, *, quick: bool) -> dict[bool, list[RunRecord]]:
    records: dict[bool, list[RunRecord]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for way in (True, False) if repeat % 2 == 0 else (False, True):
                records[way].append(_timed(network, Path(folder), collapse=way, quick=quick))
    return records


def _measure(network: str, *, quick: bool) -> tuple[float, dict[str, Any]]:
    difference = _check_same(network)
    records = _pairs(network, 1 if quick else _REPEATS, quick=quick)
    spent = {
        way: [sum(phase.seconds for phase in _phases(record)) for record in found]
        for way, found in records.items()
    }
    ratio = median_ratio(spent[True], spent[False])
    rows = _rows(records)
    accuracy = {way: [_accuracy(record) for record in found] for way, found in records.items()}
    _print(network, rows, ratio, accuracy)
    return ratio, {
        "parameters": records[True][0].model.parameters,
        "data": records[True][0].data.model_dump(include={"name", "train", "held_out", "test"}),
        "seconds": {"collapse": spent[True], "masked": spent[False]},
        "accuracy": {"collapse": accuracy[True], "masked": accuracy[False]},
        "phases": rows,
        "difference_in_float64": difference,
    }


def _rows(records: dict[bool, list[RunRecord]]) -> list[dict[str, Any]]:
    """Return, for each level and the final training, what was trained and its median time."""
    rows = []
    for place, phase in enumerate(_phases(records[True][0])):
        level = phase.level if isinstance(phase, LevelRecord) else None
        seconds = {
            way: statistics.median(_phases(record)[place].seconds for record in found)
            for way, found in records.items()
        }
        rows.append(
            {
                "phase": "final" if level is None else f"level {level}",
                "flops": phase.size if isinstance(phase, LevelRecord) else None,
                "trained_parameters": phase.trained_parameters,
                "seconds_collapse": seconds[True],
                "seconds_masked": seconds[False],
            }
        )
    return rows


def _print(
    network: str, rows: list[dict[str, Any]], ratio: float, accuracy: dict[bool, list[float]]
) -> None:
    print(f"\n{network}")
    print(f"{'phase':10} {'FLOPs':>7} {'parameters':>12} {'masked':>10} {'collapse':>10}")
    for row in rows:
        flops = "" if row["flops"] is None else f"{row['flops']:.1%}"
        size = "all" if row["trained_parameters"] is None else f"{row['trained_parameters']:,}"
        print(
            f"{row['phase']:10} {flops:>7} {size:>12} {row['seconds_masked']:>8.1f} s "
            f"{row['seconds_collapse']:>8.1f} s"
        )
    print(
        f"levels and final training: {ratio:.3f} of the time; accuracy "
        f"{accuracy[True][0]:.1%} with, {accuracy[False][0]:.1%} without"
    )


def main() -> None:
    """Measure and print."""
    given = arguments((__doc__ or "").partition("\n")[0])
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for network in ["resnet-20"] if given.quick else ["resnet-20", "vgg-16"]:
        key = network.replace("-", "")
        figures[f"wall_clock_ratio_{key}"], details[key] = _measure(network, quick=given.quick)
    finish({key: round(value, 4) for key, value in figures.items()}, details, given.out)


if __name__ == "__main__":
    main()
