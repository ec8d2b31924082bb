"""Kinds of prunable layers, and where the channels are in their inputs and outputs."""

from __future__ import annotations

from typing import Literal

from torch import nn

__all__ = ["LayerKind", "channel_axis", "input_channels", "layer_kind"]

LayerKind = Literal["linear", "convolution"]

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

# By name, so that the package need not be installed. Despite its name this is a linear layer; its
# weight is [inputs, outputs].
_LINEAR_ELSEWHERE = {("transformers.pytorch_utils", "Conv1D")}


def layer_kind(module: nn.Module) -> LayerKind | None:
    """Return what kind of prunable layer a module is, subclasses included.

    Example:
        >>> layer_kind(nn.Conv2d(1, 1, 1)), layer_kind(nn.Linear(1, 1)), layer_kind(nn.ReLU())
        ('convolution', 'linear', None)
    """
    if isinstance(module, _CONVOLUTIONS):
        return "convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    ancestors = {(cls.__module__, cls.__name__) for cls in type(module).__mro__}
    return "linear" if ancestors & _LINEAR_ELSEWHERE else None


def channel_axis(module: nn.Module, ndim: int) -> int:
    """Return the axis of the channels in an input or output of a prunable layer.

    Channels come last in a linear layer, and before the positions of the kernel in a convolution.

    Args:
        module: A layer that has a kind.
        ndim: Axes of the tensor, which a convolution may be given without one for the examples.

    Example:
        >>> channel_axis(nn.Linear(3, 3), 3), channel_axis(nn.Conv2d(1, 1, 1), 4)
        (2, 1)
    """
    if isinstance(module, _CONVOLUTIONS):
        return ndim - len(module.kernel_size) - 1
    return ndim - 1


def input_channels(module: nn.Module) -> int:
    """Return how many channels a prunable layer takes.

    Example:
        >>> input_channels(nn.Conv2d(6, 4, 1, groups=2)), input_channels(nn.Linear(5, 1))
        (6, 5)
    """
    if isinstance(module, _CONVOLUTIONS):
        return module.in_channels
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.get_parameter("weight").shape[0]
