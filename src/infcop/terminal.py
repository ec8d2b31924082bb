"""What the command line shows while a run goes on."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typing_extensions import Self

__all__ = ["PlainProgress", "RichProgress", "SilentProgress", "terminal_progress"]


class SilentProgress:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def begin(self, title: str, steps: int, done: int) -> None:
        """Do nothing."""

    def step(self, done: int) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""


class PlainProgress(SilentProgress):
    """Prints each sentence on a line of its own, for logs and pipes."""

    def say(self, line: str) -> None:
        """Print a sentence at once."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class RichProgress(SilentProgress):
    """Shows a bar for the present phase, and each decision above it as it falls."""

    _EVERY = 0.1

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, title: str, steps: int, done: int) -> None:
        """Replace the bar."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(title, total=steps, completed=done)

    def step(self, done: int) -> None:
        """Move the bar, though not more often than an eye can follow."""
        now = time.monotonic()
        if self._task is not None and now - self._shown >= self._EVERY:
            self._shown = now
            self._bars.update(self._task, completed=done)

    def say(self, line: str) -> None:
        """Print a sentence above the bar."""
        self._bars.console.print(line, highlight=False, markup=False, emoji=False)


def terminal_progress(*, quiet: bool) -> SilentProgress:
    """Return bars in a terminal, plain lines otherwise, nothing if quiet."""
    if quiet:
        return SilentProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()
