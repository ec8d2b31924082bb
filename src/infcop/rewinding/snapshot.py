"""Copies of everything a model remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.errors import ModelError, PruningError

__all__ = ["Snapshot"]


class Snapshot(Mapping[str, Tensor]):
    """The values of all parameters and buffers of a model, by name.

    A tensor that occurs under several names (tied weights) is kept once, under the first. Buffers
    left out of the state dict are kept too. State that a module keeps outside of tensors is not
    seen. No two entries share memory, so the mapping can be written as safetensors; what is read
    back makes an equal snapshot.

    Args:
        tensors: Values by name, used as they are.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> start = Snapshot.take(layer)
        >>> list(start)
        ['weight', 'bias']
        >>> _ = nn.init.zeros_(layer.weight)
        >>> start.restore(layer, Masks({"weight": torch.tensor([[True, False]])}))
        >>> bool(layer.weight[0, 0] == start["weight"][0, 0]), layer.weight[0, 1].item()
        (True, 0.0)
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    @classmethod
    def take(cls, model: nn.Module, *, copy: bool = True) -> Snapshot:
        """Return the present values of a model.

        Args:
            model: Any model, with its parameters initialised.
            copy: Copy to the CPU, so that later training leaves the snapshot untouched. Without,
                it holds the model's own tensors: for writing them to a file at once.
        """
        tensors = {}
        seen: set[int] = set()
        for name, tensor in _tensors_of(model).items():
            memory = tensor.untyped_storage().data_ptr()
            tensors[name] = _copied(tensor) if copy or memory in seen else tensor.detach()
            seen.add(memory)
        return cls(tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @torch.no_grad()
    def restore(
        self,
        model: nn.Module,
        masks: Masks | None = None,
        *,
        only: Iterable[str] | None = None,
    ) -> None:
        """Set every parameter and buffer to its value here, pruned entries to exactly zero.

        Values are written in place: parameters stay the same objects, so optimisers and shared
        weights hold on to them. Gradients, the optimiser's state and the training mode are left
        alone. Restoring twice is the same as once.

        Args:
            model: The model the snapshot was taken of, or one built alike, on any device.
            masks: What survives; without, everything does. A tied weight may bear any of its
                names.
            only: The tensors to set, under any of their names; by default all. The others keep
                their present values, but for pruned entries.

        Raises:
            ModelError: The names or shapes of the model's tensors differ from those here, or
                ``only`` names one that there is not.
            PruningError: A mask names no parameter of the model, or has another shape.
        """
        tensors = _tensors_of(model)
        pruned = _masked_parameters(model, masks or Masks({}))
        self._check_alike(tensors)
        chosen = tensors if only is None else _chosen(model, tensors, only)
        for name, tensor in chosen.items():
            values = self[name].to(tensor)
            # An expanded buffer can't be written to, and need not be, since nothing else could.
            if not torch.equal(tensor, values):
                tensor.copy_(values)
        # Only now: two parameters may be separate objects on the same memory.
        for parameter, mask in pruned:
            parameter.masked_fill_(~mask.to(parameter.device), 0)

    def _check_alike(self, tensors: Mapping[str, Tensor]) -> None:
        if different := sorted(set(tensors) ^ set(self)):
            where = "model" if different[0] in tensors else "snapshot"
            raise ModelError(
                f"Snapshot.restore: expected snapshot and model to hold the same tensors, but only "
                f"the {where} has '{different[0]}' ({len(different)} such names); restore into the "
                "model that it was taken of, with no layer or buffer added or removed since"
            )
        for name, tensor in tensors.items():
            if tensor.shape != self[name].shape:
                raise ModelError(
                    f"Snapshot.restore: expected '{name}' to have shape {tuple(self[name].shape)} "
                    f"as in the snapshot, got {tuple(tensor.shape)}; restore into the model that "
                    "it was taken of"
                )


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each tensor once."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def _chosen(
    model: nn.Module, tensors: Mapping[str, Tensor], names: Iterable[str]
) -> dict[str, Tensor]:
    """Return the tensors of these names, under the first name of each."""
    known: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    known |= dict(model.named_buffers(remove_duplicate=False))
    meant = set()
    for name in names:
        if name not in known:
            raise ModelError(
                f"Snapshot.restore: expected 'only' to name tensors of the model, got '{name}'; "
                f"{did_you_mean(name, known)}"
            )
        meant.add(id(known[name]))
    return {name: tensor for name, tensor in tensors.items() if id(tensor) in meant}


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _masked_parameters(model: nn.Module, masks: Masks) -> list[tuple[Tensor, Tensor]]:
    """Pair every mask with its parameter, under whichever of its names."""
    known = dict(model.named_parameters(remove_duplicate=False))
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, mask in masks.items():
        if name not in known:
            raise PruningError(
                f"Snapshot.restore: expected a parameter '{name}' for the mask of that name, got "
                f"none; {did_you_mean(name, known)}"
            )
        if mask.shape != known[name].shape:
            raise PruningError(
                f"Snapshot.restore: expected a mask of shape {tuple(known[name].shape)} for "
                f"'{name}', got {tuple(mask.shape)}; use the masks that belong to this model"
            )
        pairs.append((known[name], mask))
    return pairs
