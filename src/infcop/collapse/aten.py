"""Calling operations of the graph with values in place of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx

from infcop.collapse.values import Value

__all__ = [
    "arguments_by_name",
    "change_values",
    "invoke",
    "name_of",
    "place_of",
    "tensors_in",
    "values_in",
    "wide",
]


def wide(result: Any) -> Any:
    """Return a result with its floating-point tensors in float64.

    Example:
        >>> import torch
        >>> wide((torch.ones(1), torch.tensor([1])))
        (tensor([1.], dtype=torch.float64), tensor([1]))
    """
    if isinstance(result, Tensor):
        return result.double() if result.is_floating_point() else result
    if isinstance(result, (list, tuple)):
        return tuple(wide(one) for one in result)
    return result


def change_values(argument: Any, change: Callable[[Value], Any]) -> Any:
    """Return an argument with something else in place of each value inside of it."""
    if isinstance(argument, Value):
        return change(argument)
    if isinstance(argument, (list, tuple)):
        return type(argument)(change_values(one, change) for one in argument)
    if isinstance(argument, dict):
        return {key: change_values(one, change) for key, one in argument.items()}
    return argument


def values_in(argument: Any) -> list[Value]:
    """Return the values inside of an argument, in order."""
    found: list[Value] = []
    change_values(argument, found.append)
    return found


def tensors_in(argument: Any) -> Any:
    """Return an argument with tensors, in float64, in place of values."""
    return change_values(argument, lambda value: wide(value.tensor))


def name_of(target: Any) -> str:
    """Return the name of an operation in ATen, without its overload.

    Example:
        >>> import torch
        >>> name_of(torch.ops.aten.add_.Tensor)
        'add_'
    """
    schema = getattr(target, "_schema", None)
    if schema is None:
        return str(getattr(target, "__name__", target))
    return str(schema.name).removeprefix("aten::")


def place_of(node: fx.Node) -> str:
    """Return the name of the module that an operation belongs to; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    places = [str(path) for path, _ in stack.values()]
    # A module that is called again bears a number.
    return places[-1].partition("@")[0] if places else ""


def arguments_by_name(target: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation by name, with defaults.

    Example:
        >>> import torch
        >>> arguments_by_name(torch.ops.aten.flatten.using_ints, ("x", 1), {})
        {'self': 'x', 'start_dim': 1, 'end_dim': -1}
    """
    schema = getattr(target, "_schema", None)
    if schema is None:
        return {**{str(at): one for at, one in enumerate(args)}, **kwargs}
    named = {}
    for at, argument in enumerate(schema.arguments):
        if at < len(args):
            named[argument.name] = args[at]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def invoke(target: Any, named: Mapping[str, Any]) -> Any:
    """Call an operation with arguments by name."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return target(*named.values())
    positional = [x.name for x in schema.arguments if not x.kwarg_only]
    by_keyword = {key: value for key, value in named.items() if key not in positional}
    return target(*(named[name] for name in positional if name in named), **by_keyword)
