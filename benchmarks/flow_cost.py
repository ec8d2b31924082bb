"""What reading flow costs: beside training, beside evaluation, beside the two-pass way.

``training_source_ratio_MODEL``: a training epoch that is listened to over the same epoch without.
ResNet-20 and VGG-16 are listened to at every step, for information flow; the LeNets, whose steps
take a few milliseconds, as by default: for the last 2,048 examples and both kinds of flow. The
table has all of these for all models. ``probe_ratio``: a reading of information flow on 2,048
examples over evaluating them once in the plainest way, ResNet-20. ``speedup_over_two_pass``: a
reading by ``two_pass.py`` on all of 60,000 images of 28x28 over one on a probe of 2,048 of them,
LeNet-5. ``growth_mb_100_readings``: what 100 readings of VGG-16, of both kinds of flow, add to the
memory of a process of its own (Linux only).

All images are random. Where there is a GPU the same is measured on it, with keys ``cuda_...``, and
a ResNet-50 too.
"""

from __future__ import annotations

import copy
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common import arguments, finish, interleaved, median_ratio
from benchmarks.two_pass import TwoPass, accuracy, sampling
from infcop.core.config import ExecutionConfig, TrainingConfig
from infcop.core.edges import Edges
from infcop.data.loader import TensorLoader
from infcop.errors import ConfigError
from infcop.flow.meter import FlowKind, FlowMeter, Watch
from infcop.models.build import build_model
from infcop.models.graph import select_edges, trace_graph
from infcop.models.prunable import find_prunable
from infcop.tasks.classification import Classification
from infcop.training.engine import Engine
from infcop.training.phase import Phase

HEADLINES = {
    "lenet-300-100": "window both",
    "lenet-5": "window both",
    "resnet-20": "whole information",
    "vgg-16": "whole information",
}
"""The variant whose ratio is a figure, by model: which steps are listened to, and for what."""

SPEEDUP_MODEL = "lenet-5"
"""The model whose two-pass reading is a figure."""

_PROBE = 2048
_WARM_UP = 10
_KINDS: dict[str, tuple[FlowKind, ...]] = {
    "information": ("information",),
    "gradient": ("gradient",),
    "both": ("information", "gradient"),
}


@dataclass(frozen=True)
class _Epochs:
    """An epoch, the window at its end that is listened to by default, its pieces, how often."""

    batch: int
    steps: int
    window: int
    piece: int
    rounds: int


_EPOCHS = {
    # 2,048 of 60,000 examples, as with (Fashion-)MNIST.
    "lenet-300-100": _Epochs(batch=64, steps=938, window=32, piece=10, rounds=3),
    # Longer epochs would take too long here, so the windows are larger shares than in use:
    # 2,048 of CIFAR's 50,000 examples are one step in 24.
    "lenet-5": _Epochs(batch=64, steps=100, window=25, piece=5, rounds=3),
    "resnet-20": _Epochs(batch=64, steps=16, window=4, piece=1, rounds=5),
    "vgg-16": _Epochs(batch=64, steps=12, window=3, piece=1, rounds=3),
}
_VGG = ("whole information", "whole both", "window both")
_QUICK = {
    "lenet-300-100": _Epochs(batch=64, steps=30, window=8, piece=5, rounds=3),
    "lenet-5": _Epochs(batch=64, steps=8, window=2, piece=2, rounds=2),
    "resnet-20": _Epochs(batch=16, steps=4, window=1, piece=1, rounds=2),
    "vgg-16": _Epochs(batch=4, steps=2, window=1, piece=1, rounds=1),
}


@dataclass(frozen=True)
class _Work:
    """A model with something to train on, the same every time it is made."""

    device: str
    model: nn.Module
    task: Classification
    phase: Phase
    edges: Edges
    parameters: tuple[str, ...]

    def meter(self, kinds: str, **options: bool) -> FlowMeter:
        return FlowMeter(
            self.model,
            edges=self.edges,
            parameters=self.parameters,
            kinds=_KINDS[kinds],
            **options,
        )

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _work(name: str, count: int, batch: int, device: str, size: int | None = None) -> _Work:
    channels, usual = (1, 28) if name.startswith("lenet") else (3, 32)
    size = size or usual
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8
    )
    loader = TensorLoader(
        pixels,
        torch.randint(0, 10, (count,), generator=generator),
        batch_size=batch,
        mean=torch.full((channels,), 0.5),
        std=torch.full((channels,), 0.25),
        shuffle_seed=0,
        device=device,
    )
    torch.manual_seed(0)
    model = build_model(name, in_channels=channels, image_size=size, num_classes=10, options={})
    engine = Engine(ExecutionConfig(device=device))
    wrapped = engine.wrap(model)
    task = Classification(loader, loader)
    phase = Phase(
        engine,
        wrapped,
        task,
        TrainingConfig(lr=0.01, batch_size=batch),
        rate=lambda _: 0.01,
        seed=0,
        label=("flow_cost",),
    )
    prunable = find_prunable(model)
    first = next(iter(loader))[0][:8]
    edges = select_edges(trace_graph(model, (first,), prunable), "graph")
    return _Work(device, model, task, phase, edges, prunable.names)


# -- the training source ---------------------------------------------------------------------------


_Runs = dict[str, tuple[_Work, FlowMeter | None, int]]


def _training(name: str, epochs: _Epochs, device: str) -> dict[str, dict[str, float]]:
    """Return per variant the ratio to a plain epoch, its range, and the seconds it adds."""
    windows = {"whole": epochs.steps, "window": epochs.window}
    variants = [("plain", "", 0)]
    variants += [
        (label, k, watched)
        for w, watched in windows.items()
        for k in _KINDS
        # Seven models of its size would push each other out of the machine's caches.
        if (label := f"{w} {k}") in _VGG or name != "vgg-16"
    ]
    runs: _Runs = {}
    for label, kinds, watched in variants:
        work = _work(name, epochs.steps * epochs.batch, epochs.batch, device)
        runs[label] = work, work.meter(kinds) if kinds else None, watched
    times: dict[str, list[float]] = {label: [] for label in runs}
    _epoch(runs, epochs)
    for _ in range(epochs.rounds):
        for label, seconds in _epoch(runs, epochs).items():
            times[label].append(seconds)
    if device == "cpu":
        _check_same([work.model for work, _, _ in runs.values()])
    plain = times.pop("plain")
    return {label: _compared(ours, plain) for label, ours in times.items()}


def _epoch(runs: _Runs, epochs: _Epochs) -> dict[str, float]:
    """Return what an epoch of each variant takes, reading included.

    They advance in turn, a piece of an epoch each: whatever slows the machine down for a while
    slows all of them down.
    """
    seconds = dict.fromkeys(runs, 0.0)
    watches: dict[str, Watch] = {}
    with ExitStack() as stack:
        for start in range(0, epochs.steps, epochs.piece):
            end = min(start + epochs.piece, epochs.steps)
            for label in list(runs) if start // epochs.piece % 2 == 0 else reversed(runs):
                work, meter, watched = runs[label]
                work.wait()
                begun = time.perf_counter()
                if meter is not None and label not in watches and end > epochs.steps - watched:
                    watches[label] = stack.enter_context(meter.watch())
                watch = nullcontext(watches[label]) if label in watches else None
                listened = watched - (epochs.steps - end)
                work.phase.advance(work.phase.step + end - start, watch=watch, watched=listened)
                work.wait()
                seconds[label] += time.perf_counter() - begun
    for label, watch in watches.items():
        begun = time.perf_counter()
        watch.reading()
        runs[label][0].wait()
        seconds[label] += time.perf_counter() - begun
    return seconds


def _check_same(models: list[nn.Module]) -> None:
    first, *others = (model.state_dict() for model in models)
    if not all(torch.equal(first[name], other[name]) for other in others for name in first):
        raise SystemExit("training came out differently where it was listened to")


def _compared(ours: list[float], plain: list[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    return {
        "ratio": median_ratio(ours, plain),
        "lowest": min(ratios),
        "highest": max(ratios),
        "plain_s": statistics.median(plain),
        "extra_s": statistics.median(a - b for a, b in zip(ours, plain, strict=True)),
    }


# -- the probe -------------------------------------------------------------------------------------


def _probe(name: str, examples: int, repeats: int, device: str, batch: int = 128) -> dict[str, Any]:
    """Return a reading of information flow beside a plain evaluation of the same batches."""
    work = _work(name, examples, batch, device)
    batches = list(work.task.train_loader)
    plain, read = _evaluation(work, batches), _reading(work, batches)
    return _compared(*interleaved(read, plain, repeats))


def _evaluation(work: _Work, batches: list[Any]) -> Callable[[], None]:
    def evaluate() -> None:
        work.model.eval()
        with torch.no_grad():
            for inputs, _ in batches:
                work.model(inputs)
        work.wait()

    return evaluate


def _reading(work: _Work, batches: list[Any], kinds: str = "information") -> Callable[[], None]:
    meter = work.meter(kinds)

    def read() -> None:
        meter.read(work.task, batches)
        work.wait()

    return read


# -- the two-pass way ------------------------------------------------------------------------------


def _two_pass(name: str, count: int, probe: int, repeats: int, device: str) -> dict[str, Any]:
    """Return what readings take either way, and how far their numbers are off."""
    work = _work(name, count, 128, device)
    whole = list(work.task.train_loader)
    few = whole[: math.ceil(probe / 128)]
    inputs = [images for images, _ in whole]
    twin = TwoPass(work.model, work.edges.edges)
    calls: dict[str, Callable[[], object]] = {
        "two_pass_s": lambda: twin.read(inputs),
        "probe_s": _reading(work, few),
        "whole_s": _reading(work, whole),
    }
    twin.read(inputs[:2])
    calls["probe_s"]()
    times: dict[str, list[float]] = {key: [] for key in calls}
    for turn in range(repeats):
        for key in list(calls) if turn % 2 == 0 else reversed(calls):
            begun = time.perf_counter()
            calls[key]()
            times[key].append(time.perf_counter() - begun)
    errors = accuracy(work.model, work.task, work.edges, whole)
    _check_agreement(errors)
    return {
        "examples": count,
        "speedup_probe": median_ratio(times["two_pass_s"], times["probe_s"]),
        "speedup_whole": median_ratio(times["two_pass_s"], times["whole_s"]),
        **{key: statistics.median(values) for key, values in times.items()},
        "accuracy": errors | sampling(work.model, work.task, work.edges, whole, few),
    }


def _check_agreement(errors: Mapping[str, float]) -> None:
    """Speeds can be compared only of ways that measure the same."""
    bounds = {"infcop_max": 1e-6, "two_pass_max": 0.01}
    if not all(errors[key] <= bound for key, bound in bounds.items()):
        raise SystemExit(f"the two ways disagree: expected errors within {bounds}, got {errors}")


def _large_means(name: str, count: int, device: str) -> dict[str, float]:
    """Return the errors where the first layer's outputs, and so the others', lie around 1,000."""
    work = _work(name, count, 128, device)
    first = work.model.get_submodule(work.edges.edges[0][0])
    with torch.no_grad():
        first.bias += 1e3  # type: ignore[operator]
    return accuracy(work.model, work.task, work.edges, list(work.task.train_loader))


def _add_training_source(found: dict[str, Any], training: dict[str, Any]) -> None:
    """Add what listening to as many examples takes, by proportion to the epoch that was timed."""
    epoch, extra = training["epoch"], training["whole information"]["extra_s"]
    seconds = extra * found["examples"] / (epoch["batch"] * epoch["steps"])
    found["training_s_computed"] = seconds
    # None where it was lost in the noise.
    found["speedup_training_computed"] = found["two_pass_s"] / seconds if seconds > 0 else None


# -- memory: in a process of its own ---------------------------------------------------------------


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _measure_growth(readings: int) -> None:
    work = _work("vgg-16", 8, 8, "cpu")
    batches = list(work.task.train_loader)
    meter = work.meter("both")
    kept, resident = [], []
    for _ in range(_WARM_UP + readings):
        kept.append(meter.read(work.task, batches))
        gc.collect()
        resident.append(_resident_mb())
    # The allocator hands pages back sooner or later, so single samples differ by 100 MB; what is
    # really held shows in the lowest of several.
    growth = min(resident[-_WARM_UP:]) - min(resident[:_WARM_UP])
    print(json.dumps({"readings": len(kept) - _WARM_UP, "mb": growth, "resident_mb": resident}))


def _growth(readings: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.flow_cost", "--growth", str(readings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- what only a GPU can show ----------------------------------------------------------------------


def _resnet50(device: str, examples: int, batch: int, size: int) -> dict[str, Any]:
    """Return seconds per reading of a ResNet-50, or of a ResNet-18 where timm is missing."""
    try:
        work = _work("timm:resnet50", examples, batch, device, size)
        name = "resnet50"
    except ConfigError:
        work, name = _work("resnet-18", examples, batch, device, size), "resnet-18"
    batches = list(work.task.train_loader)
    plain = _evaluation(work, batches)
    found: dict[str, Any] = {"model": name, "examples": examples, "batch": batch}
    for kinds in _KINDS:
        ours, evaluations = interleaved(_reading(work, batches, kinds), plain, 5)
        found[f"{kinds}_s"] = statistics.median(ours)
        found[f"{kinds}_over_evaluation"] = median_ratio(ours, evaluations)
    return found


def _unwaiting(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches; after the first, whatever makes the host wait for the GPU raises.

    The first shows whether a layer's means are far from zero, which is waited for.
    """
    batches = iter(batches)
    yield next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield from batches
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _waits(work: _Work, batches: list[Any]) -> dict[str, str]:
    """Return per source what waited for the GPU while batches were gathered."""
    found = {}
    for source, gather in (("probe", _gather_probe), ("training", _gather_training)):
        silent = _unwaiting(batches)
        try:
            gather(work, silent)
            found[source] = "nothing"
        except RuntimeError as error:
            found[source] = str(error)
        finally:
            silent.close()  # type: ignore[attr-defined]
    return found


def _gather_probe(work: _Work, batches: Iterable[Any]) -> None:
    work.meter("both").read(work.task, batches)


def _gather_training(work: _Work, batches: Iterable[Any]) -> None:
    model = copy.deepcopy(work.model).train()
    meter = FlowMeter(model, edges=work.edges, parameters=work.parameters, kinds=_KINDS["both"])
    with meter.watch() as watch:
        for batch in batches:
            model.zero_grad()
            work.task.training_step(model, batch).backward()
            watch.after_backward(len(batch[1]))
    watch.reading()


# -- all of it -------------------------------------------------------------------------------------


def _table(device: str, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure and print everything on one device."""
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name, epochs in (_QUICK if quick else _EPOCHS).items():
        if device == "cuda" and not quick:
            epochs = replace(epochs, steps=epochs.steps * 8, window=epochs.window * 8)
        found = _training(name, epochs, device)
        details[f"training {name}"] = {"epoch": vars(epochs), **found}
        figures[f"training_source_ratio_{_key(name)}"] = found[HEADLINES[name]]["ratio"]
        for label, numbers in found.items():
            _say(f"{device} epoch, {label} / plain, {name}", numbers)
    for name, repeats in (("lenet-300-100", 15), ("resnet-20", 7), ("vgg-16", 2)):
        found = _probe(name, 64 if quick else _PROBE, 2 if quick else repeats, device)
        details[f"probe {name}"] = found
        _say(f"{device} probe / evaluation, {name}", found)
    figures["probe_ratio"] = details["probe resnet-20"]["ratio"]
    for name, count, repeats in (
        ("lenet-300-100", 60_000, 5),
        ("lenet-5", 60_000, 3),
        ("resnet-20", 4_096, 2),
    ):
        small = min(count // 30, 512) if quick else count
        found = _two_pass(name, small, 128 if quick else _PROBE, repeats, device)
        details[f"two-pass {name}"] = found
        _add_training_source(found, details[f"training {name}"])
        _say_two_pass(device, name, found)
    figures["speedup_over_two_pass"] = details[f"two-pass {SPEEDUP_MODEL}"]["speedup_probe"]
    details["means of 1,000"] = found = _large_means("lenet-5", 512 if quick else 8192, device)
    print(f"{device} errors at means of 1,000, lenet-5: {_errors(found)}")
    return figures, details


def _key(name: str) -> str:
    return "lenet300" if name == "lenet-300-100" else name.replace("-", "")


def _say(what: str, numbers: Mapping[str, float]) -> None:
    between = f"[{numbers['lowest']:.3f}, {numbers['highest']:.3f}]"
    print(f"{what:<58} {numbers['ratio']:7.4f} {between}  plain {numbers['plain_s']:.3f} s")


def _say_two_pass(device: str, name: str, found: Mapping[str, Any]) -> None:
    training = found["speedup_training_computed"]
    print(
        f"{device} two passes over {found['examples']:,} examples, {name}: "
        f"{found['two_pass_s']:.2f} s; cheaper by {found['speedup_probe']:.1f} with a probe, "
        f"{found['speedup_whole']:.2f} with all of them, "
        f"{'-' if training is None else format(training, '.1f')} while training (computed)"
    )
    errors = found["accuracy"]
    print(
        f"    {_errors(errors)}; the probe's own sampling error {errors['sampling_max']:.1e}, in "
        f"the mean {errors['sampling_mean']:.1e}, distance {errors['sampling_distance']:.1e}"
    )


def _errors(found: Mapping[str, float]) -> str:
    return (
        f"largest error {found['two_pass_max']:.1e}, NaN {found['two_pass_share_nan']:.0%}, "
        f"infcop {found['infcop_max']:.1e}"
    )


def markdown(details: Mapping[str, Any]) -> str:
    """Return the ratios to plain training as a table."""
    rows = [
        "| model | every step: information | gradient | both | default window: both |",
        "| --- | --- | --- | --- | --- |",
    ]
    columns = ("whole information", "whole gradient", "whole both", "window both")
    for key, found in details.items():
        if key.startswith("training "):
            ratios = (found.get(column, {}).get("ratio") for column in columns)
            cells = " | ".join("-" if ratio is None else f"{ratio:.3f}" for ratio in ratios)
            rows.append(f"| {key.removeprefix('training ')} | {cells} |")
    return "\n".join(rows)


def main() -> None:
    """Run the benchmark."""
    if "--growth" in sys.argv:
        return _measure_growth(int(sys.argv[-1]))
    given = arguments(__doc__ or "")
    growth = _growth(_WARM_UP if given.quick else 100)
    figures, details = _table("cpu", given.quick)
    details["growth"] = growth
    figures["growth_mb_100_readings"] = growth["mb"]
    if torch.cuda.is_available():
        more, details["cuda"] = _table("cuda", given.quick)
        figures |= {f"cuda_{key}": value for key, value in more.items()}
        details["cuda"]["resnet50"] = found = _resnet50("cuda", _PROBE, 256, 224)
        print(f"cuda {found}")
        work = _work("resnet-20", _PROBE, 256, "cuda")
        details["cuda"]["waits"] = waits = _waits(work, list(work.task.train_loader))
        print(f"cuda: what waits for the GPU between batches: {waits}")
    print(f"growth by {growth['readings']} readings of vgg-16: {growth['mb']:.2f} MB")
    finish({key: round(value, 4) for key, value in figures.items()}, details, given.out)
    return None


if __name__ == "__main__":
    main()
