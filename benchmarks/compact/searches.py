"""Real searches on real data, and what collapse makes of the networks that they find."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import data_dir
from benchmarks.compact.turns import latencies
from infcop.collapse import Compact
from infcop.models.flops import multiply_adds
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.result import Result
from infcop.pipeline.store import RunStore
from infcop.pipeline.workload import Workload, build_workload, run_config
from infcop.rewinding.snapshot import Snapshot

__all__ = ["Searched", "after_a_search", "dense_of", "searched"]

_EXAMPLES = 2500
"""Training examples, a tenth of them held out."""
_SEARCH = {"name": "infcop", "schedule": {"kind": "fraction", "remove": 0.5}}


@dataclass(frozen=True)
class Searched:
    """A finished search.

    Attributes:
        result: What it found.
        workload: Model and task.
        data: The name of the data set.
    """

    result: Result
    workload: Workload
    data: str

    def images(self, examples: int | None = None) -> Tensor:
        """Return test images, all of them or the first."""
        images = torch.cat([batch for batch, _ in self._test()])
        return images[:examples]

    def _test(self) -> Iterable[tuple[Tensor, Tensor]]:
        loader = self.workload.task.test_loader
        assert loader is not None
        return loader


def searched(
    name: str,
    method: Mapping[str, Any],
    density: float,
    work: Path,
    *,
    density_in: str = "parameters",
    quick: bool = False,
) -> Searched:
    """Run or finish a search; those of one network share the dense training."""
    data = _data(name, quick)
    padding = {"padding": 12} if name == "vgg-16" and data["name"] == "digits" else {}
    content: dict[str, Any] = {
        "model": {"name": name, "options": padding},
        "data": data,
        "method": dict(method),
        "density": density,
        "density_in": density_in,
        "training": {"lr": 0.02 if name == "vgg-16" else 0.05},
        "dense": {"passes": 8 if data["name"] == "digits" or name.startswith("lenet") else 4},
        "levels": {"max_passes": 0.5, "unit": 0.5, "min_passes": 0, "evaluate": "ends"},
        "final": {"passes": 1},
        "probe_examples": 256,
    }
    config = resolve_config(content)
    label = f"{name} {method['name']} {method.get('scope', '')} {density_in} {density:g}"
    folder = work / data["name"] / "-".join(label.split())
    result = run_config(config, run_dir=folder, dense_dir=work / data["name"] / "dense")
    return Searched(result, build_workload(config), data["name"])


def after_a_search(
    name: str, density: float, work: Path, *, repeats: int, quick: bool
) -> dict[str, Any]:
    """Search to a density in parameters, collapse what was found, and say what is left of it."""
    run = searched(name, _SEARCH, density, work, quick=quick)
    masked, images = run.result.model, run.images(64)
    begun = time.perf_counter()
    small = run.result.compact()
    seconds = time.perf_counter() - begun
    outcome = run.result.outcome
    return {
        "data": run.data,
        "dense_accuracy": outcome.dense["accuracy"],
        "accuracy": outcome.sparse["accuracy"],
        "density": outcome.density,
        "surviving": outcome.kept,
        "surviving_after": small.masks.kept,
        "parameters": [small.report.parameters_before, small.report.parameters_after],
        "multiply_adds": [multiply_adds(m, (images,)).total for m in (masked, small.model)],
        "layers": _layers(run.result, small),
        "verified": list(small.report.verified),
        **_agreement(masked, small.model, run.images()),
        "seconds": seconds,
        "batch": len(images),
        **latencies(small.model, masked, (images,), repeats=repeats),
    }


def dense_of(run: Searched) -> nn.Module:
    """Return the trained dense network of a search."""
    model = copy.deepcopy(run.result.model)
    store = RunStore(run.result.run_dir)
    Snapshot(store.read_tensors(store.dense)[0]).restore(model)
    return model


def _data(name: str, quick: bool) -> dict[str, Any]:
    """Return the data of a search: the embedded digits where there are no others."""
    folder = data_dir()
    if quick or folder is None:
        return {"name": "digits"}
    chosen = "fashion-mnist" if name.startswith("lenet") else "cifar-10"
    return {"name": chosen, "dir": str(folder), "train_examples": _EXAMPLES}


def _layers(result: Result, small: Compact) -> dict[str, dict[str, Any]]:
    """Return for each pruned layer its outputs, and its surviving entries, before and after."""
    left = dict(small.model.named_parameters())
    return {
        name.removesuffix(".weight"): {
            "outputs": [len(mask), len(left[name])],
            "surviving": [int(mask.sum()), int(small.masks[name].sum())],
            "entries": [mask.numel(), left[name].numel()],
        }
        for name, mask in result.masks.items()
    }


@torch.no_grad()
def _agreement(masked: nn.Module, small: nn.Module, images: Tensor) -> dict[str, Any]:
    """Compare the outputs on all test images, in float32."""
    pairs = [(masked(batch), small(batch)) for batch in torch.split(images, 200)]
    expected, found = (torch.cat(outputs) for outputs in zip(*pairs, strict=True))
    return {
        "images": len(images),
        "difference": float((found - expected).abs().max() / expected.abs().max()),
        "other_predictions": int((found.argmax(1) != expected.argmax(1)).sum()),
    }
