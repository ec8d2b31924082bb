"""Two networks timed in turns, and how well the ratio of their times is known."""

from __future__ import annotations

import copy
import ctypes
import math
import os
import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.common import interleaved
from infcop.models.calling import Inputs, call

__all__ = ["THREADS", "compared", "keep_freed_memory", "latencies", "shown"]

THREADS = tuple(sorted({1, os.cpu_count() or 1}))
"""Numbers of threads that times are taken with."""

_SECONDS = 0.1
"""How long one repeat takes at least."""


_MMAP_MAX, _TOP_PAD, _TRIM_THRESHOLD = -4, -2, -1
"""Settings of glibc's allocator, from its malloc.h."""


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, as servers' allocators do; return whether it does.

    By default glibc gives large blocks back, and every call of a layer gets new pages from the
    system. In a virtual machine this may take longer than the layer, for one network and not for
    the other, depending on where their blocks lie.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = {_MMAP_MAX: 0, _TOP_PAD: 1 << 28, _TRIM_THRESHOLD: (1 << 31) - 1}
    return mallopt is not None and all(mallopt(*setting) for setting in settings.items())


def compared(
    first: nn.Module, second: nn.Module, inputs: Inputs, *, repeats: int, copies: int = 1
) -> dict[str, Any]:
    """Return how long the first network takes over the second: the median of the ratios in turns.

    Args:
        first: The one whose time is above the line.
        second: The one below it.
        inputs: What both are called with.
        repeats: Pairs of times for each pair of copies.
        copies: How often both networks are copied anew. Where in memory a network comes to lie may
            matter for as long as it lives.
    """
    ratios: list[float] = []
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for _ in range(copies):
            ours, theirs = (copy.deepcopy(model).eval() for model in (first, second))
            calls = _enough(theirs, inputs)
            run_first, run_second = (
                partial(_run, model, inputs, calls) for model in (ours, theirs)
            )
            times = interleaved(run_first, run_second, repeats)
            ratios += [a / b for a, b in zip(*times, strict=True)]
            for taken, of_one in zip(seconds, times, strict=True):
                taken += [time / calls for time in of_one]
    return {
        "ratio": statistics.median(ratios),
        "interval": _interval(ratios),
        "first_s": statistics.median(seconds[0]),
        "second_s": statistics.median(seconds[1]),
        "repeats": len(ratios),
    }


def latencies(
    first: nn.Module, second: nn.Module, inputs: Inputs, *, repeats: int
) -> dict[str, Any]:
    """Compare with one thread and with all."""
    before = torch.get_num_threads()
    found = {}
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            found[f"latency_{threads}"] = compared(first, second, inputs, repeats=repeats, copies=3)
    finally:
        torch.set_num_threads(before)
    return found


def _interval(ratios: list[float]) -> list[float]:
    """Return where the median lies at 95 % confidence, whatever the distribution.

    As many ratios lie below it as heads fall in so many throws of a coin.
    """
    ordered = sorted(ratios)
    half, spread = len(ordered) / 2, math.sqrt(len(ordered))
    ends = max(0, math.floor(half - spread)), min(len(ordered), math.ceil(half + spread)) - 1
    return [ordered[end] for end in ends]


def _run(model: nn.Module, inputs: Inputs, calls: int) -> None:
    for _ in range(calls):
        call(model, inputs)


def _enough(model: nn.Module, inputs: Inputs) -> int:
    """Return how many calls fill a repeat, after calls that warm up."""
    for _ in range(2):
        begun = time.perf_counter()
        call(model, inputs)
        took = time.perf_counter() - begun
    return max(1, math.ceil(_SECONDS / took))


def shown(found: Mapping[str, Any]) -> str:
    """Return a ratio with the interval of its median."""
    low, high = found["interval"]
    return f"{found['ratio']:.3f} ({low:.3f} to {high:.3f})"
