"""How far flow read from training lies from flow read on a probe.

LeNet-5 (Fashion-MNIST) and ResNet-20 (CIFAR-10) are trained for a few passes. At the end of each
the flow is read three ways: on a probe of 2,048 examples in evaluation mode, from the last 2,048
examples that were trained on, and from the whole pass. The figures are means over the passes after
the first: ``MODEL_KIND_length`` is the length of the probe's vector, ``..._window`` and
``..._whole`` are the distances from it, ``..._error`` is the probe's own standard error.
"""

from __future__ import annotations

import math
import statistics
from contextlib import nullcontext

from benchmarks.common import arguments, data_dir, finish
from infcop.core.records import Flow
from infcop.flow.meter import FlowMeter
from infcop.flow.reading import FlowReading
from infcop.models.graph import select_edges, trace_graph
from infcop.models.prunable import find_prunable
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.workload import build_workload
from infcop.training.engine import Engine
from infcop.training.phase import Phase, StepWatch

_KINDS: tuple[Flow, ...] = ("information.signed", "information.absolute", "gradient.norm")

_WORKLOADS = {"lenet-5": ("fashion-mnist", 12_000), "resnet-20": ("cifar-10", 6_000)}


class _Both:
    """Passes every step on to two watches."""

    def __init__(self, *watches: StepWatch) -> None:
        self.watches = watches

    def after_backward(self, examples: int) -> None:
        for watch in self.watches:
            watch.after_backward(examples)


def _readings(model_name: str, quick: bool) -> list[dict[str, FlowReading]]:
    data, count = _WORKLOADS[model_name]
    config = resolve_config(
        {
            "method": "lth",
            "model": {"name": model_name},
            "data": {
                "name": data,
                "dir": str(data_dir()),
                "train_examples": 2_560 if quick else count,
            },
            "training": {"lr": 0.05, "batch_size": 64},
            "execution": {"device": "cpu"},
        }
    )
    workload = build_workload(config)
    engine = Engine(config.execution)
    model, task = workload.model, workload.task
    assert task.probe_loader is not None
    prunable = find_prunable(model)
    batch = next(iter(task.probe_loader))
    edges = select_edges(trace_graph(model, task.inputs(batch), prunable), "graph")
    meter = FlowMeter(
        model,
        edges=edges,
        parameters=prunable.names,
        kinds=("information", "gradient"),
        standard_errors=True,
    )
    phase = Phase(
        engine,
        engine.wrap(model),
        task,
        config.training,
        rate=lambda _: config.training.lr,
        seed=0,
        label=("sources",),
    )
    window = math.ceil(2048 / config.training.batch_size)
    passes = []
    for _ in range(2 if quick else 5):
        end = phase.step + phase.steps_per_pass
        with meter.watch() as whole:
            phase.advance(end - window, watch=nullcontext(whole), watched=phase.steps_per_pass)
            with meter.watch() as late:
                phase.advance(end, watch=nullcontext(_Both(whole, late)), watched=window)
        probe = meter.read(task, task.probe_loader)
        passes.append({"probe": probe, "whole": whole.reading(), "window": late.reading()})
    return passes


def _distances(passes: list[dict[str, FlowReading]], kind: Flow) -> dict[str, float]:
    """Return lengths and distances, in the mean over the passes after the first."""
    rows = []
    for reading in passes[1:]:
        probe = reading["probe"]
        row = {"length": math.hypot(*probe.flows[kind])}
        for source in ("window", "whole"):
            row[source] = math.dist(reading[source].flows[kind], probe.flows[kind])
        if kind in probe.standard_errors:
            row["error"] = math.hypot(*probe.standard_errors[kind])
        rows.append(row)
    return {key: statistics.mean(row[key] for row in rows) for key in rows[0]}


def markdown(details: dict[str, dict[str, float]]) -> str:
    """Return the distances as a table."""
    rows = ["| model, flow | length | last 2,048 | whole pass | standard error of the probe |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for name, found in details.items():
        cells = [f"{found[key]:.3f}" for key in ("length", "window", "whole")]
        error = f"{found['error']:.3f}" if "error" in found else "-"
        rows.append(f"| {name} | {' | '.join(cells)} | {error} |")
    return "\n".join(rows)


def main() -> None:
    """Run the benchmark."""
    given = arguments(__doc__ or "")
    if data_dir() is None:
        raise SystemExit("the real data sets are needed: set INFCOP_DATA to their folder")
    figures: dict[str, float] = {}
    details: dict[str, dict[str, float]] = {}
    for model_name in _WORKLOADS:
        passes = _readings(model_name, given.quick)
        for kind in _KINDS:
            found = details[f"{model_name} {kind}"] = _distances(passes, kind)
            columns = "  ".join(f"{key} {value:7.4f}" for key, value in found.items())
            print(f"{model_name:<10} {kind:<21} {columns}")
            figures |= {
                f"{model_name}_{kind}_{key}": round(value, 5) for key, value in found.items()
            }
    finish(figures, details, given.out)


if __name__ == "__main__":
    main()
