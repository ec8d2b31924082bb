"""Small reference models, by name.

Each factory is called as ``factory(in_channels=, image_size=, num_classes=, **options)``. The
weights are drawn from the global generator of PyTorch, so seed it first.

Example:
    >>> ZOO["lenet-300-100"].description
    'fully connected, 300 and 100 hidden units'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from infcop.models.zoo.lenet import LeNet5, LeNet300100
from infcop.models.zoo.resnet import resnet_18, resnet_20, resnet_56
from infcop.models.zoo.vgg import VGG16

__all__ = ["ZOO", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        factory: Builds the model from ``in_channels``, ``image_size``, ``num_classes`` and options.
        description: One line for listings.
    """

    factory: Callable[..., nn.Module]
    description: str


ZOO: dict[str, Entry] = {
    "lenet-300-100": Entry(LeNet300100, "fully connected, 300 and 100 hidden units"),
    "lenet-5": Entry(LeNet5, "2 convolutions and 3 linear layers, images from 16x16"),
    "vgg-16": Entry(
        VGG16, "13 convolutions with batch normalisation, 3 linear layers, images from 32x32"
    ),
    "resnet-20": Entry(resnet_20, "residual, 3 stages of 3 blocks, the small network for CIFAR"),
    "resnet-56": Entry(resnet_56, "residual, 3 stages of 9 blocks, the deep network for CIFAR"),
    "resnet-18": Entry(resnet_18, "residual, 4 stages of 2 blocks, 64 to 512 channels, 3x3 stem"),
}
