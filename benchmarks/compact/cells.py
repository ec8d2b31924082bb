"""What a part has measured so far, and the file that keeps it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import machine

__all__ = ["Cells"]


class Cells:
    """Measurements by name; those of an unfinished file of the same command are gone on with."""

    def __init__(self, command: str, out: Path | None) -> None:
        self.command, self.out = command, out
        self.found: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        if out is not None and out.exists():
            content = json.loads(out.read_text(encoding="utf-8"))
            if content["command"] == command and content.get("unfinished"):
                self.found, self.seconds = content["details"], content["seconds"]

    def add(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure, unless that was done before the benchmark was interrupted."""
        if name in self.found:
            return
        begun = time.perf_counter()
        self.found[name] = measure()
        self.seconds[name] = round(time.perf_counter() - begun, 1)
        print(f"{name} [{self.seconds[name]} s]: {self.found[name]}", flush=True)
        self.write(None)

    def write(self, figures: Mapping[str, Any] | None) -> None:
        """Write everything measured so far; without figures the part isn't finished."""
        if self.out is None:
            return
        content: dict[str, Any] = {"command": self.command, **machine()}
        content |= {"unfinished": True} if figures is None else {"figures": figures}
        content |= {"seconds": self.seconds, "details": self.found}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
