"""One forward pass, with the autograd nodes at the inputs and outputs of chosen layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from infcop.errors import ModelError
from infcop.models.preserved import preserved_model

__all__ = ["Call", "record_calls"]


@dataclass
class Call:
    """One call of a layer.

    The nodes are kept alive here, since their identity means something only as long as they live.

    Attributes:
        layer: Name of the module.
        inputs: Where its input tensors came from; tensors without history have no node.
        outputs: The nodes that stand for what it returned.
    """

    layer: str
    inputs: list[Node]
    outputs: list[Node] = field(default_factory=list)


def record_calls(
    model: nn.Module, inputs: tuple[Any, ...], layers: Mapping[str, nn.Module]
) -> list[Call]:
    """Run the model once in evaluation mode and return the calls of the layers in their order.

    The model, its gradients, the inputs and the random generators stay as they were.

    Args:
        model: Any model.
        inputs: Its positional arguments, on its device.
        layers: The modules to watch.

    Raises:
        ModelError: The model rejects the inputs.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> [call.layer for call in record_calls(model, (torch.ones(1, 3),), {"0": model[0]})]
        ['0']
    """
    calls: list[Call] = []
    with ExitStack() as stack:
        stack.enter_context(preserved_model(model))
        # Also within a caller's no_grad or inference_mode there must be a graph to walk.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for module in model.modules():
            # Not model.eval(): a model may override it, for instance to merge weights.
            module.training = False
        for name, module in layers.items():
            _watch(name, module, calls, stack)
        arguments = _mapped(inputs, _copy)
        try:
            model(*arguments)
        except Exception as error:  # whatever the user's model raises
            raise ModelError(
                f"trace_graph: the model rejected the inputs ({_described(inputs)}): "
                f"{type(error).__name__}: {error}; pass the positional arguments of one real batch"
            ) from error
    return calls


def _watch(name: str, module: nn.Module, calls: list[Call], stack: ExitStack) -> None:
    open_calls: list[Call] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = Call(name, _nodes((args, kwargs)))
        calls.append(call)
        open_calls.append(call)

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # Copies, since an in-place activation on an output that is a view (a linear layer's on
        # three-dimensional input is one) would take the view's own node out of the graph.
        copies = _mapped(output, torch.clone)
        open_calls.pop().outputs.extend(_nodes(copies))
        return copies

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(after).remove)


def _copy(tensor: Tensor) -> Tensor:
    # The model may write into its inputs, and they may come from inference mode.
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _nodes(value: Any) -> list[Node]:
    return [tensor.grad_fn for tensor in _tensors(value) if tensor.grad_fn is not None]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return the same nesting of tuples, lists and dictionaries with other tensors in it."""
    if isinstance(value, Tensor):
        return function(value)
    if type(value) is dict:
        return {key: _mapped(item, function) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_mapped(item, function) for item in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(item, function) for item in value))
    return value


def _described(inputs: tuple[Any, ...]) -> str:
    return ", ".join(
        f"{str(item.dtype).removeprefix('torch.')} {list(item.shape)}"
        if isinstance(item, Tensor)
        else type(item).__name__
        for item in inputs
    )
