"""Reading a sparse file that may be damaged, or made to do harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from infcop.errors import ExportError
from infcop.export.dtypes import DTYPES, bits_of, digest_of
from infcop.export.sparse_format import KEY, Entry, Table, read_table, shown
from infcop.export.writing import path_of

__all__ = ["load_sparse", "sparse_meta"]

Array = np.ndarray[Any, np.dtype[Any]]

_COUNTS = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)
"""Bits that are set in each byte."""

_PIECE = 2**16
"""Bytes of a mask that are unpacked at a time: what is needed beside the result stays small."""


def load_sparse(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> dict[str, Tensor]:
    r"""Return the tensors of a sparse file, with the very bits that were saved.

    The file may come from anybody. Nothing in it is executed, and everything it says is checked
    before any memory is taken for a tensor. It can't ask for much more than its own size: with
    :math:`b` bytes in the file, the tensors have at most :math:`8 \cdot 8 \cdot b` bytes, since a
    bit stands for an entry of at most 8 bytes.

    Args:
        path: What ``save_sparse`` wrote.
        max_bytes: Refuse a file whose tensors take more; by default there is no other bound than
            the one above.

    Returns:
        Tensors on the CPU, in the order in which they were saved. Tied ones are one object.

    Raises:
        ExportError: There is no such file, it is none that ``save_sparse`` wrote, it is damaged,
            its tensors take more than ``max_bytes``, or that is no number of bytes.

    Example:
        >>> load_sparse("nowhere.safetensors")
        Traceback (most recent call last):
        ...
        infcop.errors.ExportError: load_sparse: there is no file 'nowhere.safetensors'; ...
    """
    if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 0):
        raise ExportError(
            f"load_sparse: expected max_bytes as a whole number of at least 0, got "
            f"{shown(max_bytes)}; give a number of bytes, as 2**30"
        )
    with _opened(path, "load_sparse") as (file, table):
        if max_bytes is not None and table.nbytes > max_bytes:
            raise ExportError(
                f"its tensors take {table.nbytes:,} bytes, more than max_bytes={max_bytes:,}; "
                "allow more if you trust it"
            )
        _check_parts(file, table)
        found = {name: _tensor(file, name, entry) for name, entry in table.entries.items()}
        return {
            name: found[entry if isinstance(entry, str) else name]
            for name, entry in table.tensors.items()
        }


def sparse_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what was saved beside the tensors of a sparse file; none of them is read.

    Raises:
        ExportError: As ``load_sparse``.

    Example:
        >>> import tempfile
        >>> from infcop.export.sparse_write import save_sparse
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_sparse({}, f"{folder}/a.safetensors", meta={"seed": 3})
        ...     sparse_meta(f"{folder}/a.safetensors")
        {'seed': 3}
    """
    with _opened(path, "sparse_meta") as (_, table):
        return table.meta


@contextmanager
def _opened(path: str | os.PathLike[str], what: str) -> Iterator[tuple[Any, Table]]:
    """Open a file and read its table; name the file in whatever is wrong with it."""
    place = path_of(path, what)
    try:
        if not place.is_file() and place.exists():
            # Opening a pipe would wait for ever.
            raise OSError("it is no regular file")
        with safe_open(place, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise ExportError(
                    f"expected a file that save_sparse wrote, got one without '{KEY}' in its "
                    "metadata; read other safetensors files with safetensors.torch.load_file"
                )
            yield file, read_table(text)
    except ExportError as error:
        raise ExportError(f"{what}: '{path}' can't be used: {error}") from error
    except FileNotFoundError:
        raise ExportError(
            f"{what}: there is no file '{path}'; expected one that save_sparse wrote"
        ) from None
    except (OSError, SafetensorError, UnicodeError) as error:
        # The library shows all of what it can't parse.
        told = str(error) if len(str(error)) <= 200 else f"{str(error)[:200]} ..."
        raise ExportError(
            f"{what}: '{path}' can't be read: {told}. Expected a file that save_sparse wrote; get "
            "or write it anew"
        ) from error


def _check_parts(file: Any, table: Table) -> None:
    """Make sure that the container holds what the table says, without reading a number."""
    expected: dict[str, tuple[str, list[int] | None]] = {}
    for name, entry in table.entries.items():
        if entry.form == "dense":
            expected[f"dense/{name}"] = (entry.dtype, list(entry.shape))
        else:
            expected[f"mask/{name}"] = ("U8", [-(-entry.entries // 8)])
            expected[f"values/{name}"] = (entry.dtype, None)
    if different := sorted(set(expected) ^ set(file.keys())):
        where = "the table" if different[0] in expected else "the container"
        raise ExportError(f"only {where} has {shown(different[0])}")
    for part, (dtype, shape) in expected.items():
        found = file.get_slice(part)
        sizes = found.get_shape()
        fits = len(sizes) == 1 if shape is None else sizes == shape
        if found.get_dtype() != dtype or not fits:
            told = "[n]" if shape is None else shape
            raise ExportError(
                f"expected {shown(part)} to be {dtype} of shape {told}, as the table says, got "
                f"{found.get_dtype()} of shape {sizes}"
            )


def _tensor(file: Any, name: str, entry: Entry) -> Tensor:
    dtype = DTYPES[entry.dtype]
    if entry.form == "dense":
        flat = _part(file, f"dense/{name}", dtype).clone()
    else:
        mask = _part(file, f"mask/{name}", torch.uint8).numpy()
        values = _part(file, f"values/{name}", dtype)
        _check_mask(name, mask, entry, len(values))
        flat = torch.zeros(entry.entries, dtype=bits_of(dtype))
        _spread(mask, values.numpy(), flat.numpy())
    if digest_of(flat) != entry.sha256:
        raise ExportError(f"{shown(name)} doesn't have the check sum that the table states")
    # Other values are no truth values, and operators may do anything with them.
    if dtype == torch.bool and bool((flat > 1).any()):
        raise ExportError(f"{shown(name)} holds truth values other than 0 and 1")
    return flat.view(dtype).reshape(entry.shape)


def _part(file: Any, part: str, dtype: torch.dtype) -> Tensor:
    """Return the entries of a part in a row, as integers of their bits; nothing is copied."""
    try:
        tensor: Tensor = file.get_tensor(part)
        return tensor.reshape(-1).view(bits_of(dtype))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"{shown(part)} can't be read: {error}") from error


def _check_mask(name: str, mask: Array, entry: Entry, values: int) -> None:
    pieces = range(0, len(mask), _PIECE)
    count = sum(int(_COUNTS[mask[start : start + _PIECE]].sum()) for start in pieces)
    if count != values:
        raise ExportError(f"{shown(name)} has {count:,} bits set, but {values:,} values")
    unused = entry.entries % 8
    if unused and mask[-1] >> unused:
        raise ExportError(f"{shown(name)} has bits set beyond its last entry")


def _spread(mask: Array, values: Array, out: Array) -> None:
    """Put values where bits are set."""
    used = 0
    for start in range(0, len(mask), _PIECE):
        bits = np.unpackbits(mask[start : start + _PIECE], bitorder="little")
        place = out[8 * start : 8 * (start + _PIECE)]
        chosen = bits[: len(place)].view(np.bool_)
        count = int(np.count_nonzero(chosen))
        place[chosen] = values[used : used + count]
        used += count
