"""What all pages share: their templates, and how they are written."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from infcop.errors import RunFolderError

__all__ = ["template", "write_page"]


def template(name: str) -> Any:
    """Return a template of this package; whatever is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("infcop.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(name)


def write_page(path: Path, page: str) -> None:
    """Write a page; a reader sees the old one or the new one, never half of one.

    Raises:
        RunFolderError: The file can't be written; what was there before is left as it was.
    """
    try:
        _replace(path, page)
    except OSError as error:
        raise RunFolderError(
            f"can't write '{path}': {error.strerror or error}. Expected a folder that can be "
            "written to, with room"
        ) from error


def _replace(target: Path, page: str) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            # Private by mkstemp's choice; a page is made to be shown like any other file.
            os.chmod(name, 0o644)
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _unbroken(text: str) -> str:
    """Keep numbers and their units on one line."""
    return re.sub(
        r"(?<=\d) (?=%|points\b|passes\b|pass\b|\N{MULTIPLICATION SIGN}|\N{PLUS-MINUS SIGN})",
        "\N{NO-BREAK SPACE}",
        text,
    )
