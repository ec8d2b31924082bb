"""The page of a run folder, with what is known of its compact network."""

from __future__ import annotations

import json
from pathlib import Path

from infcop.core.footprint import FOOTPRINT_VERSION, Footprint
from infcop.core.records import RunRecord
from infcop.errors import RunFolderError
from infcop.pipeline.store import RunStore
from infcop.report.page import write_report

__all__ = ["load_footprint", "write_page"]


def write_page(store: RunStore, record: RunRecord) -> Path:
    """Write the page of a run and return its path.

    Raises:
        RunFolderError: The page can't be written, or ``compact.json`` can't be read.
    """
    return write_report(record, store.report, footprint=load_footprint(store))


def load_footprint(store: RunStore) -> Footprint | None:
    """Return what was measured of the compact network; None if there is none yet.

    Raises:
        RunFolderError: The file is damaged, or a newer infcop wrote it.
    """
    try:
        content = json.loads(store.compact.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(
            f"'{store.compact}' can't be read: {error}. {_again(store)}"
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int:
        raise RunFolderError(
            f"'{store.compact}' holds no numbers of infcop: it has no schema_version. "
            f"{_again(store)}"
        )
    if version > FOOTPRINT_VERSION:
        raise RunFolderError(
            f"'{store.compact}' was written by a newer infcop (version {version}, this one reads "
            f"up to {FOOTPRINT_VERSION}); upgrade infcop to read it. {_again(store)}"
        )
    try:
        return Footprint.model_validate(content)
    except ValueError as error:
        raise RunFolderError(
            f"'{store.compact}' is damaged: {str(error).splitlines()[0]}. {_again(store)}"
        ) from error


def _again(store: RunStore) -> str:
    return f"Write it again with 'infcop compact {store.root}'"
