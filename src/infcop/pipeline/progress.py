"""What a run tells whoever watches it."""

from __future__ import annotations

import logging
from typing import Protocol

__all__ = ["LoggedProgress", "Progress"]

_LOGGER = logging.getLogger("infcop")


class Progress(Protocol):
    """The watcher of a run."""

    def begin(self, title: str, steps: int, done: int) -> None:
        """A phase of at most so many optimiser steps begins, ``done`` of them made before."""

    def step(self, done: int) -> None:
        """So many steps of the phase are made."""

    def say(self, line: str) -> None:
        """A sentence for the reader: a result or a decision."""


class LoggedProgress:
    """Progress for library use: sentences go to the logger ``infcop``, bars nowhere."""

    def begin(self, title: str, steps: int, done: int) -> None:
        """Do nothing."""

    def step(self, done: int) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Log a sentence."""
        _LOGGER.info(line)
