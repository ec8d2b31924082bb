"""The memory that a forward pass needs beyond the model and its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from infcop.errors import ModelError
from infcop.models.calling import Inputs, call
from infcop.models.in_the_open import in_the_open
from infcop.models.preserved import preserved_model
from infcop.models.unwrap import unwrapped

__all__ = ["peak_activation_bytes"]


@torch.no_grad()
def peak_activation_bytes(model: nn.Module, inputs: Inputs) -> int:
    """Return the largest sum of bytes of tensors alive at once in a forward pass.

    The pass is in evaluation mode and without gradients. Parameters, buffers and inputs do not
    count, and views of other tensors add nothing. Sums are taken after each operation. What an
    operation holds for itself while it runs can't be seen. So that nothing hides, attention and
    layers of transformers run as single products, with the matrix of all pairs of positions.

    Args:
        model: Any model; it is left as it is.
        inputs: A tuple of positional arguments or a mapping of keyword arguments.

    Raises:
        ModelError: The model fails on these inputs.

    Example:
        The input of the activation, 8 floats, lives until its output is there:

        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> peak_activation_bytes(model, (torch.ones(1, 4),))
        64
    """
    model = unwrapped(model)
    own = [*model.parameters(), *model.buffers()]
    given = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    watch = _Watch([*own, *given])
    with preserved_model(model, copy_parameters=False), in_the_open():
        model.eval()
        try:
            with watch:
                call(model, inputs)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                "peak_activation_bytes: expected a model that runs on the inputs, but it fails "
                f"with {type(error).__name__}: {error}; give inputs as in evaluation"
            ) from error
    return watch.peak


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums up the storages that are alive after each operation."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._known = {_address(tensor) for tensor in known if _is_plain(tensor)}
        # A weak reference keeps the address of a storage from being given to another one.
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        gone = [at for at, one in self._alive.items() if one[0].expired()]  # type: ignore[no-untyped-call]
        for address in gone:
            del self._alive[address]
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and _is_plain(tensor):
                address = _address(tensor)
                if address not in self._known:
                    storage = tensor.untyped_storage()
                    reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                    self._alive[address] = (reference, storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
