"""Trained weights from a file into a model."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from infcop.errors import ModelError

__all__ = ["load_weights"]


@torch.no_grad()
def load_weights(model: nn.Module, path: Path) -> None:
    """Set parameters and buffers to the values of a safetensors file; its names must be theirs.

    A tensor that a model knows under several names may bear any of them in the file. Buffers that
    no ``state_dict`` holds may be missing.

    Raises:
        ModelError: The file can't be read, or belongs to another model.
    """
    values = _read(path)
    known = _tensors(model)
    saved = {name for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    there = {_place(known[name]) for name in values if name in known}
    missing = [name for name in saved & set(known) if _place(known[name]) not in there]
    unknown = [name for name in values if name not in known]
    if missing or unknown:
        parts = [("only the model", missing), ("only the file", unknown)]
        told = [f"{who} has {_listing(names)}" for who, names in parts if names]
        raise ModelError(
            f"'{path}' belongs to another model: {'; '.join(told)}. Expected the names of the "
            "model's state_dict; check the model and its options"
        )
    for name, value in values.items():
        if value.shape != known[name].shape:
            raise ModelError(
                f"'{path}' belongs to another model: expected '{name}' of shape "
                f"{tuple(known[name].shape)}, got {tuple(value.shape)}; check the model's options "
                "and the data, which decide its widths"
            )
    for name, value in values.items():
        known[name].copy_(value)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        values: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise ModelError(
            f"'{path}': there is no such file; expected weights as safetensors"
        ) from None
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"'{path}' can't be read as safetensors: {error}. Other files may run code while they "
            "are loaded and are refused; write one with safetensors.torch.save_file("
            "model.state_dict(), path)"
        ) from error
    return values


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(
        chain(
            model.named_parameters(remove_duplicate=False),
            model.named_buffers(remove_duplicate=False),
        )
    )


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr() or id(tensor), tensor.numel()


def _listing(names: list[str]) -> str:
    first = sorted(names)[0]
    return f"'{first}'" + (f" and {len(names) - 1} more names" if len(names) > 1 else "")
