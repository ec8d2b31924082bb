"""Crop and flip, one image and one pixel at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise_slowly(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """One uint8 image ``[C, H, W]`` as float64, by the textbook formula."""
    planes = [
        (plane.double() / 255 - float(m)) / float(s)
        for plane, m, s in zip(image, mean, std, strict=True)
    ]
    return torch.stack(planes)


def crop_and_flip_slowly(image: Tensor, row: int, column: int, flip: bool) -> Tensor:
    """Cut the window that begins at (row - 4, column - 4); what lies outside is zero."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for channel in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + row - 4, x + column - 4
                to_x = width - 1 - x if flip else x
                if 0 <= from_y < height and 0 <= from_x < width:
                    result[channel, y, to_x] = image[channel, from_y, from_x]
    return result
