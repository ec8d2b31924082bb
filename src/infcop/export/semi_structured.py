"""2:4 weights in the form that sparse tensor cores compute with."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infcop.core.names import did_you_mean
from infcop.errors import ExportError
from infcop.export.programs import cause_of
from infcop.models.unwrap import unwrapped

__all__ = ["SemiStructured", "is_two_of_four", "to_semi_structured"]

_CAPABILITY = (8, 0)
_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class SemiStructured:
    """A network with semi-structured weights.

    Attributes:
        model: A copy of the network. It can be called, not trained.
        converted: Names of the weights that are semi-structured now.
        left: The other weights that have a mask, with the reason why they are dense.
    """

    model: nn.Module
    converted: tuple[str, ...]
    left: dict[str, str]


def to_semi_structured(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    capability: Callable[[], tuple[int, int] | None] | None = None,
    convert: Callable[[Tensor], Tensor] = torch.sparse.to_sparse_semi_structured,
) -> SemiStructured:
    """Convert the weights of linear layers whose masks are 2:4, where the hardware has them.

    Sparse tensor cores skip half of the products of such a layer. Which weights stay dense, and
    why, is said: nothing is left out silently.

    Args:
        model: In float16 or bfloat16, on a GPU; it is left as it is.
        masks: What survives; at most 2 of every 4 successive entries of each row.
        capability: Returns what the GPU can do; by default what PyTorch says of that of the model.
        convert: What makes a tensor semi-structured.

    Raises:
        ExportError: The hardware has no sparse tensor cores, no weight can be converted, a mask
            belongs to no parameter, or pruned entries are not zero.

    Example:
        >>> to_semi_structured(nn.Linear(64, 64), {}, capability=lambda: (7, 5))
        Traceback (most recent call last):
        ...
        infcop.errors.ExportError: semi-structured: expected a GPU of compute capability 8.0 ...
    """
    network = unwrapped(model)
    _check_hardware((capability or _capability_of(network))())
    _check_masks(network, masks)
    made = copy.deepcopy(network).eval().requires_grad_(False)
    converted: list[str] = []
    left: dict[str, str] = {}
    for name, mask in masks.items():
        path, _, own = name.rpartition(".")
        layer = made.get_submodule(path)
        reason = _obstacle(layer, own, mask)
        if reason is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PyTorch calls the feature a prototype
                    weight = convert(layer.get_parameter(own).detach().contiguous())
                layer.register_parameter(own, nn.Parameter(weight, requires_grad=False))
                converted.append(name)
                continue
            except Exception as error:
                reason = cause_of(error)
        left[name] = reason
    if not converted:
        told = "; ".join(f"'{name}': {reason}" for name, reason in left.items())
        raise ExportError(
            "semi-structured: expected weights of linear layers with 2:4 masks, got none: "
            f"{told or 'no masks'}. Search with method.pattern=n-of-m and density 0.5"
        )
    return SemiStructured(made, tuple(converted), left)


def is_two_of_four(mask: Tensor) -> bool:
    """Return whether at most 2 of every 4 successive entries of each row survive.

    Example:
        >>> is_two_of_four(torch.tensor([[True, True, False, False]]))
        True
        >>> is_two_of_four(torch.tensor([[False, True, True, True]]))
        False
    """
    if mask.ndim != 2 or mask.shape[1] % 4:
        return False
    return bool((mask.reshape(-1, 4).sum(dim=1) <= 2).all())


def _capability_of(model: nn.Module) -> Callable[[], tuple[int, int] | None]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return lambda: torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def _check_hardware(capability: tuple[int, int] | None) -> None:
    if capability is None or capability < _CAPABILITY:
        got = "a model on another device" if capability is None else ".".join(map(str, capability))
        raise ExportError(
            "semi-structured: expected a GPU of compute capability 8.0 or more, which has sparse "
            f"tensor cores, got {got}; move the model to such a GPU with model.cuda(), or export "
            "it with --to sparse"
        )


def _check_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ExportError(
                f"semi-structured: the mask '{name}' of shape {tuple(mask.shape)} fits no "
                f"parameter; {did_you_mean(name, parameters)}"
            )
        weight = parameters[name].detach()
        if bool(weight[~mask.to(weight.device)].any()):
            raise ExportError(
                f"semi-structured: expected pruned entries of '{name}' to be zero, got others; "
                "apply the masks first, or pass the sparse network of the search"
            )


def _obstacle(layer: nn.Module, own: str, mask: Tensor) -> str | None:
    """Return why a weight stays dense."""
    if not isinstance(layer, nn.Linear) or own != "weight":
        return f"it belongs to {type(layer).__name__}; only nn.Linear computes with such weights"
    if not is_two_of_four(mask):
        return "its mask keeps more than 2 of some 4 successive entries"
    if layer.weight.dtype not in _DTYPES:
        # In float32 the hardware keeps 1 of 2.
        return f"it is {layer.weight.dtype}; convert the model with half() or bfloat16()"
    return None
