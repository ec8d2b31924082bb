"""Listening to the layers that compute with the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from infcop.core.edges import Tap
from infcop.errors import PruningError
from infcop.models.calling import call
from infcop.models.kinds import channel_axis, input_channels, layer_kind
from infcop.models.nested import tensors_in
from infcop.models.prunable import Prunable, memory_key, prunable_layers
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.measuring import measuring

__all__ = ["Observer", "by_weight", "channels_last", "layers_of", "observed", "over_weight"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Observer = Callable[[Tap, nn.Module, Tensor, Tensor, int], None]
"""Given which call it is, the layer, its input, its output and the size of the batch."""


def layers_of(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Return the layers that compute with these weights, by their own names.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> list(layers_of(model, {"0.weight": model[0].weight}))
        ['0']
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    return prunable_layers(model, Prunable(tuple(shapes), shapes, {}))


def observed(
    model: nn.Module, layers: Mapping[str, nn.Module], examples: Examples, observe: Observer
) -> int:
    """Show every call of the layers to an observer, in evaluation mode.

    Args:
        model: The model, which is run once for every batch.
        layers: Those whose calls are shown, by name. Their calls are counted from 0 in each pass.
        examples: What the model is called with.
        observe: Looks at one call.

    Returns:
        The number of examples.

    Raises:
        PruningError: There is no example, or a layer gets or gives no real tensor, or gets another
            number of channels than it has.

    Example:
        >>> import torch
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(3, 2)
        >>> batch = (torch.ones(4, 3), torch.zeros(4))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> observed(model, {"fc": model}, examples, lambda tap, *_: print(tap))
        ('fc', 0)
        4
    """
    calls: Counter[str] = Counter()
    count = size = 0

    def seen(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        number = calls[name]
        calls[name] += 1
        observe((name, number), module, given, output, size)

    with measuring(model, train=False, gradients=False), ExitStack() as stack:
        for name, layer in layers.items():
            handle = layer.register_forward_hook(_hook(name, seen), with_kwargs=True)
            stack.callback(handle.remove)
        for size, batch in examples:
            calls.clear()
            call(model, examples.task.inputs(batch))
            count += size
    return count


def _hook(name: str, seen: Callable[[str, nn.Module, Tensor, Tensor], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = next(tensors_in((args, kwargs)), None)
        if given is None or not _fits(module, given) or not _is_real(output):
            raise PruningError(
                f"scoring: expected layer '{name}' to take and return a floating-point tensor, and "
                f"to take {input_channels(module)} channels, got {_described(given)} and "
                f"{_described(output)}; exclude its weight (method.exclude), or use another score"
            )
        seen(name, module, given, output)

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
                "was not: its weight is used without it, as nn.MultiheadAttention does with "
                "that of its out_proj, or not at all; exclude that weight (method.exclude), or use "
                "another score"
            )
    return calls
