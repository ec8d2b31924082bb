"""Random crop and flip of whole batches, with the random numbers apart from their use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["PADDING", "CropFlip", "crop_and_flip", "draw_crop_flip"]

PADDING = 4
"""Pixels of zeros around an image before the crop."""


@dataclass(frozen=True, eq=False)
class CropFlip:
    """What to do with each image of a batch.

    Attributes:
        rows: Offset of the crop from the top of the padded image, 0 to 8; int64 ``[B]``.
        columns: Offset from the left; likewise.
        flips: Whether to mirror left and right afterwards; bool ``[B]``.
    """

    rows: Tensor
    columns: Tensor
    flips: Tensor

    def to(self, device: torch.device) -> CropFlip:
        """Move the numbers to a device."""
        return CropFlip(self.rows.to(device), self.columns.to(device), self.flips.to(device))


def draw_crop_flip(count: int, *, seed: int) -> CropFlip:
    """Draw uniform offsets and fair flips for a batch; the same on every device.

    Example:
        >>> drawn = draw_crop_flip(1000, seed=0)
        >>> int(drawn.rows.min()), int(drawn.rows.max()), drawn.flips.dtype
        (0, 8, torch.bool)
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randint(0, 2 * PADDING + 1, (2, count), generator=generator)
    flips = torch.randint(0, 2, (count,), generator=generator).bool()
    return CropFlip(rows, columns, flips)


def crop_and_flip(images: Tensor, drawn: CropFlip) -> Tensor:
    """Pad with zeros, crop back to the same size, flip: the usual recipe for 32x32 images.

    Crop and flip are one gather: a flipped image reads its columns from right to left.

    Args:
        images: Normalised images of shape ``[B, C, H, W]``, so that zero is the mean.
        drawn: One entry per image, on the device of the images.

    Returns:
        New images of the same shape and dtype.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> one = CropFlip(torch.tensor([4]), torch.tensor([5]), torch.tensor([True]))
        >>> crop_and_flip(image, one)
        tensor([[[[0., 2.], [0., 4.]]]])
    """
    count, channels, height, width = images.shape
    padded = functional.pad(images, [PADDING] * 4)
    across = torch.arange(width, device=images.device)
    down = torch.arange(height, device=images.device)
    columns = torch.where(drawn.flips[:, None], width - 1 - across, across)
    columns = columns + drawn.columns[:, None]
    rows = down + drawn.rows[:, None]
    places = rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]
    places = places.view(count, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view(images.shape)
