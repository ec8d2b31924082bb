"""The official Python batches of CIFAR, read without unpickling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from infcop.data.arrays import Images
from infcop.data.files import read_whole
from infcop.data.restricted import read_pickle
from infcop.errors import DataError

__all__ = ["read_names", "read_pickled_batch"]

_PIXELS = 3 * 32 * 32
_LARGEST = 2**28
"""Bytes of one batch; the largest official one, of CIFAR-100, has 155 million."""


def read_pickled_batch(path: Path, label_key: str, num_classes: int) -> Images:
    """Read one batch: a dictionary with ``data``, uint8 ``[N, 3072]``, and a list of labels.

    Args:
        path: A pickle, plain, ``.gz`` or ``.xz``.
        label_key: The key of the labels.
        num_classes: How many classes there are.

    Raises:
        DataError: The file is damaged, builds anything but plain values and numeric arrays, or
            lacks what it should hold.
    """
    batch = _read_dictionary(path)
    data, labels = _entry(batch, "data", path), _entry(batch, label_key, path)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        raise DataError(f"{path}: expected 'data' to be a uint8 array of shape [N, {_PIXELS}]")
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise DataError(f"{path}: expected '{label_key}' to be a list of integers")
    if len(data) != len(labels):
        raise DataError(
            f"{path}: expected one label per image, got {len(data)} images and {len(labels)} labels"
        )
    return Images(
        torch.from_numpy(data.copy(order="C")).view(-1, 3, 32, 32),
        _label_tensor(labels, num_classes, path),
    )


def read_names(path: Path, names_key: str) -> tuple[str, ...]:
    """Read the names of the classes from ``batches.meta`` or ``meta``.

    Raises:
        DataError: As for a batch.
    """
    names = _entry(_read_dictionary(path), names_key, path)
    if not isinstance(names, list) or any(type(name) not in (str, bytes) for name in names):
        raise DataError(f"{path}: expected '{names_key}' to be a list of names")
    return tuple(_decoded(name) for name in names)


def _read_dictionary(path: Path) -> dict[object, object]:
    value = read_pickle(read_whole(path, _LARGEST), str(path))
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a dictionary, got {type(value).__name__}")
    return value


def _entry(batch: dict[object, object], name: str, path: Path) -> object:
    # Python 2 wrote these keys, as strings that are now bytes; a converted file has text.
    for key in (name.encode(), name):
        if key in batch:
            return batch[key]
    raise DataError(f"{path}: expected an entry '{name}', there is none")


def _label_tensor(labels: list[int], num_classes: int, path: Path) -> torch.Tensor:
    # Checked before there is a tensor: these integers may be larger than any tensor can hold.
    for index, label in enumerate(labels):
        if not 0 <= label < num_classes:
            raise DataError(
                f"{path}: expected labels in [0, {num_classes}), "
                f"got {_short(label)} at index {index}"
            )
    return torch.tensor(labels, dtype=torch.int64)


def _short(number: int) -> str:
    return str(number) if abs(number) < 2**63 else f"an integer of {number.bit_length()} bits"


def _decoded(name: str | bytes) -> str:
    return name.decode("utf-8", errors="replace") if isinstance(name, bytes) else name
