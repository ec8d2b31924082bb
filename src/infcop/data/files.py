"""Finding and reading data files that may be compressed, never further than asked."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from infcop.errors import DataError, MissingDataError

__all__ = ["LARGEST", "find_file", "opened", "read_at_most", "read_whole", "require_file"]

LARGEST = 2**31
"""No reader takes in more bytes than this from one file: well above every known set."""

_SUFFIXES = ("", ".gz", ".xz")
_CHUNK = 2**20


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file ``name``, ``name.gz`` or ``name.xz`` of a folder, or None.

    Example:
        >>> find_file(Path("no-such-folder"), "train-labels") is None
        True
    """
    candidates = (folder / f"{name}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def require_file(folder: Path, name: str) -> Path:
    """Return what ``find_file`` finds.

    Raises:
        MissingDataError: There is no such file, compressed or not.
    """
    path = find_file(folder, name)
    if path is None:
        raise MissingDataError(
            f"{folder / name}: expected this file, plain or as .gz or .xz; there is none"
        )
    return path


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open a plain, gzip or xz file, by its suffix, for reading its content.

    Raises:
        DataError: The file, or its compressed stream, turns out to be unreadable while it is
            open: cut short, wrong check sum, not what its suffix says.
    """
    try:
        with _open(path) as stream:
            yield stream
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"{path}: can't be read ({error}); the file may be cut short or damaged, get it again"
        ) from error


def read_at_most(stream: BufferedIOBase, limit: int) -> bytearray:
    """Return the next ``limit`` bytes, or fewer at the end.

    Memory grows with what the stream really holds: a header that declares terabytes, or a small
    file that unpacks to gigabytes, costs nothing beyond ``limit``.
    """
    content = bytearray()
    while len(content) < limit:
        chunk = stream.read(min(_CHUNK, limit - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def read_whole(path: Path, limit: int = LARGEST) -> bytearray:
    """Return the uncompressed content of a file.

    Raises:
        DataError: It is unreadable or holds more than ``limit`` bytes.
    """
    with opened(path) as stream:
        content = read_at_most(stream, limit + 1)
    if len(content) > limit:
        raise DataError(f"{path}: expected at most {limit} bytes of content, it holds more")
    return content


def _open(path: Path) -> BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    return path.open("rb")
