"""Decoding image files of one common size; needs Pillow, the extra ``images``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infcop.errors import DataError, InfcopError, MissingDataError

__all__ = ["SUFFIXES", "ImageShape", "decode_images", "survey_images"]

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".ppm"])
"""What counts as an image, in any case."""

ImageShape = tuple[int, int, int]
"""Channels, height, width."""

_FORMATS = ("PNG", "JPEG", "BMP", "PPM")
_GREY = frozenset(["1", "L", "LA"])
_COLOUR = frozenset(["RGB", "RGBA", "P", "CMYK", "YCbCr"])


def survey_images(paths: Sequence[Path]) -> ImageShape:
    """Read the headers of image files and return the shape that all have.

    One colour image makes all of them colour: grey ones are then converted to RGB. Transparency
    is dropped.

    Args:
        paths: At least one file.

    Raises:
        MissingDataError: Pillow is not installed.
        DataError: A file is damaged, of another depth than 8 bits, or of another size.
    """
    first: tuple[int, int] | None = None
    colour = False
    for path in paths:
        with _opened(path) as image:
            first = first or image.size
            if image.size != first:
                raise DataError(
                    f"{path}: expected all images of one size, got {_size(image.size)} here and "
                    f"{_size(first)} in {paths[0]}; resize them to one size first"
                )
            if image.mode not in _GREY | _COLOUR:
                raise DataError(
                    f"{path}: expected an 8-bit grey or colour image, got Pillow's mode "
                    f"'{image.mode}'; convert it first"
                )
            colour = colour or image.mode in _COLOUR
    if first is None:
        raise DataError("survey_images: expected at least one image file, got none")
    return (3 if colour else 1, first[1], first[0])


def decode_images(paths: Sequence[Path], shape: ImageShape) -> Tensor:
    """Decode image files.

    Args:
        paths: Files that ``survey_images`` has accepted.
        shape: What it returned for them, or for more files than these.

    Returns:
        uint8 of shape ``[N, C, H, W]``.

    Raises:
        MissingDataError: Pillow is not installed.
        DataError: A file is damaged; the message names it.
    """
    pixels = np.empty((len(paths), *shape), dtype=np.uint8)
    mode = "L" if shape[0] == 1 else "RGB"
    for place, path in zip(pixels, paths, strict=True):
        with _opened(path) as image:
            decoded = np.asarray(image.convert(mode)).reshape(*shape[1:], shape[0])
        place[...] = decoded.transpose(2, 0, 1)
    return torch.from_numpy(pixels)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            # Pillow warns of suspiciously large images; no data set for a search has them.
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path, formats=_FORMATS) as image:
                yield image
    except InfcopError:
        raise
    except Exception as error:
        # Decoders raise whatever the damage leads them into: there is no list to rely on.
        raise DataError(
            f"{path}: can't be decoded ({error}); the file is damaged or not an image of the "
            f"kinds {', '.join(_FORMATS)}"
        ) from error


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDataError(
            "reading image files needs Pillow, which is not installed; "
            "run: pip install 'infcop[images]'"
        ) from error
    return Image


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
