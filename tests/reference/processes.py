"""Processes that measure together: started once, given one scenario after the other."""

from __future__ import annotations

import importlib.util
import inspect
import json
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

START_SECONDS = 120
"""Importing torch in several processes at once, on a loaded machine."""
ANSWER_SECONDS = 30
"""A scenario that takes longer hangs."""
COLLECTIVE_SECONDS = 20
"""A process that waits longer for the others gives up, and says where it waited."""


class Processes:
    """Runs functions in several processes that form a gloo group, one thread each.

    The processes are started by the first :meth:`run` and serve all later ones, since importing
    torch takes seconds. Every run has a process group of its own. After a scenario that failed or
    hung they are ended, and the next run starts new ones.

    Args:
        most: How many processes to start.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._started: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []

    def run(self, count: int, scenario: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what a function gives in each of the first so many processes.

        Args:
            count: The size of the process group.
            scenario: A function at the top of a file, which each process loads by its path.
            arguments: The same for all processes; like the answers, values that JSON can hold.

        Raises:
            AssertionError: The scenario raised or hung in a process.
        """
        if not self._started:
            self._start()
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder) / "store")
            task = json.dumps(
                [store, count, inspect.getfile(scenario), scenario.__name__, arguments]
            )
            for _, connection in self._started[:count]:
                connection.send_bytes(task.encode())
            answers = self._answers(count)
        failed = {rank: answer for rank, answer in enumerate(answers) if "failure" in answer}
        if failed:
            self.close()
            told = [f"process {rank} of {count}:\n{a['failure']}" for rank, a in failed.items()]
            raise AssertionError(f"{scenario.__name__} failed in\n" + "\n".join(told))
        return [answer["result"] for answer in answers]

    def close(self) -> None:
        """End all processes."""
        for process, connection in self._started:
            connection.close()
            process.kill()
            process.join()
            process.close()
        self._started = []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for rank in range(self.most):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            theirs.close()
            self._started.append((process, ours))
        for _, connection in self._started:
            if not connection.poll(START_SECONDS):
                self.close()
                raise AssertionError(f"a process did not start within {START_SECONDS} s")
            connection.recv_bytes()

    def _answers(self, count: int) -> list[dict[str, Any]]:
        end = time.monotonic() + ANSWER_SECONDS
        answers = []
        for _, connection in self._started[:count]:
            if not connection.poll(max(0.0, end - time.monotonic())):
                answers.append({"failure": f"no answer after {ANSWER_SECONDS} s: it hangs"})
                continue
            try:
                answers.append(json.loads(connection.recv_bytes()))
            except EOFError:
                answers.append({"failure": "the process has ended"})
        return answers


def outcome(action: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return what an action gives, or its error, as values that JSON can hold."""
    try:
        return {"value": action(*arguments)}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


def all_alike(answers: Sequence[Any]) -> Any:
    """Return the answer of all processes, making sure that it is one, to the last bit."""
    assert all(repr(answer) == repr(answers[0]) for answer in answers)
    return answers[0]


def _serve(rank: int, connection: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    connection.send_bytes(b"ready")
    while True:
        try:
            task = json.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = json.dumps({"result": _result(rank, *task)})
        except BaseException:
            answer = json.dumps({"failure": traceback.format_exc()})
        connection.send_bytes(answer.encode())


def _result(rank: int, store: str, count: int, path: str, name: str, arguments: list[Any]) -> Any:
    from torch import distributed

    if distributed.is_initialized():
        # Only now: the others may still have been busy with what this process had finished.
        distributed.destroy_process_group()
    scenario = getattr(_loaded(path), name)
    distributed.init_process_group(
        "gloo",
        store=distributed.FileStore(store, count),
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=COLLECTIVE_SECONDS),
    )
    return scenario(*arguments)


_modules: dict[str, Any] = {}


def _loaded(path: str) -> Any:
    """Return a module by its path: how pytest names its test files is its own business."""
    if path not in _modules:
        spec = importlib.util.spec_from_file_location(f"scenarios_{Path(path).stem}", path)
        assert spec is not None
        assert spec.loader is not None
        _modules[path] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(_modules[path])
    return _modules[path]
