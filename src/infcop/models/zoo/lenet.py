"""LeNet-300-100 and LeNet-5 (LeCun et al. 1998, "Gradient-Based Learning", sections II-III)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from infcop.errors import ModelError
from infcop.models.zoo.parts import check_facts, scaled

__all__ = ["LeNet5", "LeNet300100"]


class LeNet300100(nn.Module):
    """A fully connected network with 300 and 100 hidden units; 266,200 weights on 28x28 images.

    Input ``[B, in_channels, image_size, image_size]``, output ``[B, num_classes]``. ReLU takes
    the place of the scaled tanh, as in the pruning literature.

    Raises:
        ModelError: An argument is not a positive integer.

    Example:
        >>> model = LeNet300100(in_channels=1, image_size=8, num_classes=10)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, *, in_channels: int, image_size: int, num_classes: int) -> None:
        super().__init__()
        check_facts(
            "lenet-300-100",
            in_channels=in_channels,
            image_size=image_size,
            num_classes=num_classes,
        )
        self.fc1 = nn.Linear(in_channels * image_size**2, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        hidden = functional.relu(self.fc1(images.flatten(1)))
        return self.fc3(functional.relu(self.fc2(hidden)))  # type: ignore[no-any-return]


class LeNet5(nn.Module):
    """Two 5x5 convolutions with ReLU and 2x2 max pooling, then three linear layers.

    Input ``[B, in_channels, image_size, image_size]``, output ``[B, num_classes]``. There is no
    padding, so 32x32 images give the published 5x5 maps and 28x28 images 4x4 maps.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images, at least 16.
        num_classes: Number of classes.
        width: Multiplies the hidden widths 6, 16, 120 and 84.

    Raises:
        ModelError: An argument is not a positive integer, or the images are too small.
        ConfigError: ``width`` is not a positive number.

    Example:
        >>> model = LeNet5(in_channels=1, image_size=28, num_classes=10)
        >>> model.fc1.in_features
        256
    """

    def __init__(
        self, *, in_channels: int, image_size: int, num_classes: int, width: float = 1.0
    ) -> None:
        super().__init__()
        check_facts(
            "lenet-5", in_channels=in_channels, image_size=image_size, num_classes=num_classes
        )
        if image_size < 16:
            raise ModelError(
                f"lenet-5: expected image_size >= 16 (two 5x5 convolutions, each halved by "
                f"pooling), got {image_size}; use lenet-300-100 or a ResNet for small images"
            )
        first, second, third, fourth = (scaled(units, width) for units in (6, 16, 120, 84))
        side = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, first, kernel_size=5)
        self.conv2 = nn.Conv2d(first, second, kernel_size=5)
        self.fc1 = nn.Linear(second * side**2, third)
        self.fc2 = nn.Linear(third, fourth)
        self.fc3 = nn.Linear(fourth, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        maps = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        maps = functional.max_pool2d(functional.relu(self.conv2(maps)), 2)
        hidden = functional.relu(self.fc1(torch.flatten(maps, 1)))
        return self.fc3(functional.relu(self.fc2(hidden)))  # type: ignore[no-any-return]
