"""What of a model may be pruned, and why not the rest."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from infcop.core.names import did_you_mean
from infcop.errors import ModelError
from infcop.models.exclusion import exclusion_reason, unfit
from infcop.models.kinds import layer_kind
from infcop.models.unwrap import unwrapped

__all__ = ["Prunable", "find_prunable", "get_parameters", "memory_key", "prunable_layers"]


@dataclass(frozen=True)
class Prunable:
    """The prunable parameters of a model, and the reason for each one that is not.

    Attributes:
        names: Parameter names, for instance ``"conv1.weight"``, in the order in which the model
            defines its modules.
        shapes: The shape of each.
        excluded: Every other parameter name with the reason.
    """

    names: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    excluded: dict[str, str]


def find_prunable(model: nn.Module) -> Prunable:
    """Find the weights that may be pruned.

    Prunable is the ``weight`` of a linear layer, a convolution or a transposed convolution
    (subclasses and the ``Conv1D`` of transformers included) if it is a plain trainable parameter
    in float32 or float64. A tensor known under several names is pruned once: under the first name
    that belongs to such a layer. So where a linear layer shares its weight with an embedding, the
    mask bears the name of the linear layer and acts on both. Of a compiled or distributed model
    the names are those of the model inside.

    Args:
        model: Any model, with its parameters initialised.

    Raises:
        ModelError: Nothing is prunable, or the model is in half precision, not initialised yet,
            or pruned by ``torch.nn.utils.prune``.

    Example:
        >>> found = find_prunable(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)))
        >>> found.names, found.shapes
        (('0.weight',), {'0.weight': (3, 4)})
        >>> found.excluded
        {'0.bias': 'bias', '1.weight': 'normalisation', '1.bias': 'normalisation'}
    """
    model = unwrapped(model)
    _check(model)
    first_names: dict[Hashable, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, _, weight in _candidates(model):
        if memory_key(weight) not in first_names:
            name = f"{layer}.weight" if layer else "weight"
            first_names[memory_key(weight)] = name
            shapes[name] = tuple(weight.shape)
    excluded = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name not in shapes:
            first = first_names.get(memory_key(parameter))
            excluded[name] = (
                f"tied: the same tensor as '{first}', which is pruned"
                if first is not None
                else exclusion_reason(model, name, parameter)
            )
    if not shapes:
        raise ModelError(
            f"find_prunable: expected at least one prunable weight, {_found(excluded)}"
        )
    return Prunable(tuple(shapes), shapes, excluded)


def get_parameters(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Return the parameters of these names, also where a name is the second one of its tensor.

    Raises:
        ModelError: The model has no parameter of such a name.

    Example:
        >>> list(get_parameters(nn.Linear(2, 2), ["weight"]))
        ['weight']
    """
    known = dict(unwrapped(model).named_parameters(remove_duplicate=False))
    names = tuple(names)
    for name in names:
        if name not in known:
            raise ModelError(
                f"get_parameters: the model has no parameter '{name}'; {did_you_mean(name, known)}"
            )
    return {name: known[name] for name in names}


def prunable_layers(model: nn.Module, prunable: Prunable) -> dict[str, nn.Module]:
    """Return the linear and convolution modules that compute with a pruned weight, by name.

    Two modules that share one weight are two layers here, though the weight is pruned once; one
    module registered under two names is one layer, under its first name.

    Raises:
        ModelError: ``prunable`` belongs to another model.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> list(prunable_layers(model, find_prunable(model)))
        ['0', '2']
    """
    pruned = {memory_key(parameter) for parameter in get_parameters(model, prunable.names).values()}
    return {
        layer: module
        for layer, module, weight in _candidates(unwrapped(model))
        if memory_key(weight) in pruned
    }


def _candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    for layer, module in model.named_modules():
        # Scripted modules have no kind, and no dictionary of parameters either.
        weight = module._parameters.get("weight") if layer_kind(module) else None
        if weight is not None and unfit(weight) is None:
            yield layer, module, weight


def memory_key(parameter: nn.Parameter) -> Hashable:
    """Return equal keys for parameters that are the same tensor or occupy the same memory."""
    if is_lazy(parameter) or parameter.layout != torch.strided or parameter.data_ptr() == 0:
        return id(parameter)
    return parameter.device, parameter.data_ptr(), parameter.numel()


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(f"find_prunable: expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "find_prunable: expected a model of Python modules, got a scripted one, whose layers "
            "can't be told apart; pass the model that it was made from"
        )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ModelError(
                f"find_prunable: '{name}' is not initialised yet; run one batch through the "
                "model first"
            )
        dtype = str(parameter.dtype).removeprefix("torch.")
        trained = parameter.requires_grad and parameter.is_floating_point()
        if trained and parameter.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"find_prunable: expected float32 or float64, got {dtype} in "
                f"'{name}'; convert with model.float() and use precision=\"bf16-mixed\""
            )
    for name, module in model.named_modules():
        for own_name, _ in module.named_parameters(recurse=False):
            tensor = own_name.removesuffix("_orig")
            if tensor != own_name and f"{tensor}_mask" in module._buffers:
                raise ModelError(
                    f"find_prunable: '{tensor}' of module '{name}' is pruned by "
                    "torch.nn.utils.prune already; make that permanent with "
                    f"torch.nn.utils.prune.remove(module, '{tensor}')"
                )


def _found(excluded: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in excluded.items():
        by_reason.setdefault(reason, []).append(name)
    found = [
        f"{len(names)} x {reason} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for reason, names in by_reason.items()
    ]
    return (
        f"found {'; '.join(found) or 'no parameter at all'}. Prunable are the weights of linear "
        "layers and convolutions that are plain parameters with requires_grad=True"
    )
