"""The tensors of a network as a file holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infcop.errors import ExportError
from infcop.export.dtypes import DTYPE_NAMES

__all__ = ["Plain", "plain"]


@dataclass(frozen=True, eq=False)
class Plain:
    """Tensors on the CPU, contiguous, none of which shares memory with another.

    Attributes:
        tensors: By the first name of each.
        tied: The other names of tensors that have several, with the first one.
    """

    tensors: dict[str, Tensor]
    tied: dict[str, str]


def plain(tensors: Mapping[str, Any], what: str) -> Plain:
    """Return copies of tensors, those that are one tensor under several names once.

    Two names are one tensor if they see the same entries of the same memory in the same order. An
    overlap of another kind becomes two tensors. Contiguous tensors on the CPU that are alone on
    their memory aren't copied.

    Args:
        tensors: For instance a ``state_dict``.
        what: What messages call it.

    Raises:
        ExportError: There is no mapping from names, or an entry is no tensor, has no values, or
            is of a layout or type that no safetensors file holds.

    Example:
        >>> weight = torch.ones(2, 2)
        >>> found = plain({"a": weight, "b": weight.T, "c": weight}, "example")
        >>> list(found.tensors), found.tied
        (['a', 'b'], {'c': 'a'})
    """
    if not isinstance(tensors, Mapping):
        raise ExportError(
            f"{what}: expected a mapping from names to tensors, as of state_dict(), got "
            f"{type(tensors).__name__}; give {{name: tensor}}"
        )
    first: dict[object, str] = {}
    tied: dict[str, str] = {}
    found: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name, tensor in tensors.items():
        _check(name, tensor, what)
        owner = first.setdefault(_view(tensor, name), name)
        if owner != name:
            tied[name] = owner
            continue
        own = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        memory = own.untyped_storage()
        whole = memory.nbytes() == own.numel() * own.element_size()
        if not whole or memory.data_ptr() in memories:
            own = own.clone(memory_format=torch.contiguous_format)
        memories.add(own.untyped_storage().data_ptr())
        found[name] = own
    return Plain(found, tied)


def _view(tensor: Tensor, name: str) -> object:
    """Return what is equal for two names of one tensor only."""
    if tensor.numel() == 0:
        return name  # there is no memory to share
    storage = tensor.untyped_storage()
    place = (str(tensor.device), storage.data_ptr(), tensor.storage_offset())
    form = (tensor.shape, tensor.stride(), tensor.dtype)
    return (*place, *form, tensor.is_conj(), tensor.is_neg())


def _check(name: str, tensor: Any, what: str) -> None:
    # Lone surrogates are no characters, and no file can hold them.
    if not isinstance(name, str) or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ExportError(
            f"{what}: expected names of tensors as text that UTF-8 can hold, got {name!r:.80}; "
            "give it another name"
        )
    if not isinstance(tensor, Tensor):
        raise ExportError(
            f"{what}: expected tensors, got {type(tensor).__name__} in '{name}'; leave out what "
            "get_extra_state adds, a file of tensors can't hold it"
        )
    if tensor.is_meta:
        raise ExportError(
            f"{what}: expected values, but '{name}' is on the meta device and has none; load the "
            "weights first"
        )
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else str(tensor.layout)
        raise ExportError(
            f"{what}: expected plain tensors, got {kind} in '{name}'; convert it, for instance "
            "with to_dense() or dequantize()"
        )
    if tensor.dtype not in DTYPE_NAMES:
        raise ExportError(
            f"{what}: expected a type that safetensors knows, got {tensor.dtype} in '{name}'; "
            f"convert it to one of {', '.join(str(dtype) for dtype in DTYPE_NAMES)}"
        )
