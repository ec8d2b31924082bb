"""CIFAR-10 and CIFAR-100, from the official binary files or Python batches.

A binary record is one label byte (two in CIFAR-100: coarse, fine) and 3,072 pixel bytes: the
red, green and blue planes of 32x32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from infcop.data.arrays import Images, ImageSet, check_labels
from infcop.data.cifar_pickled import read_names, read_pickled_batch
from infcop.data.files import find_file, read_whole, require_file
from infcop.data.layouts import CIFAR10, CIFAR100, CifarForm, CifarLayout, find_form
from infcop.errors import DataError, MissingDataError

__all__ = ["load_cifar10", "load_cifar100"]

_PIXELS = 3 * 32 * 32
_CIFAR10_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def load_cifar10(folder: Path) -> ImageSet:
    """Read CIFAR-10 (Krizhevsky 2009) from a folder.

    All training batches that are present are used, in order. Binary files are preferred where
    both forms are present; each file may be plain, ``.gz`` or ``.xz``. The Python batches are
    pickles and are read without unpickling (``infcop.data.restricted``).

    Raises:
        MissingDataError: There is no training batch, or no test batch of the same form.
        DataError: A file is damaged or holds something else.
    """
    return _load(CIFAR10, folder)


def load_cifar100(folder: Path) -> ImageSet:
    """Read CIFAR-100 with its 100 fine labels, like ``load_cifar10``."""
    return _load(CIFAR100, folder)


def _load(layout: CifarLayout, folder: Path) -> ImageSet:
    form = find_form(layout, folder)
    if form is None:
        raise MissingDataError(
            f"{layout.name}: expected in {folder} at least one of "
            f"{', '.join(layout.binary.train)} and {layout.binary.test} (or the Python batches "
            f"{', '.join(layout.pickled.train)} and {layout.pickled.test}); "
            "each plain, .gz or .xz"
        )
    read = _binary_reader(layout) if form is layout.binary else _pickled_reader(layout)
    paths = [path for name in form.train if (path := find_file(folder, name))]
    batches = [read(path) for path in paths]
    train = Images(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
    )
    test = read(require_file(folder, form.test))
    names = _class_names(layout, form, folder)
    return ImageSet(layout.name, train, test, layout.num_classes, names)


def _pickled_reader(layout: CifarLayout) -> Callable[[Path], Images]:
    return lambda path: read_pickled_batch(path, layout.label_key, layout.num_classes)


def _binary_reader(layout: CifarLayout) -> Callable[[Path], Images]:
    return lambda path: _read_binary(path, layout)


def _read_binary(path: Path, layout: CifarLayout) -> Images:
    record = layout.label_bytes + _PIXELS
    content = read_whole(path)
    if not content or len(content) % record:
        raise DataError(
            f"{path}: expected records of {record} bytes each, got {len(content)} bytes = "
            f"{len(content) // record} records and {len(content) % record} bytes; "
            f"the file is cut short or is not {layout.name}"
        )
    records = torch.frombuffer(content, dtype=torch.uint8).view(-1, record)
    labels = records[:, layout.label_bytes - 1].long()
    check_labels(labels, layout.num_classes, str(path))
    return Images(records[:, layout.label_bytes :].reshape(-1, 3, 32, 32), labels)


def _class_names(layout: CifarLayout, form: CifarForm, folder: Path) -> tuple[str, ...]:
    path = find_file(folder, form.names)
    if path is None and layout is CIFAR10:
        return _CIFAR10_NAMES
    if path is None:
        return tuple(f"class {label}" for label in range(layout.num_classes))
    if form is layout.pickled:
        names = read_names(path, layout.names_key)
    else:
        lines = read_whole(path).decode("utf-8", errors="replace").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != layout.num_classes:
        raise DataError(
            f"{path}: expected the names of {layout.num_classes} classes, got {len(names)}"
        )
    return names
