"""What the loop of infcop costs beside a hand-written one, in time and in memory.

``epoch_ratio_conv``, ``epoch_ratio_resnet20``: an epoch in infcop, masks on and flow off, over the
same epoch in a plain PyTorch loop on the same tensors, batch by batch the same.

``peak_memory_ratio``: peak memory of a whole search with ResNet-18 (the larger of ``infcop-if``
and ``infcop-gf``) over that of plain training plus
two copies of the parameters plus the masks at a byte an entry. Each runs in a process of its own;
what the process held after its imports is taken off both.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import arguments, finish, interleaved, median_ratio
from infcop.core.config import ExecutionConfig, TrainingConfig
from infcop.core.mask import Masks
from infcop.data.loader import TensorLoader
from infcop.masking.apply import MaskEnforcer
from infcop.models.build import build_model
from infcop.models.prunable import find_prunable, get_parameters
from infcop.pipeline.search import search
from infcop.tasks.classification import Classification
from infcop.training.engine import Engine
from infcop.training.phase import Phase

_RECIPE = TrainingConfig(lr=0.01, batch_size=64)


class _Events:
    def __init__(self, enforcer: MaskEnforcer) -> None:
        self.before_step, self.after_step = enforcer.mask_gradients, enforcer.apply


def _images(count: int, channels: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=generator)
    return pixels.to(torch.uint8), torch.randint(0, 10, (count,), generator=generator)


def _model(name: str, channels: int, size: int) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, in_channels=channels, image_size=size, num_classes=10, options={})


def _plain_epoch(model: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return the loop that anyone would write."""
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=_RECIPE.lr,
        momentum=_RECIPE.momentum,
        weight_decay=_RECIPE.weight_decay,
    )

    def epoch() -> None:
        model.train()
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs), _RECIPE.batch_size):
            chosen = order[start : start + _RECIPE.batch_size]
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()

    return epoch


def _loader(pixels: Tensor, labels: Tensor) -> TensorLoader:
    channels = pixels.shape[1]
    return TensorLoader(
        pixels,
        labels,
        batch_size=_RECIPE.batch_size,
        mean=torch.full((channels,), 0.5),
        std=torch.full((channels,), 0.25),
        shuffle_seed=0,
        augment=False,
        device=torch.device("cpu"),
    )


def _our_epoch(model: nn.Module, pixels: Tensor, labels: Tensor) -> Callable[[], None]:
    loader = _loader(pixels, labels)
    prunable = find_prunable(model)
    generator = torch.Generator().manual_seed(1)
    masks = Masks(
        {n: torch.rand(s, generator=generator) < 0.05 for n, s in prunable.shapes.items()}
    )
    engine = Engine(ExecutionConfig(device="cpu"))
    enforcer = MaskEnforcer(get_parameters(model, prunable.names), masks)
    enforcer.apply()
    phase = Phase(
        engine,
        engine.wrap(model),
        Classification(loader, loader),
        _RECIPE,
        rate=lambda _: _RECIPE.lr,
        seed=0,
        label=("benchmark",),
        events=_Events(enforcer),
    )
    return lambda: phase.advance(phase.step + phase.steps_per_pass)


def _epoch_ratio(
    name: str, count: int, channels: int, size: int, repeats: int
) -> tuple[float, dict[str, float]]:
    pixels, labels = _images(count, channels, size)
    inputs = (pixels.float() / 255 - 0.5) / 0.25
    plain = _plain_epoch(_model(name, channels, size), inputs, labels)
    ours = _our_epoch(_model(name, channels, size), pixels, labels)
    our_times, plain_times = interleaved(ours, plain, repeats)
    details = {
        "ours_s": statistics.median(our_times),
        "plain_s": statistics.median(plain_times),
        "repeats": repeats,
    }
    return median_ratio(our_times, plain_times), details


# -- memory: each measurement is this module run as a process of its own ---------------------------


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _memory_of(kind: str) -> float:
    """Return the peak of a child process, less what it held after its imports, in MiB."""
    command = [sys.executable, "-m", "benchmarks.loop", f"--memory-{kind}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["mb"])


def _measure_plain() -> None:
    before = _peak_mb()
    pixels, labels = _images(192, 3, 32)
    epoch = _plain_epoch(_model("resnet-18", 3, 32), pixels.float() / 255, labels)
    epoch(), epoch()
    print(json.dumps({"mb": _peak_mb() - before}))


def _measure_search(method: str) -> None:
    before = _peak_mb()
    loader = _loader(*_images(192, 3, 32))
    model = _model("resnet-18", 3, 32)
    with tempfile.TemporaryDirectory() as folder:
        search(
            model,
            Classification(loader, loader, probe_loader=_loader_head(loader)),
            run_dir=folder,
            density=0.64,
            method={"name": method, "schedule": {"kind": "fraction", "remove": 0.2}},
            training={"lr": _RECIPE.lr},
            dense={"passes": 1},
            levels={"max_passes": 1},
            final={"passes": 1},
            execution={"device": "cpu", "checkpoint_seconds": 0},
        )
    print(json.dumps({"mb": _peak_mb() - before}))


def _loader_head(loader: TensorLoader) -> list[object]:
    return [next(iter(loader))]


def _memory_ratio(repeats: int) -> tuple[float, dict[str, float]]:
    entries = sum(p.numel() for p in _model("resnet-18", 3, 32).parameters())
    masks = sum(
        torch.Size(shape).numel()
        for shape in find_prunable(_model("resnet-18", 3, 32)).shapes.values()
    )
    plain = statistics.median(_memory_of("plain") for _ in range(repeats))
    searches = {
        f"{method}_mb": statistics.median(_memory_of(method) for _ in range(repeats))
        for method in ("infcop-if", "infcop-gf")
    }
    bound = plain + (2 * 4 * entries + masks) / 2**20
    return max(searches.values()) / bound, {"plain_mb": plain, **searches, "bound_mb": bound}


def main() -> None:
    """Run the benchmark."""
    if "--memory-plain" in sys.argv:
        return _measure_plain()
    for method in ("infcop-if", "infcop-gf"):
        if f"--memory-{method}" in sys.argv:
            return _measure_search(method)
    given = arguments(__doc__ or "")
    repeats = 3 if given.quick else 9
    conv, conv_details = _epoch_ratio("lenet-5", 1920 if given.quick else 3200, 1, 28, repeats)
    resnet, resnet_details = _epoch_ratio("resnet-20", 128 if given.quick else 640, 3, 32, repeats)
    memory, memory_details = _memory_ratio(1 if given.quick else 3)
    for name, ratio in (("conv", conv), ("resnet-20", resnet)):
        print(f"epoch in infcop / epoch in a plain loop, {name:<10} {ratio:6.3f}")
    print(f"peak memory / (plain + 2 copies + masks), resnet-18 {memory:6.3f}")
    figures = {
        "epoch_ratio_conv": conv,
        "epoch_ratio_resnet20": resnet,
        "peak_memory_ratio": memory,
    }
    details = {"conv": conv_details, "resnet20": resnet_details, "memory": memory_details}
    finish({key: round(value, 4) for key, value in figures.items()}, details, given.out)
    return None


if __name__ == "__main__":
    main()
