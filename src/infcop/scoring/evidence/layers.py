"""Listening to the layers that compute with the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from infcop.core.edges import Tap
from infcop.errors import PruningError
from infcop.models.kinds import channel_axis, input_channels, layer_kind
from infcop.models.nested import tensors_in
from infcop.models.prunable import Prunable, memory_key, prunable_layers

__all__ = ["Observer", "by_weight", "channels_last", "layers_of", "listened", "over_weight"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Observer = Callable[[Tap, nn.Module, Tensor, Tensor], None]
"""Given which call it is, the layer, its input and its output."""


def layers_of(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Return the layers that compute with these weights, by their own names.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> list(layers_of(model, {"0.weight": model[0].weight}))
        ['0']
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    return prunable_layers(model, Prunable(tuple(shapes), shapes, {}))


@contextmanager
def listened(layers: Mapping[str, nn.Module], observe: Observer) -> Iterator[Callable[[], None]]:
    """Show every call of the layers to an observer while the context lasts.

    Yields:
        What to call before each forward pass: the calls of a layer are counted from 0 anew.

    Raises:
        PruningError: A layer gets or gives no real tensor, or gets another number of channels than
            it has.

    Example:
        >>> import torch
        >>> layer = nn.Linear(3, 2)
        >>> with listened({"fc": layer}, lambda tap, *_: print(tap)) as begin:
        ...     begin()
        ...     _ = layer(torch.ones(4, 3))
        ('fc', 0)
    """
    calls: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, layer in layers.items():
            handle = layer.register_forward_hook(_hook(name, calls, observe), with_kwargs=True)
            stack.callback(handle.remove)
        yield calls.clear


def _hook(name: str, calls: Counter[str], observe: Observer) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = next(tensors_in((args, kwargs)), None)
        if given is None or not _fits(module, given) or not _is_real(output):
            raise PruningError(
                f"scoring: expected layer '{name}' to take and return a floating-point tensor, and "
                f"to take {input_channels(module)} channels, got {_described(given)} and "
                f"{_described(output)}; exclude its weight (method.exclude), or use another score"
            )
        number = calls[name]
        calls[name] += 1
        observe((name, number), module, given, output)

    return hook


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _fits(module: nn.Module, value: Tensor) -> bool:
    if not value.is_floating_point():
        return False
    axis = channel_axis(module, value.ndim)
    return axis >= 0 and value.shape[axis] == input_channels(module)


def _described(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def channels_last(module: nn.Module, value: Tensor) -> Tensor:
    """Return a layer's input as ``[positions, C]``, those of all examples together.

    Example:
        >>> import torch
        >>> channels_last(nn.Conv2d(3, 1, 1), torch.zeros(2, 3, 4, 5)).shape
        torch.Size([40, 3])
    """
    axis = channel_axis(module, value.ndim)
    return value.detach().movedim(axis, -1).reshape(-1, value.shape[axis])


def over_weight(module: nn.Module, pairs: Tensor) -> Tensor:
    """Return numbers of pairs of units at the places of the weights that connect them.

    Args:
        module: The layer.
        pairs: ``[G, I, O]``: of every group of a convolution (one group in a linear layer), its
            inputs and its outputs. ``O`` may be 1 where the outputs don't differ.

    Returns:
        A tensor that can be broadcast to the weight.

    Example:
        >>> import torch
        >>> over_weight(nn.Linear(2, 3), torch.tensor([[[1.0], [2.0]]]))
        tensor([[1., 2.]])
    """
    groups, inputs, outputs = pairs.shape
    if layer_kind(module) == "linear":
        # The weight of transformers' Conv1D is [inputs, outputs].
        return pairs[0].T if isinstance(module, nn.Linear) else pairs[0]
    weight = module.get_parameter("weight")
    if isinstance(module, _TRANSPOSED):
        # [inputs, outputs of a group, kernel].
        flat = pairs.reshape(groups * inputs, outputs)
    else:
        # [outputs, inputs of a group, kernel].
        if groups > 1:
            pairs = pairs.expand(-1, -1, weight.shape[0] // groups)
        flat = pairs.transpose(1, 2).reshape(-1, inputs)
    return flat.reshape(*flat.shape, *[1] * (weight.ndim - 2))


def by_weight(
    parameters: Mapping[str, Tensor], layers: Mapping[str, nn.Module], found: Iterable[Tap]
) -> dict[str, list[Tap]]:
    """Return the calls that each weight took part in.

    Raises:
        PruningError: A weight took part in none.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> by_weight({"0.weight": model[0].weight}, {"0": model[0]}, [("0", 0)])
        {'0.weight': [('0', 0)]}
    """
    names = {memory_key(parameter): name for name, parameter in parameters.items()}  # type: ignore[arg-type]
    calls: dict[str, list[Tap]] = {name: [] for name in parameters}
    for tap in found:
        calls[names[memory_key(layers[tap[0]].get_parameter("weight"))]].append(tap)
    for name, taps in calls.items():
        if not taps:
            raise PruningError(
                f"scoring: expected the layer of '{name}' to be called in the forward pass, but it "
                "was not: its weight is used without it, or not at all; exclude that weight "
                "(method.exclude), or use another score"
            )
    return calls
