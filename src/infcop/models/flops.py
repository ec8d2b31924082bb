"""Counting the multiply-adds of a model, and saying what was not counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from infcop.errors import ModelError
from infcop.models.batches import batch_of
from infcop.models.calling import Inputs, call
from infcop.models.in_the_open import in_the_open
from infcop.models.preserved import preserved_model
from infcop.models.unwrap import unwrapped

__all__ = ["FlopCount", "multiply_adds"]


@dataclass(frozen=True)
class FlopCount:
    """The multiply-adds of one example.

    Attributes:
        total: Of matrix products and convolutions, those of attention included.
        by_module: The same of each module that takes some, with all that it calls, by its first
            name; ``""`` is the model.
        uncounted: How often each other operation is called that computes or copies something.
    """

    total: int
    by_module: Mapping[str, int]
    uncounted: Mapping[str, int]


@torch.no_grad()
def multiply_adds(
    model: nn.Module, example_inputs: Inputs, *, examples: int | None = None
) -> FlopCount:
    """Count the multiply-adds of a forward pass in evaluation mode, per example.

    A product of ``[m, k]`` and ``[k, n]`` takes ``m k n`` of them: half of what
    ``torch.utils.flop_counter`` counts as floating-point operations. Biases, activations,
    normalisations and pooling are not counted but named in ``uncounted``. Weights of zero count
    like any others. Of attention all pairs of positions count, masked or not. What is computed
    once for a batch is spread over its examples; results are rounded.

    Args:
        model: Any model; it is left as it is.
        example_inputs: A tuple of positional arguments or a mapping of keyword arguments.
        examples: How many examples they hold; by default the first size of the first tensor.

    Raises:
        ModelError: The model fails, or the number of examples is unknown or not positive.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> count = multiply_adds(model, (torch.ones(8, 1, 4, 4),))
        >>> count.total, count.by_module["0"], dict(count.uncounted)
        (176, 144, {'relu': 1})
    """
    model = unwrapped(model)
    size = batch_of(example_inputs) if examples is None else examples
    if size < 1:
        raise ModelError(
            f"multiply_adds: expected inputs with at least one example, got {size}; give others"
        )
    others, counter = _Others(), FlopCounterMode(display=False, custom_mapping=_FURTHER)
    with preserved_model(model, copy_parameters=False), in_the_open():
        model.eval()
        try:
            with others, counter:
                call(model, example_inputs)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                "multiply_adds: expected a model that runs on the example inputs, but it fails "
                f"with {type(error).__name__}: {error}; give inputs as in evaluation"
            ) from error
    counts = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    places = _places(model)
    by_module = {"": _each(counts.pop("Global", 0), size)}
    for name, count in counts.items():
        # The names begin with the class of the outermost module.
        place = name.partition(".")[2]
        if place in places:
            by_module[places[place]] = _each(count, size)
    return FlopCount(by_module[""], by_module, dict(sorted(others.calls.items())))


def _each(operations: int, examples: int) -> int:
    return round(operations / (2 * examples))


def _places(model: nn.Module) -> dict[str, str]:
    """Return the first name of each module under all of its names, but for the model itself."""
    first: dict[int, str] = {}
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names[name] = first.setdefault(id(module), name)
    del names[""]
    return names


def _product(left: tuple[int, ...], right: tuple[int, ...], **_: Any) -> int:
    """Return twice the multiply-adds of a product with a vector."""
    return 2 * prod(left)


def _added_product(_added: Any, left: tuple[int, ...], right: tuple[int, ...], **_: Any) -> int:
    return 2 * prod(left)


def _summed_products(_added: Any, left: tuple[int, ...], right: tuple[int, ...], **_: Any) -> int:
    return 2 * prod(left) * right[-1]


_FURTHER = {
    torch.ops.aten.mv: _product,
    torch.ops.aten.dot: _product,
    torch.ops.aten.vdot: _product,
    torch.ops.aten.addmv: _added_product,
    torch.ops.aten.addbmm: _summed_products,
}
"""Products that PyTorch's counter leaves out."""

_FREE = frozenset({"_unsafe_view", "_reshape_alias", "detach", "lift_fresh", "empty_like"})
_MAKING = ("empty", "new_empty", "scalar_tensor", "_local_scalar_dense", "resize")


class _Others(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes calls of operations that the counter has no formula for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self._known = {*FlopCounterMode(display=False).flop_registry, *_FURTHER}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = getattr(func, "_overloadpacket", func)
        name = getattr(packet, "__name__", str(packet))
        free = name in _FREE or name.startswith(_MAKING)
        if packet not in self._known and not free and not _is_view(func, args, result):
            self.calls[name.rstrip("_")] += 1
        return result


def _is_view(func: Any, args: Any, result: Any) -> bool:
    """Whether an operation only looks at one of its operands in another way."""
    if getattr(func, "is_view", False) or torch.Tag.inplace_view in func.tags:
        return True
    if func._schema.is_mutable:
        return False
    given = {_memory(leaf) for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)}
    made = {_memory(leaf) for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)}
    return made <= given


def _memory(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:
        return id(tensor)
    return int(tensor.untyped_storage()._cdata)
