"""An image data set in memory, checked on creation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from infcop.errors import DataError

__all__ = ["ImageSet", "Images", "check_labels"]


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels.

    Attributes:
        images: uint8 of shape ``[N, C, H, W]``, values 0 to 255.
        labels: int64 of shape ``[N]``.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A labelled image set with its published training and test parts.

    Attributes:
        name: What messages and records call it.
        train: The training part; held-out examples are taken from it later.
        test: The test part, of the same image shape.
        num_classes: Labels lie in ``[0, num_classes)``.
        class_names: One name per class.

    Raises:
        DataError: A part is empty, has other shapes or types than documented, holds a label out
            of range, or the parts differ in image shape.

    Example:
        >>> part = Images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> data = ImageSet("tiny", part, part, num_classes=2, class_names=("no", "yes"))
        >>> data.channels, data.image_size, data.mean, data.std
        (1, (8, 8), tensor([0.]), tensor([1.]))
    """

    name: str
    train: Images
    test: Images
    num_classes: int
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            raise DataError(
                f"{self.name}: expected {self.num_classes} class names, got {len(self.class_names)}"
            )
        for part, split in ((self.train, "train"), (self.test, "test")):
            _check_part(part, f"{self.name}, {split} part")
            check_labels(part.labels, self.num_classes, f"{self.name}, {split} part")
        train, test = tuple(self.train.images.shape[1:]), tuple(self.test.images.shape[1:])
        if train != test:
            raise DataError(
                f"{self.name}: expected training and test images of one shape, "
                f"got {train} and {test}"
            )

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.train.images.shape[2]), int(self.train.images.shape[3])

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the training pixels of each channel, scaled to [0, 1]; float32 ``[C]``."""
        return self._moments[0]

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation, scaled likewise; 1 for a constant channel, so that one can divide."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        # Pixels take 256 values only: their exact counts cost one pass and give exact sums.
        counts = torch.stack(
            [
                torch.bincount(self.train.images[:, channel].reshape(-1), minlength=256)
                for channel in range(self.channels)
            ]
        ).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        pixels = counts.sum(dim=1)
        mean = (counts @ values) / pixels
        centred = values - mean[:, None]
        std = ((counts * centred.square()).sum(dim=1) / pixels).sqrt()
        constant = counts.count_nonzero(dim=1) == 1
        return mean.float(), std.masked_fill(constant, 1.0).float()


def check_labels(labels: Tensor, num_classes: int, source: str) -> None:
    """Refuse a label outside ``[0, num_classes)``.

    Args:
        labels: Integers of shape ``[N]``.
        num_classes: How many classes there are.
        source: The file or part that the message names.

    Raises:
        DataError: With the first offending index and its value.

    Example:
        >>> check_labels(torch.tensor([0, 3]), 3, "train-labels")
        Traceback (most recent call last):
            ...
        infcop.errors.DataError: train-labels: expected labels in [0, 3), got 3 at index 1
    """
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise DataError(
            f"{source}: expected labels in [0, {num_classes}), "
            f"got {int(labels[index])} at index {index}"
        )


def _check_part(part: Images, source: str) -> None:
    _check_tensor(part.images, torch.uint8, ("N", "C", "H", "W"), f"{source}: images")
    _check_tensor(part.labels, torch.int64, ("N",), f"{source}: labels")
    if len(part.images) != len(part.labels):
        raise DataError(
            f"{source}: expected one label per image, "
            f"got {len(part.images)} images and {len(part.labels)} labels"
        )
    if part.images.numel() == 0:
        raise DataError(
            f"{source}: expected at least one image, got shape {tuple(part.images.shape)}"
        )


def _check_tensor(tensor: Tensor, dtype: torch.dtype, axes: Sequence[str], what: str) -> None:
    if tensor.dtype != dtype or tensor.ndim != len(axes):
        raise DataError(
            f"{what}: expected {dtype} of shape [{', '.join(axes)}], "
            f"got {tensor.dtype} of shape {list(tensor.shape)}"
        )
