"""The IDX format of MNIST and its successors.

A file is a big-endian header (two zero bytes, a type byte, the number of dimensions, each
dimension as uint32) and then the values; 0x08 is the type of unsigned bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path

import torch
from torch import Tensor

from infcop.data.arrays import Images, ImageSet, check_labels
from infcop.data.files import LARGEST, opened, read_at_most, require_file
from infcop.data.layouts import IDX_FILES
from infcop.errors import DataError

__all__ = ["load_idx", "read_idx"]

_UNSIGNED_BYTE = 0x08


def load_idx(folder: Path, name: str, class_names: Sequence[str]) -> ImageSet:
    """Read a set of the four MNIST files.

    Args:
        folder: Where the files lie.
        name: What the set is called.
        class_names: One name per class.

    Raises:
        MissingDataError: A file is not there.
        DataError: A file is damaged, or labels and images don't fit each other.
    """
    train = _load_part(folder, *IDX_FILES[:2], num_classes=len(class_names))
    test = _load_part(folder, *IDX_FILES[2:], num_classes=len(class_names))
    return ImageSet(name, train, test, len(class_names), tuple(class_names))


def read_idx(path: Path, ndim: int) -> Tensor:
    """Read one IDX file of unsigned bytes.

    Args:
        path: A plain, ``.gz`` or ``.xz`` file.
        ndim: How many dimensions it must have: 3 for images, 1 for labels.

    Returns:
        uint8 of the declared shape.

    Raises:
        DataError: Wrong magic number, an empty or absurd declared size, fewer or more bytes than
            declared, or a compressed stream that is cut short or fails its check sum.
    """
    with opened(path) as stream:
        shape = _read_header(stream, ndim, path)
        size = math.prod(shape)
        # One byte more than declared: it shows trailing bytes, and takes a compressed stream to
        # its end, where its check sum stands.
        content = read_at_most(stream, size + 1)
    if len(content) != size:
        held = "more" if len(content) > size else f"only {len(content)}"
        raise DataError(
            f"{path}: the header declares {' x '.join(map(str, shape))} = {size} bytes, "
            f"the file holds {held}; get it again"
        )
    return torch.frombuffer(content, dtype=torch.uint8).view(shape)


def _read_header(stream: BufferedIOBase, ndim: int, path: Path) -> tuple[int, ...]:
    header = bytes(read_at_most(stream, 4 + 4 * ndim))
    magic = bytes((0, 0, _UNSIGNED_BYTE, ndim))
    if header[:4] != magic:
        raise DataError(
            f"{path}: expected an IDX file of unsigned bytes with {ndim} dimension(s), which "
            f"begins with the bytes {magic.hex(' ')}; this one begins with "
            f"'{header[:4].hex(' ')}'"
        )
    if len(header) < 4 + 4 * ndim:
        raise DataError(
            f"{path}: expected a header of {4 + 4 * ndim} bytes, the file ends after {len(header)}"
        )
    shape: tuple[int, ...] = struct.unpack(f">{ndim}I", header[4:])
    if not 0 < math.prod(shape) <= LARGEST:
        raise DataError(
            f"{path}: expected a declared size of 1 to {LARGEST} bytes, the header declares "
            f"{' x '.join(map(str, shape))}"
        )
    return shape


def _load_part(folder: Path, images_name: str, labels_name: str, *, num_classes: int) -> Images:
    images_path, labels_path = require_file(folder, images_name), require_file(folder, labels_name)
    images = read_idx(images_path, ndim=3)
    labels = read_idx(labels_path, ndim=1).long()
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} "
            "labels; expected one label per image"
        )
    check_labels(labels, num_classes, str(labels_path))
    return Images(images.unsqueeze(1), labels)
