"""The networks of arXiv 2006.05467 for CIFAR, and the examples that data-dependent scores see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.common import data_dir
from infcop.data.loader import TensorLoader
from infcop.data.registry import load_set
from infcop.models.zoo.parts import kaiming_normal
from infcop.models.zoo.resnet import resnet_18
from infcop.models.zoo.vgg import VGG16

__all__ = ["IMAGE", "NETWORKS", "built", "examples"]

IMAGE = (3, 32, 32)
"""Shape of an input."""


def vgg_16(*, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return VGG-16 with 13 convolutions, batch normalisation and a single linear layer.

    That of the library has three linear layers, and a fifth pooling where this one averages.
    """
    features = list(
        VGG16(in_channels=3, image_size=32, num_classes=num_classes, width=width).features
    )[:-1]
    (channels,) = {m.num_features for m in features[-3:] if isinstance(m, nn.BatchNorm2d)}
    return nn.Sequential(
        *features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )


def resnet(*, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return ResNet-18 with a 3x3 stem and 1x1 convolutions on the shortcuts that change shape."""
    return resnet_18(in_channels=3, image_size=32, num_classes=num_classes, width=width)


NETWORKS = {"vgg-16": vgg_16, "resnet-18": resnet}


def built(name: str, *, num_classes: int, seed: int, width: float = 1.0) -> nn.Module:
    """Return a network with Kaiming normal weights and biases of zero, drawn from a seed."""
    torch.manual_seed(seed)
    model = NETWORKS[name](num_classes=num_classes, width=width)
    kaiming_normal(model)
    return model


def examples(seed: int, per_class: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of training images of the CIFAR-10 subset, drawn from a seed.

    Of each class there are so many in the mean.
    """
    images = load_set("cifar-10", str(data_dir()))
    generator = torch.Generator().manual_seed(seed)
    count = per_class * images.num_classes
    drawn = torch.randperm(len(images.train.labels), generator=generator)[:count]
    loader = TensorLoader(
        images.train.images[drawn],
        images.train.labels[drawn],
        batch_size=256,
        mean=images.mean,
        std=images.std,
    )
    return list(loader)
