"""Every path of a study's folder.

NAME/
  results.json                      a row per sparse network, and what the rows say together
  compare.html                      the page
  runs/SETTING/METHOD/SEED          a run folder, or
  runs/SETTING/METHOD/SEED/DENSITY  one for each density
  dense/SETTING/SEED                dense training that the runs share
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from infcop.core.study import STUDY_VERSION, StudyResults
from infcop.errors import RunFolderError
from infcop.report.writing import write_page

__all__ = ["StudyStore"]


class StudyStore:
    """One folder of a study.

    Args:
        root: The folder; made when it is locked.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.results = self.root / "results.json"
        self.page = self.root / "compare.html"

    def run(self, setting: str, method: str, seed: int, part: str = "") -> Path:
        """Return where a run lies."""
        return self.root / "runs" / setting / method / str(seed) / part

    def dense(self, setting: str, seed: int) -> Path:
        """Return where the dense training of a setting and a seed is kept."""
        return self.root / "dense" / setting / str(seed)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            RunFolderError: Another process holds it, or it can't be written to.
        """
        lock = FileLock(self.root / ".lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"the study '{self.root}' is in use by another process; wait for it, or choose "
                "another folder with --out"
            ) from None
        except OSError as error:
            raise RunFolderError(
                f"can't write '{self.root}': {error.strerror or error}. Expected a folder that "
                "can be written to; choose another with --out"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def write_results(self, results: StudyResults) -> None:
        """Write the results; a reader sees the old ones or the new ones, whole."""
        write_page(self.results, results.model_dump_json(indent=1) + "\n")

    def read_results(self) -> StudyResults:
        """Read what ``write_results`` wrote.

        Raises:
            RunFolderError: There are none, they are damaged, or of a newer version.
        """
        try:
            content = json.loads(self.results.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(
                f"'{self.root}' is not the folder of a study: expected a file results.json in it. "
                "Run the comparison first, or name its folder with --out"
            ) from None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"'{self.results}' can't be read: {error}") from error
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > STUDY_VERSION:
            raise RunFolderError(
                f"'{self.results}' was written by a newer infcop (version {version}, this one "
                f"reads up to {STUDY_VERSION}); upgrade infcop to read it"
            )
        try:
            return StudyResults.model_validate(content)
        except ValueError as error:
            raise RunFolderError(
                f"'{self.results}' can't be read as results: {error}. Run the comparison again to "
                "write it anew from its run folders"
            ) from error
