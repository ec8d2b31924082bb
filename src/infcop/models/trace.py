"""One forward pass, with the autograd nodes at the inputs and outputs of chosen layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from infcop.core.edges import Tap
from infcop.errors import ModelError
from infcop.models.calling import Inputs, call
from infcop.models.nested import described, mapped, tensors_in
from infcop.models.preserved import preserved_model
from infcop.models.undisturbed import set_mode
from infcop.models.unwrap import uncompiled

__all__ = ["Call", "Source", "record_calls"]


@dataclass(frozen=True)
class Source:
    """Where an input tensor of a call came from: an output of an autograd node."""

    node: Node
    index: int
    shape: tuple[int, ...]


@dataclass
class Call:
    """One call of a layer.

    The nodes are kept alive here, since their identity means something only as long as they live.

    Attributes:
        layer: Name of the module.
        sources: Where its input tensors came from; tensors without history have no source.
        outputs: The nodes that stand for what it returned.
        observed: What the observer made of its output.
        finished: Whether the layer returned.
    """

    layer: str
    sources: list[Source]
    outputs: list[Node] = field(default_factory=list)
    observed: Any = None
    finished: bool = False


Observer = Callable[[nn.Module, Any], Any]


def record_calls(
    model: nn.Module,
    inputs: Inputs,
    layers: Mapping[str, nn.Module],
    observe: Observer | None = None,
) -> dict[Tap, Call]:
    """Run the model once in evaluation mode and return the calls of the layers in their order.

    The model, its gradients, the inputs and the random generators stay as they were. Calls that
    raised, and whose exception the model caught, are left out.

    Args:
        model: Any model.
        inputs: Its positional arguments, or a mapping of its keyword arguments, on its device.
        layers: The modules to watch.
        observe: Given a watched module and its output, returns what to keep of it.

    Raises:
        ModelError: The model rejects the inputs.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> list(record_calls(model, (torch.ones(1, 3),), {"0": model[0]}))
        [('0', 0)]
    """
    calls: list[Call] = []
    with ExitStack() as stack:
        stack.enter_context(preserved_model(model))
        stack.enter_context(uncompiled())
        # Also within a caller's no_grad or inference_mode there must be a graph to walk.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        set_mode(model, train=False)
        for name, module in layers.items():
            _watch(name, module, calls, observe, stack)
        # The keyword arguments may come in any mapping, of which the model gets a dictionary.
        given = dict(inputs) if isinstance(inputs, Mapping) else inputs
        arguments = mapped(given, _copy)
        try:
            call(model, arguments)
        except ModelError:
            raise
        except Exception as error:  # whatever the user's model raises
            raise ModelError(
                f"trace_graph: the model rejected the inputs ({described(given)}): "
                f"{type(error).__name__}: {error}; pass what it is called with for one real batch, "
                "as a tuple or as a mapping of keyword arguments"
            ) from error
    return _numbered(calls)


def _watch(
    name: str, module: nn.Module, calls: list[Call], observe: Observer | None, stack: ExitStack
) -> None:
    open_calls: list[Call] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sources = [
            Source(tensor.grad_fn, tensor.output_nr, tuple(tensor.shape))
            for tensor in tensors_in((args, kwargs))
            if tensor.grad_fn is not None
        ]
        calls.append(Call(name, sources))
        open_calls.append(calls[-1])

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # Copies, since an in-place activation on an output that is a view (a linear layer's on
        # three-dimensional input is one) would take the view's own node out of the graph.
        copies = mapped(output, torch.clone)
        made = open_calls.pop()
        made.outputs.extend(t.grad_fn for t in tensors_in(copies) if t.grad_fn is not None)
        made.observed = observe(module, output) if observe is not None else None
        made.finished = True
        return copies

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(after).remove)


def _copy(tensor: Tensor) -> Tensor:
    # The model may write into its inputs, and they may come from inference mode.
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _numbered(calls: list[Call]) -> dict[Tap, Call]:
    numbers: Counter[str] = Counter()
    numbered = {}
    for one in calls:
        if one.finished:
            numbered[one.layer, numbers[one.layer]] = one
            numbers[one.layer] += 1
    return numbered
