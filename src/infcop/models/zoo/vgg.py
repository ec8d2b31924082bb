"""VGG-16 with batch normalisation, in the form used for 32x32 images."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from infcop.errors import ModelError
from infcop.models.zoo.parts import check_facts, kaiming_normal, scaled

__all__ = ["VGG16"]

# Configuration D: output channels of the convolutions between two poolings.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions and three linear layers: 16 prunable layers.

    Simonyan and Zisserman 2015 (arXiv 1409.1556), configuration D, with batch normalisation after
    each convolution and 512 instead of 4096 hidden units in the classifier, as is usual for
    CIFAR (Liu and Deng 2015). Input ``[B, in_channels, image_size, image_size]``, output
    ``[B, num_classes]``.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images, at least 32 with their padding.
        num_classes: Number of classes.
        width: Multiplies all hidden widths.
        padding: Zeros around the images, on each side: 2 makes the 28x28 of MNIST 32x32.

    Raises:
        ModelError: An argument is not a positive integer (``padding`` may be 0), or the images are
            too small.
        ConfigError: ``width`` is not a positive number.

    Example:
        >>> model = VGG16(in_channels=3, image_size=32, num_classes=10, width=0.125)
        >>> model.fc1
        Linear(in_features=64, out_features=64, bias=True)
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        width: float = 1.0,
        padding: int = 0,
    ) -> None:
        super().__init__()
        check_facts(
            "vgg-16", in_channels=in_channels, image_size=image_size, num_classes=num_classes
        )
        if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
            raise ModelError(f"vgg-16: expected padding to be an integer >= 0, got {padding!r}")
        side = image_size + 2 * padding
        if side < 32:
            raise ModelError(
                f"vgg-16: expected image_size >= 32 (five poolings halve it), got {image_size} and "
                f"padding {padding}; use a ResNet for smaller images, or a padding of "
                f"{math.ceil((32 - image_size) / 2)}"
            )
        self.padding = padding
        hidden = scaled(512, width)
        self.features = _convolutions(in_channels, width)
        self.fc1 = nn.Linear(hidden * (side // 32) ** 2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, num_classes)
        kaiming_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        if self.padding:
            images = functional.pad(images, [self.padding] * 4)
        hidden = functional.relu(self.fc1(self.features(images).flatten(1)))
        return self.fc3(functional.relu(self.fc2(hidden)))  # type: ignore[no-any-return]


def _convolutions(in_channels: int, width: float) -> nn.Sequential:
    parts: list[nn.Module] = []
    for stage in _STAGES:
        for published in stage:
            channels = scaled(published, width)
            # No bias: the normalisation that follows would remove it.
            parts.append(nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False))
            parts.append(nn.BatchNorm2d(channels))
            parts.append(nn.ReLU())
            in_channels = channels
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts)
