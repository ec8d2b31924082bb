"""Time and memory of collapsing a network, in a process of its own.

    python -m benchmarks.compact.memory NETWORK SIZE MASKS THREADS

prints one JSON object. What was loaded on first use counts neither as time nor as memory: a small
network is collapsed before.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.compact.networks import image_network
from infcop.collapse import channel_groups, compact
from infcop.core.mask import Masks
from infcop.models.prunable import find_prunable

__all__ = ["MASKS", "alone"]

MASKS = ("half of the channels", "5 % of the weights")
_EXAMPLES = 2


def alone(network: str, size: int, masks: str, threads: int) -> dict[str, Any]:
    """Collapse a network in a fresh process; return seconds and bytes."""
    words = [network, str(size), masks, str(threads)]
    command = [sys.executable, "-m", "benchmarks.compact.memory", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _masks(model: nn.Module, inputs: tuple[Any, ...], kind: str) -> Masks:
    prunable = find_prunable(model)
    generator = torch.Generator().manual_seed(0)
    if kind == MASKS[0]:
        groups = channel_groups(model, inputs, prunable.names)
        removed = torch.arange(groups.count) % 2 == 0
        return groups.without(removed, Masks.full(prunable.shapes))
    drawn = {n: torch.rand(shape, generator=generator) for n, shape in prunable.shapes.items()}
    return Masks({name: numbers < 0.05 for name, numbers in drawn.items()})


def main(network: str, size: int, kind: str, threads: int) -> None:
    torch.set_num_threads(threads)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    compact(other.eval(), {"0.weight": torch.rand(4, 3, 3, 3) < 0.5}, (torch.randn(2, 3, 8, 8),))
    known = image_network(network, 3, size, classes=1000)
    model = known.build()
    inputs = known.inputs(_EXAMPLES)
    assert isinstance(inputs, tuple)
    masks = _masks(model, inputs, kind)
    held = _settled()
    begun, worked = time.perf_counter(), time.process_time()
    small = compact(model, masks, inputs)
    seconds, work = time.perf_counter() - begun, time.process_time() - worked
    peak = _status("VmHWM:") - held
    own = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    result = {
        "model_bytes": own,
        "peak_bytes": peak,
        "seconds": seconds,
        "processor_seconds": work,
        "examples": _EXAMPLES,
        "parameters": [small.report.parameters_before, small.report.parameters_after],
    }
    print(json.dumps(result))


def _settled() -> int:
    """Return the memory that is held, after giving back what is free, and forget the peak."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS:")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
