"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from infcop.errors import ExportError

__all__ = ["path_of", "write_whole"]


def path_of(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path.

    Raises:
        ExportError: It is of another type, or what no file can be called.

    Example:
        >>> path_of("nets/a.safetensors", "example").name
        'a.safetensors'
    """
    try:
        found = Path(path)
    except TypeError as error:
        raise ExportError(
            f"{what}: expected a path as text, got {type(path).__name__}; give the name of a file"
        ) from error
    if not found.name or "\0" in str(found):
        raise ExportError(
            f"{what}: expected the path of a file, got {str(path)!r}; give a name that is not "
            "empty and has no zero byte"
        )
    return found


def write_whole(path: Path, fill: Callable[[Path], object]) -> None:
    """Write a file beside its place, flush it to disk and rename it.

    A reader sees the old file or the new one, never half of one.

    Args:
        path: The file; its folder is made where it is missing.
        fill: Writes the content to the path that it is given, of the same ending.

    Raises:
        ExportError: The file can't be written; what was there before is left as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "inner", "a.txt")
        ...     write_whole(path, lambda place: place.write_text("whole"))
        ...     path.read_text(), len(list(path.parent.iterdir()))
        ('whole', 1)
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Writers may choose a private mode; an export is as open as any file.
            temporary.touch()
            mode = temporary.stat().st_mode
            fill(temporary)
            temporary.chmod(mode)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise ExportError(
            f"can't write '{path}': {told}. Expected a folder that can be written to, with room; "
            "choose another with --out"
        ) from error
