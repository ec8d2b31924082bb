"""The table of a sparse file: what it says of each tensor, and what makes it valid."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infcop.errors import ExportError
from infcop.export.dtypes import DTYPES

__all__ = ["KEY", "VERSION", "Entry", "Table", "read_table", "shown", "write_table"]

VERSION = 1
KEY = "infcop_sparse"
"""The one entry of the container's metadata: several would be written in any order."""

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Entry:
    """What the table says of one tensor.

    Attributes:
        form: ``dense`` or ``sparse``.
        dtype: A key of ``DTYPES``.
        shape: Of the tensor.
        sha256: Of its entries, little-endian and row by row.
    """

    form: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def entries(self) -> int:
        """How many entries the tensor has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in memory."""
        return self.entries * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Table:
    """Everything that a sparse file says beside its numbers.

    Attributes:
        tensors: By name; in the place of an entry the name of the tensor that this one is.
        meta: Values of JSON that whoever wrote the file put there.
    """

    tensors: dict[str, Entry | str]
    meta: dict[str, Any]

    @property
    def entries(self) -> dict[str, Entry]:
        """The tensors that have numbers of their own."""
        return {name: entry for name, entry in self.tensors.items() if isinstance(entry, Entry)}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in memory, tied ones once."""
        return sum(entry.nbytes for entry in self.entries.values())


def write_table(table: Table) -> str:
    """Return the text of a table: the SHA-256 of what follows, a space, and JSON.

    Example:
        >>> text = write_table(Table({"w": Entry("dense", "F32", (2,), "0" * 64)}, {}))
        >>> text[64:]
        ' {"version":1,"tensors":{"w":{"form":"dense","dtype":"F32","shape":[2],"sha256":"0000...
        >>> read_table(text).nbytes
        8
    """
    content = {
        "version": VERSION,
        "tensors": {name: _told(entry) for name, entry in table.tensors.items()},
        "meta": table.meta,
    }
    text = json.dumps(content, separators=(",", ":"))
    return f"{hashlib.sha256(text.encode()).hexdigest()} {text}"


def read_table(text: str) -> Table:
    """Return what ``write_table`` wrote; nothing is taken for granted.

    Raises:
        ExportError: The text is damaged, of a newer version, or says what can't be.
    """
    digest, _, body = text.partition(" ")
    if digest != hashlib.sha256(body.encode(errors="replace")).hexdigest():
        raise ExportError("its table doesn't have the check sum that it states")
    try:
        content = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"its table is no JSON that infcop wrote: {error}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is int and version > VERSION:
        raise ExportError(
            f"it was written by a newer infcop (version {version} of the format, this one reads up "
            f"to {VERSION}); upgrade infcop to read it"
        )
    if version != VERSION or type(version) is not int:
        raise ExportError(f"expected version {VERSION} of the format, got {shown(version)}")
    _check_keys(content, {"version", "tensors", "meta"}, "its table")
    for key in ("tensors", "meta"):
        if not isinstance(content[key], dict):
            raise ExportError(f"its table has no mapping under '{key}'")
    tensors = {name: _entry(name, told) for name, told in content["tensors"].items()}
    for name, entry in tensors.items():
        if isinstance(entry, str) and not isinstance(tensors.get(entry), Entry):
            raise ExportError(
                f"{shown(name)} is said to be the same as {shown(entry)}, which has no entries of "
                "its own"
            )
    return Table(tensors, content["meta"])


def _told(entry: Entry | str) -> Mapping[str, Any]:
    if isinstance(entry, str):
        return {"same_as": entry}
    return {
        "form": entry.form,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "sha256": entry.sha256,
    }


def _entry(name: str, told: Any) -> Entry | str:
    if not isinstance(told, dict):
        raise ExportError(f"its table has no mapping for {shown(name)}")
    if "same_as" in told:
        _check_keys(told, {"same_as"}, shown(name))
        return _text(name, told["same_as"])
    _check_keys(told, {"form", "dtype", "shape", "sha256"}, shown(name))
    form, dtype, shape = told["form"], told["dtype"], told["shape"]
    if form not in ("dense", "sparse"):
        raise ExportError(f"{shown(name)}: expected the form dense or sparse, got {shown(form)}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ExportError(
            f"{shown(name)}: expected a type of {', '.join(DTYPES)}, got {shown(dtype)}; it may "
            "need a newer PyTorch"
        )
    sizes: list[Any] = shape if isinstance(shape, list) else [None]
    if len(sizes) > 64 or any(type(size) is not int or size < 0 for size in sizes):
        raise ExportError(f"{shown(name)}: expected sizes of at least 0, got {shown(shape)}")
    # Sizes beside a zero count too: strides are computed of them.
    if math.prod(size for size in sizes if size) * DTYPES[dtype].itemsize > _LARGEST:
        raise ExportError(f"{shown(name)}: no memory holds a tensor of shape {shown(shape)}")
    return Entry(form, dtype, tuple(sizes), _text(name, told["sha256"]))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ExportError(f"{shown(name)}: expected a text, got {shown(value)}")
    return value


def _check_keys(content: Mapping[str, Any], expected: set[str], what: str) -> None:
    if set(content) != expected:
        raise ExportError(
            f"{what}: expected the keys {', '.join(sorted(expected))}, got "
            f"{shown(', '.join(sorted(content)))}"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def shown(value: object) -> str:
    """Return a value as messages show it: a hostile file may hold one of any length.

    Example:
        >>> shown("weight"), len(shown("w" * 1000))
        ("'weight'", 83)
    """
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
