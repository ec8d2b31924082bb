"""Residual networks for small images: ResNet-20, ResNet-56 and ResNet-18.

He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional

from infcop.models.zoo.parts import check_facts, kaiming_normal, scaled

__all__ = ["ResNet", "resnet_18", "resnet_20", "resnet_56"]


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut; a 1x1 projection where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, maps: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps)))))
        return functional.relu(residual + self.shortcut(maps))


class ResNet(nn.Module):
    """A 3x3 stem, stages of two-convolution blocks, global average pooling, a linear layer.

    Shortcuts are identities, or 1x1 projections with batch normalisation where the shape changes
    (option B). Every stage but the first halves the resolution. Input ``[B, in_channels, H, W]``,
    output ``[B, num_classes]``.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        blocks: Number of blocks of each stage.
        channels: Width of each stage.
        stem_stride: Stride of the first convolution; 2 quarters the work.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        blocks: Sequence[int],
        channels: Sequence[int],
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, channels[0], 3, stride=stem_stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels[0])
        before, stages = channels[0], []
        for index, (count, width) in enumerate(zip(blocks, channels, strict=True)):
            stage = [_Block(before, width, stride=1 if index == 0 else 2)]
            stage += [_Block(width, width, stride=1) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
            before = width
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(before, num_classes)
        kaiming_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        maps = self.stages(functional.relu(self.bn1(self.conv1(images))))
        return self.fc(maps.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def resnet_20(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    width: float = 1.0,
    stem_stride: int = 1,
) -> ResNet:
    """Build ResNet-20 for CIFAR (section 4.2, n = 3): 20 layers and 2 projections.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images; any size works.
        num_classes: Number of classes.
        width: Multiplies the widths 16, 32 and 64.
        stem_stride: Stride of the first convolution; with 2 all maps have a quarter of the size.

    Raises:
        ModelError: An argument is not a positive integer.
        ConfigError: ``width`` is not a positive number.

    Example:
        >>> model = resnet_20(in_channels=3, image_size=32, num_classes=10)
        >>> sum(parameter.numel() for parameter in model.parameters())
        272474
    """
    facts = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    return _resnet("resnet-20", (3, 3, 3), (16, 32, 64), facts, width, stem_stride)


def resnet_56(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    width: float = 1.0,
    stem_stride: int = 1,
) -> ResNet:
    """Build ResNet-56 for CIFAR (section 4.2, n = 9): 56 layers and 2 projections.

    Arguments and errors are those of ``resnet_20``.

    Example:
        >>> model = resnet_56(in_channels=3, image_size=32, num_classes=10, width=0.25)
        >>> len(model.stages[0])
        9
    """
    facts = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    return _resnet("resnet-56", (9, 9, 9), (16, 32, 64), facts, width, stem_stride)


def resnet_18(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    width: float = 1.0,
    stem_stride: int = 1,
) -> ResNet:
    """Build ResNet-18 (table 1) with a 3x3 stem without pooling: 18 layers and 3 projections.

    Arguments and errors are those of ``resnet_20``; ``width`` multiplies 64, 128, 256 and 512.

    Example:
        >>> model = resnet_18(in_channels=3, image_size=32, num_classes=10, width=0.125)
        >>> model.fc
        Linear(in_features=64, out_features=10, bias=True)
    """
    facts = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    return _resnet("resnet-18", (2, 2, 2, 2), (64, 128, 256, 512), facts, width, stem_stride)


def _resnet(
    name: str,
    blocks: Sequence[int],
    published: Sequence[int],
    facts: Mapping[str, int],
    width: float,
    stem_stride: int,
) -> ResNet:
    """Check the arguments of a factory and build its network."""
    check_facts(name, **facts, stem_stride=stem_stride)
    channels = [scaled(units, width) for units in published]
    return ResNet(facts["in_channels"], facts["num_classes"], blocks, channels, stem_stride)
