"""How far a reading on a subset of the training data lies from one on all of it.

A LeNet-5 is trained on Fashion-MNIST for 8 passes; then its flow is read on all training examples
and on three seeded subsets of each size. The figures are mean distances of the vectors, by size
and kind of flow; ``length_KIND`` is the length of the vector itself.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import arguments, data_dir, finish
from infcop.core.config import RunConfig
from infcop.flow.meter import FlowMeter
from infcop.flow.reading import FlowReading
from infcop.models.prunable import find_prunable
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.workload import build_workload, run_config

_KINDS = ("information.signed", "information.absolute", "gradient.norm")


def _config(quick: bool, **changes: Any) -> RunConfig:
    example = Path(__file__).parents[1] / "examples" / "fashion-mnist.yaml"
    settings: dict[str, Any] = yaml.safe_load(example.read_text(encoding="utf-8"))
    settings |= {"density": 1.0, "final": {"passes": 0}, "execution": {"device": "cpu"}}
    settings["dense"] = {"passes": 1 if quick else 8}
    settings["data"] |= {"dir": str(data_dir()), "train_examples": 10_000 if quick else None}
    settings["data"]["split_seed"] = changes.pop("split_seed", 0)
    return resolve_config(settings | changes)


def main() -> None:
    """Run the benchmark."""
    given = arguments(__doc__ or "")
    if data_dir() is None:
        raise SystemExit("Fashion-MNIST is needed: set INFCOP_DATA to the folder that holds it")
    folder = Path("runs") / ("probe_noise_quick" if given.quick else "probe_noise")
    trained = run_config(_config(given.quick), run_dir=folder)
    names = find_prunable(trained.model).names

    def read(examples: int | None, split_seed: int) -> FlowReading:
        config = _config(given.quick, probe_examples=examples, split_seed=split_seed)
        task = build_workload(config).task
        meter = FlowMeter(
            trained.model,
            edges=trained.record.model.edges,
            parameters=names,
            kinds=("information", "gradient"),
        )
        assert task.probe_loader is not None
        return meter.read(task, task.probe_loader)

    whole = read(None, 0)
    figures = {f"length_{kind}": math.hypot(*whole.flows[kind]) for kind in _KINDS}
    details: dict[str, list[float]] = {}
    for examples in (512, 2048, 8192):
        readings = [read(examples, seed) for seed in (1, 2, 3)]
        for kind in _KINDS:
            apart = [math.dist(reading.flows[kind], whole.flows[kind]) for reading in readings]
            details[f"{kind}_{examples}"] = apart
            figures[f"{kind}_{examples}"] = statistics.mean(apart)
            print(f"{kind:<22}{examples:>6}  " + "  ".join(f"{value:.4f}" for value in apart))
    finish({key: round(value, 5) for key, value in figures.items()}, details, given.out)


if __name__ == "__main__":
    main()
