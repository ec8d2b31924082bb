"""Writing a sparse file: a bit for every entry, and the entries that are not zero."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from infcop.errors import ExportError
from infcop.export.dtypes import DTYPE_NAMES, bits_of, digest_of
from infcop.export.sparse_format import KEY, Entry, Table, write_table
from infcop.export.tensors import Plain, plain
from infcop.export.writing import path_of, write_whole

__all__ = ["nonzero", "save_sparse", "sparse_size"]


def save_sparse(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors so that zeros take one bit each.

    A tensor is written as it is, or as one bit for every entry and the entries whose bit is set,
    whichever is less. The bit is set wherever the entry's own bits are not those of +0.0, so that
    -0.0 and NaN are kept. The file is a safetensors file; the guide on exports says what is where.
    Its name and its bytes don't depend on anything but the arguments.

    Args:
        tensors: For instance a ``state_dict``. Tied tensors are written once.
        path: Where to.
        meta: Values that JSON can hold, kept beside the tensors.

    Raises:
        ExportError: A tensor can't be held by such a file, ``meta`` is no JSON, or the file can't
            be written.

    Example:
        >>> import tempfile, infcop
        >>> weight = torch.zeros(64, 64)
        >>> weight[:, 0] = torch.arange(64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     infcop.save_sparse({"weight": weight}, f"{folder}/net.sparse.safetensors")
        ...     loaded = infcop.load_sparse(f"{folder}/net.sparse.safetensors")
        >>> torch.equal(loaded["weight"], weight)
        True
    """
    found = plain(tensors, "save_sparse")
    in_order = {name: found.tied.get(name) for name in tensors}
    parts, text = _encoded(found, in_order, {} if meta is None else meta)
    write_whole(path_of(path, "save_sparse"), lambda place: save_file(parts, place, {KEY: text}))


def sparse_size(found: Plain) -> int:
    """Return the bytes of a sparse file of these tensors, without any ``meta``.

    Example:
        >>> some, more = (plain({"w": torch.zeros(n, 8)}, "example") for n in (100, 108))
        >>> sparse_size(more) - sparse_size(some)  # 64 bits
        8
    """
    names = {**dict.fromkeys(found.tensors), **found.tied}
    parts, text = _encoded(found, names, {})
    return len(save(parts, {KEY: text}))


def nonzero(tensor: Tensor) -> Tensor:
    """Return for each entry, in a row, whether its bits differ from those of +0.0.

    Args:
        tensor: Contiguous, on the CPU.
    """
    return tensor.reshape(-1).view(bits_of(tensor.dtype)) != 0


def _encoded(
    found: Plain, names: Mapping[str, str | None], meta: Mapping[str, Any]
) -> tuple[dict[str, Tensor], str]:
    parts: dict[str, Tensor] = {}
    entries: dict[str, Entry | str] = {}
    for name, owner in names.items():
        if owner is None:
            form = _store(parts, name, found.tensors[name])
            entries[name] = _entry(form, found.tensors[name])
        else:
            entries[name] = owner
    try:
        if not isinstance(meta, Mapping):
            raise TypeError(f"{type(meta).__name__} is no mapping")
        return parts, write_table(Table(entries, dict(meta)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ExportError(
            f"save_sparse: expected meta that JSON can hold, got something else: "
            f"{error}; give a mapping of texts, numbers, lists and mappings"
        ) from error


def _store(parts: dict[str, Tensor], name: str, tensor: Tensor) -> str:
    """Add the parts of a tensor; return its form."""
    mask = nonzero(tensor)
    bits = torch.from_numpy(np.packbits(mask.numpy(), bitorder="little"))
    kept = int(mask.count_nonzero())
    if len(bits) + kept * tensor.element_size() >= tensor.numel() * tensor.element_size():
        parts[f"dense/{name}"] = tensor
        return "dense"
    values = tensor.reshape(-1).view(bits_of(tensor.dtype))[mask]
    parts[f"mask/{name}"], parts[f"values/{name}"] = bits, values.view(tensor.dtype)
    return "sparse"


def _entry(form: str, tensor: Tensor) -> Entry:
    return Entry(form, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), digest_of(tensor))
