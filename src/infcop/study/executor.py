"""Who carries out the runs of a study: this process, or several on this machine."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Protocol

from infcop.study.jobs import Job
from infcop.study.work import Finished

__all__ = ["Executor", "LocalProcesses", "ThisProcess", "Work", "local_executor"]

Work = Generator["Finished", None, None]
"""Answers as they come; closing it ends all work."""


class Executor(Protocol):
    """Carries out independent jobs, anywhere and in any order."""

    def run(self, call: Callable[[Job], Finished], jobs: Sequence[Job]) -> Work:
        """Yield what comes of each job as soon as it is there.

        ``call`` is a function at the top of a module and never raises; jobs and answers are values
        that survive a round trip through JSON.
        """


def local_executor(workers: int) -> Executor:
    """Return an executor on this machine; one worker is this process itself."""
    return ThisProcess() if workers == 1 else LocalProcesses(workers)


class ThisProcess:
    """One job after the other, here."""

    def run(self, call: Callable[[Job], Finished], jobs: Sequence[Job]) -> Work:
        """Yield what comes of each job."""
        yield from map(call, jobs)


class LocalProcesses:
    """Several processes on this machine.

    Each is a pool of its own: where one is lost, for instance because memory ran out, the job it
    was at is known to have failed, and all others go on.

    Args:
        workers: How many processes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(self, call: Callable[[Job], Finished], jobs: Sequence[Job]) -> Work:
        """Yield what comes of each job as soon as it is there."""
        lanes = [_Lane() for _ in range(min(self._workers, len(jobs)))]
        idle: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for lane in lanes:
            idle.put(lane)

        def in_a_lane(job: Job) -> Finished:
            lane = idle.get()
            try:
                return lane.run(call, job)
            finally:
                idle.put(lane)

        if not lanes:
            return
        threads = ThreadPoolExecutor(len(lanes))
        try:
            for future in as_completed([threads.submit(in_a_lane, job) for job in jobs]):
                yield future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for lane in lanes:
                lane.end()
            threads.shutdown(wait=True)


class _Lane:
    """One process at a time, which does one job after the other."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0
        self._ended = False

    def run(self, call: Callable[[Job], Finished], job: Job) -> Finished:
        try:
            pool = self._pool = self._pool or self._started()
            if self._ended:
                pool.shutdown()
                return _lost(job, "the study was stopped")
            return pool.submit(call, job).result()
        except BrokenProcessPool:
            self._pool = None
            return _lost(job, "its process ended, killed perhaps where memory ran out")

    def end(self) -> None:
        """End the process at once: a run folder can be left at any moment."""
        self._ended = True
        if self._pool is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
            self._pool.shutdown()

    def _started(self) -> ProcessPoolExecutor:
        # Forking a process that has threads is asking for trouble.
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_ignore_ctrl_c)
        self._pid = pool.submit(os.getpid).result()
        return pool


def _ignore_ctrl_c() -> None:
    """Leave it to the process that started this one to end it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _lost(job: Job, why: str) -> Finished:
    message = f"the run was lost: {why}; the same command goes on with it"
    return Finished(job=job, failures=(job.failed(message),))
