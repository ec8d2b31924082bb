"""What all benchmarks share: repeating side by side, and the form of a result."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["arguments", "data_dir", "finish", "interleaved", "machine"]


def arguments(description: str, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse what every benchmark takes: ``--quick`` and ``--out FILE``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under a minute, for a check")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    return parser.parse_args(argv)


def interleaved(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[list[float], list[float]]:
    """Time two calls in turn, after one uncounted call of each; the order alternates."""
    times: tuple[list[float], list[float]] = ([], [])
    first(), second()
    for repeat in range(repeats):
        order = ((0, first), (1, second)) if repeat % 2 == 0 else ((1, second), (0, first))
        for index, call in order:
            begun = time.perf_counter()
            call()
            times[index].append(time.perf_counter() - begun)
    return times


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios pair by pair: a drifting machine slows both of a pair."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge a timing."""
    return {
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "infcop")},
    }


def finish(figures: dict[str, Any], details: dict[str, Any], out: Path | None) -> None:
    """Print the figures as the last line and write the whole result."""
    command = "python -m " + " ".join([_module(), *_without_out(sys.argv[1:])])
    if out is not None:
        content = {"command": command, **machine(), "figures": figures, "details": details}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))


def data_dir() -> Path | None:
    """Return the folder of the real data sets, or None where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    named = os.environ.get("INFCOP_DATA")
    folder = Path(named) if named else beside
    return folder if folder.is_dir() else None


def _module() -> str:
    path = Path(sys.argv[0])
    return f"benchmarks.{path.parent.name if path.stem == '__main__' else path.stem}"


def _without_out(words: list[str]) -> list[str]:
    if "--out" in words:
        place = words.index("--out")
        return words[:place] + words[place + 2 :]
    return words
