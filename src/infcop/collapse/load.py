"""A smaller network as a file, and back: plain tensors, and the sizes that they need."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from infcop.collapse.compact import Compact
from infcop.core.values import Value
from infcop.errors import ModelError
from infcop.models.unwrap import unwrapped

__all__ = ["CompactFile", "load_compact", "packed"]

Size = int | tuple[int, ...]


class CompactFile(Value):
    """What the metadata of the file says, as JSON under the key ``infcop``."""

    format: Literal["compact"] = "compact"
    version: Literal[1] = 1
    before: dict[str, tuple[int, ...]]
    """The shape of each parameter and buffer of the original, by the first of its names."""
    kept: dict[str, tuple[tuple[int, ...] | None, ...]]
    """For each, the original positions of what is left along each dimension; None for all."""
    sizes: dict[str, dict[str, Size]]
    """By module, attributes that state a size, where it is another one than in the original."""
    new_biases: tuple[str, ...]
    """Biases that the original has not."""
    sha256: dict[str, str]
    """A digest of each tensor: of its type, its shape and its values."""


def packed(model: nn.Module, compact: Compact) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a smaller network, and what is to be known to load them.

    Args:
        model: The model that ``compact`` was made from, or one of its class and sizes.
        compact: The smaller network.

    Returns:
        Parameters and buffers, each once, and metadata that JSON can hold.

    Example:
        >>> from infcop.collapse import compact
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> mask = torch.tensor([[True, False, True]])
        >>> small = compact(model, {"1.weight": mask}, (torch.randn(4, 2),))
        >>> tensors, facts = packed(model, small)
        >>> tensors["1.weight"].shape, facts["sizes"]["1"]
        (torch.Size([1, 2]), {'in_features': 2})
    """
    model = unwrapped(model)
    tensors = _entries(compact.model)
    before = {name: tuple(tensor.shape) for name, tensor in _entries(model).items()}
    values = _apart(tensors)
    facts = CompactFile(
        before=before,
        kept={name: tuple(map(_plain, compact.kept[name])) for name in before},
        sizes=_changed_sizes(model, compact.model),
        new_biases=tuple(sorted(compact.new_biases)),
        sha256={name: _digest(tensor) for name, tensor in values.items()},
    )
    return values, facts.model_dump(mode="json")


def load_compact(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Return a smaller copy of a model with the sizes and values of a file.

    No code of the file is run: it holds tensors and whole numbers.

    Args:
        model: A model of the class and the original sizes; its values don't matter. It is left as
            it is.
        path: What ``infcop compact`` wrote: ``export/compact.safetensors`` of a run folder.

    Returns:
        The network, on the device of the model, with its training flags.

    Raises:
        ModelError: The file can't be read or holds something else, or belongs to another model.

    Example:
        >>> load_compact(nn.Linear(2, 1), "runs/none/export/compact.safetensors")
        Traceback (most recent call last):
        ...
        infcop.errors.ModelError: 'runs/none/export/compact.safetensors': there is no such file; ...
    """
    source = Path(path)
    model = unwrapped(model)
    facts, values = _read(source)
    _check_original(source, facts, model)
    _check_values(source, facts, model, values)
    small = copy.deepcopy(model)
    for place, sizes in facts.sizes.items():
        for name, size in sizes.items():
            _state(source, small, place, name, size)
    for name in facts.new_biases:
        _add_bias(source, small, name, values)
    _fill(source, small, values)
    return small


def _entries(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, each under the first of its names."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of which no two share memory, as files of them need."""
    found = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.detach().clone() if memory in seen else tensor.detach()
        seen.add(memory)
    return found


def _plain(positions: Tensor | None) -> tuple[int, ...] | None:
    return None if positions is None else tuple(positions.tolist())


def _changed_sizes(model: nn.Module, small: nn.Module) -> dict[str, dict[str, Size]]:
    changed = {}
    for place, module in model.named_modules():
        new = dict(_sizes(small.get_submodule(place)))
        found = {name: new[name] for name, old in _sizes(module) if new.get(name, old) != old}
        if found:
            changed[place] = found
    return changed


def _sizes(module: nn.Module) -> Iterator[tuple[str, Size]]:
    for name, value in vars(module).items():
        if type(value) is int:
            yield name, value
        elif isinstance(value, (list, tuple)) and value and all(type(x) is int for x in value):
            yield name, tuple(value)


def _read(path: Path) -> tuple[CompactFile, dict[str, Tensor]]:
    try:
        if not path.is_file() and path.exists():
            raise OSError("it is no regular file")  # opening a pipe would wait for ever
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("infcop", "null"))
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(
            f"'{path}': there is no such file; expected one that 'infcop compact' wrote"
        ) from None
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(
            f"'{path}' can't be read as safetensors: {error}; write it again with 'infcop compact'"
        ) from error
    try:
        return CompactFile.model_validate_json(json.dumps(facts)), values
    except ValueError as error:
        raise ModelError(
            f"'{path}': expected a compact network of this version of infcop, got another file "
            f"({str(error).splitlines()[0]}); write it with 'infcop compact'"
        ) from error


def _check_original(path: Path, facts: CompactFile, model: nn.Module) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in _entries(model).items()}
    different = [
        name for name in {**facts.before, **own} if facts.before.get(name) != own.get(name)
    ]
    if different:
        name = different[0]
        raise ModelError(
            f"'{path}' was made from another model: expected '{name}' of "
            f"{_shape(facts.before.get(name))}, got {_shape(own.get(name))}; pass a model of the "
            "class and the sizes that the search was given"
        )


def _check_values(
    path: Path, facts: CompactFile, model: nn.Module, values: Mapping[str, Tensor]
) -> None:
    """Make sure that each tensor is the one that was written, before any is used."""
    own = _entries(model)
    for name, value in values.items():
        if facts.sha256.get(name) != _digest(value):
            raise _damaged(path, f"'{name}' has not the check sum that it states")
        if name not in own:
            continue  # a new bias, or what the model has not
        expected, kept = facts.before[name], facts.kept.get(name)
        if kept is None or len(kept) != len(expected):
            raise _damaged(path, f"it does not say what is left of '{name}'")
        pairs = list(zip(kept, expected, strict=True))
        if any(one is not None and not _within(one, size) for one, size in pairs):
            raise _damaged(path, f"it states positions that '{name}' has not")
        left = tuple(size if one is None else len(one) for one, size in pairs)
        if tuple(value.shape) != left:
            raise _damaged(
                path,
                f"it states that {_shape(left)} is left of '{name}', got {_shape(value.shape)}",
            )
        if _kind(value) != _kind(own[name]):
            raise ModelError(
                f"'{path}' was made from another model: expected '{name}' of type {value.dtype}, "
                f"got {own[name].dtype}; pass a model of the class that the search was given"
            )


def _within(positions: tuple[int, ...], size: int) -> bool:
    """Whether positions are distinct, in order, and of a dimension of a size."""
    return positions == tuple(sorted(set(positions))) and all(0 <= x < size for x in positions)


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    """Return what no conversion may change; the precision may be another."""
    return tensor.is_floating_point(), tensor.is_complex()


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}:".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"'{path}' is damaged: {what}; write it again with 'infcop compact'")


def _shape(shape: Sequence[int] | None) -> str:
    return "no shape, since it has none of that name" if shape is None else f"shape {tuple(shape)}"


def _state(path: Path, model: nn.Module, place: str, name: str, size: Size) -> None:
    """Set an attribute that states a size; nothing else can be set in this way."""
    module = dict(model.named_modules()).get(place)
    known = dict(_sizes(module)) if module is not None else {}
    if module is None or name not in known or type(known[name]) is not type(size):
        raise ModelError(
            f"'{path}' was made from another model: expected a size '{name}' in '{place}', got a "
            "model without; pass a model of the class that the search was given"
        )
    value = vars(module)[name]
    setattr(module, name, type(value)(size))


def _add_bias(path: Path, model: nn.Module, name: str, values: Mapping[str, Tensor]) -> None:
    place, _, own = name.rpartition(".")
    layer = dict(model.named_modules()).get(place)
    if layer is None or own != "bias" or getattr(layer, "bias", layer) is not None:
        raise ModelError(
            f"'{path}' was made from another model: expected a layer '{place}' without a bias, got "
            "a model without such a layer; pass a model of the class that the search was given"
        )
    if name not in values:
        raise _damaged(path, f"it has no '{name}'")
    weight = next(iter(layer.parameters()))
    empty = torch.empty(values[name].shape, dtype=weight.dtype, device=weight.device)
    layer.register_parameter("bias", nn.Parameter(empty, requires_grad=False))


@torch.no_grad()
def _fill(path: Path, model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put the values in place of parameters and buffers; what is shared stays shared."""
    own = _entries(model)
    if different := sorted(set(own) ^ set(values)):
        where = "model" if different[0] in own else "file"
        raise _damaged(path, f"'{different[0]}' is in the {where} alone")
    new: dict[int, Tensor] = {}
    for name, tensor in own.items():
        value = values[name]
        if value.shape == tensor.shape:
            # In its place, since modules may hold on to the tensor elsewhere.
            tensor.copy_(value)
            new[id(tensor)] = tensor
            continue
        moved = value.to(device=tensor.device, dtype=tensor.dtype)
        learned = isinstance(tensor, nn.Parameter)
        new[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if learned else moved
    for module in model.modules():
        for entries in (module._parameters, module._buffers):
            for name, entry in entries.items():
                if entry is not None:
                    entries[name] = new[id(entry)]  # type: ignore[assignment]
