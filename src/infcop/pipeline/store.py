"""Every path of a run folder, and the only code that writes there.

    NAME/
      config.yaml                     the resolved settings: what makes this run this run
      record.json                     readings, decisions, levels, costs
      log.jsonl                       what happened when, one event a line
      report.html                     the page
      checkpoints/latest.safetensors  where the run stands; the one source of truth for resuming
      checkpoints/rewind.safetensors  the values that levels rewind to
      checkpoints/dense.safetensors   the dense trained network
      checkpoints/trunk.safetensors   where the search goes on after a milestone's final training
      checkpoints/sparse.safetensors  the sparse network, keys of the plain model
      ticket/masks.safetensors        what survives
      ticket/values.safetensors       the values that the ticket starts from
      compact.json                    what the compact network takes, and what was removed
      export/                         the network in other formats, each with its manifest
      export/compact.safetensors      the compact network

Every file is written next to its place, flushed to disk and renamed, so a reader sees the old
file or the new one and never half of one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from infcop.core.config import SearchConfig
from infcop.core.records import SCHEMA_VERSION, RunRecord
from infcop.errors import RunFolderError
from infcop.pipeline.settings import differences, read_back, written

__all__ = ["FinishedStore", "RunStore", "load_record", "parse_record"]


class RunStore:
    """One run folder.

    Args:
        root: The folder; made where it is missing.

    Raises:
        RunFolderError: The folder can't be made or written to.
    """

    elsewhere: ClassVar[str] = "--run-dir"
    """The option that chooses another folder, for messages."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.config = self.root / "config.yaml"
        self.record = self.root / "record.json"
        self.log = self.root / "log.jsonl"
        self.report = self.root / "report.html"
        self.latest = self.root / "checkpoints" / "latest.safetensors"
        self.rewind = self.root / "checkpoints" / "rewind.safetensors"
        self.dense = self.root / "checkpoints" / "dense.safetensors"
        self.sparse = self.root / "checkpoints" / "sparse.safetensors"
        self.trunk = self.root / "checkpoints" / "trunk.safetensors"
        self.masks = self.root / "ticket" / "masks.safetensors"
        self.values = self.root / "ticket" / "values.safetensors"
        self.compact = self.root / "compact.json"
        self.exports = self.root / "export"
        self.compact_weights = self.root / "export" / "compact.safetensors"
        self.compact_onnx = self.root / "export" / "compact.onnx"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, however it ends.

        Raises:
            RunFolderError: Another process holds it, or it can't be written to.
        """
        with self._explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunFolderError(
                    f"run folder '{self.root}' is in use by another process; wait for it, or "
                    f"choose another folder with {self.elsewhere}"
                ) from None
        try:
            self._clean()
            yield
        finally:
            lock.release()

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file of this run atomically."""
        self._write(path, lambda temporary: temporary.write_bytes(text.encode()))

    def write_tensors(
        self, path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
    ) -> None:
        """Write tensors, and values that JSON can hold, as one safetensors file."""
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"infcop": json.dumps(meta or {})}
        self._write(path, lambda temporary: save_file(plain, temporary, metadata))

    def read_tensors(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read what ``write_tensors`` wrote.

        Raises:
            RunFolderError: The file is missing or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, json.loads((file.metadata() or {})["infcop"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise RunFolderError(
                f"'{path}' can't be read ({error}); expected a file that infcop wrote. Start anew "
                "in another run folder"
            ) from error

    def write_record(self, record: RunRecord) -> None:
        """Write the record."""
        self.write_text(self.record, record.model_dump_json(indent=1) + "\n")

    def append_log(self, event: str, **facts: Any) -> None:
        """Add one event to the log; it is for reading only, nothing is resumed from it."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts})
        with self._explained(self.log), self.log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def claim(self, config: SearchConfig, model_name: str) -> None:
        """Write the settings, or make sure that the folder belongs to the same ones.

        Raises:
            RunFolderError: The folder holds a run with other settings, of a newer version, or a
                file of somebody else's in the place of the settings.
        """
        settings = written(config, model_name)
        if self.record.exists():
            load_record(self.root)
        # A run that failed before its first checkpoint left nothing worth keeping apart.
        if not (self.config.exists() and self.latest.exists()):
            if self.config.exists() and not self.log.exists():
                raise RunFolderError(
                    f"'{self.config}' was there before any run: expected an empty run folder, or "
                    "one of infcop's. Choose another with --run-dir"
                )
            self.append_log("claimed")
            self.write_text(self.config, yaml.safe_dump(settings, sort_keys=False))
            return
        try:
            stored = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            there = read_back(stored if isinstance(stored, dict) else {}, config)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RunFolderError(
                f"'{self.config}' can't be read as settings: {error}. Choose another run folder"
            ) from error
        if differing := differences(there, settings):
            listing = "; ".join(differing[:5]) + ("; ..." if len(differing) > 5 else "")
            raise RunFolderError(
                f"run folder '{self.root}' holds a run with other settings: {listing}. Give the "
                "same settings to continue it, or choose another folder with --run-dir"
            )

    def _clean(self) -> None:
        """Remove what a killed process left half written; nobody else's files."""
        for path in vars(self).values():
            for leftover in path.parent.glob(f".{path.name}.*.tmp"):
                if leftover.name.split(".")[-2].isdigit():
                    leftover.unlink(missing_ok=True)

    def _write(self, path: Path, fill: Callable[[Path], object]) -> None:
        with self._explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                # Writers may choose a private mode; what a run leaves is as open as any file.
                temporary.touch()
                mode = temporary.stat().st_mode
                fill(temporary)
                temporary.chmod(mode)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
            except SafetensorError as error:
                raise OSError(str(error)) from error
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"can't write '{path}': {error.strerror or error}. Expected a folder that can be "
                f"written to, with room; choose another with {self.elsewhere}. Files already there "
                "are whole"
            ) from error


class FinishedStore(RunStore):
    """The folder of a finished run, for commands that may write to another one."""

    elsewhere = "--out FOLDER"


def load_record(root: str | os.PathLike[str]) -> RunRecord:
    """Read the record of a run folder.

    Raises:
        RunFolderError: There is none, it is damaged, or a newer infcop wrote it.

    Example:
        >>> load_record("runs/not-there")
        Traceback (most recent call last):
        ...
        infcop.errors.RunFolderError: 'runs/not-there' is not a run folder: expected a file ...
    """
    path = RunStore(root).record
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFolderError(
            f"'{root}' is not a run folder: expected a file record.json in it"
        ) from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"'{path}' can't be read: {error}") from error
    return parse_record(content, path)


def parse_record(content: Any, path: Path) -> RunRecord:
    """Return a record from parsed JSON, refusing those of a newer version."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise RunFolderError(f"'{path}' is not a run record: it has no schema_version")
    if version > SCHEMA_VERSION:
        raise RunFolderError(
            f"'{path}' was written by a newer infcop (record version {version}, this one reads "
            f"up to {SCHEMA_VERSION}); upgrade infcop to read it"
        )
    try:
        return RunRecord.model_validate(content)
    except ValueError as error:
        raise RunFolderError(f"'{path}' is damaged: {error}") from error
