"""How long networks take, measured in turns so that none has the better moments."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from infcop.core.footprint import Timing

__all__ = ["timed"]

Name = TypeVar("Name", bound=str)


def timed(
    runs: Mapping[Name, Callable[[], object]],
    *,
    batch: int,
    threads: int,
    repeats: int = 9,
    seconds: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, Timing]:
    """Time several networks in rounds, one repeat of each in every round.

    Each round begins with another network. A repeat calls its network as often as fills
    ``seconds``; the first calls, which find that number, are not counted.

    Args:
        runs: By name, what runs a network once and waits for its end.
        batch: Examples of each call, for the record.
        threads: Threads in use, for the record.
        repeats: Rounds, at least 2.
        seconds: How long a repeat takes at least, about.
        clock: Returns the time in seconds.

    Example:
        >>> found = timed({"sum": lambda: sum(range(99))}, batch=1, threads=1, seconds=0.0)
        >>> found["sum"].repeats, found["sum"].calls
        (9, 1)
    """

    def spent(name: Name, calls: int) -> float:
        run, start = runs[name], clock()
        for _ in range(calls):
            run()
        return clock() - start

    names = list(runs)
    calls = {name: _enough(partial(spent, name), seconds) for name in names}
    found: dict[Name, list[float]] = {name: [] for name in names}
    for place in range(repeats):
        first = place % max(len(names), 1)
        for name in (*names[first:], *names[:first]):
            found[name].append(spent(name, calls[name]) / calls[name])
    return {name: _timing(found[name], batch, threads, calls[name]) for name in names}


def _enough(spent: Callable[[int], float], seconds: float) -> int:
    """Return how many calls fill a time, after calls that warm up."""
    spent(1)
    calls = 1
    while (took := spent(calls)) < seconds:
        # Never more than tenfold at once: the first calls may say little of the later ones.
        calls = min(math.ceil(calls * 1.2 * seconds / took), 10 * calls) if took else 10 * calls
    return calls


def _timing(taken: list[float], batch: int, threads: int, calls: int) -> Timing:
    lower, median, upper = statistics.quantiles(taken, n=4, method="inclusive")
    return Timing(
        batch=batch,
        threads=threads,
        median=median,
        lower=lower,
        upper=upper,
        repeats=len(taken),
        calls=calls,
    )
