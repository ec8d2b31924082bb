"""Running networks in float64 without copies of their parameters in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from infcop.collapse.copies import lean_copy
from infcop.collapse.plan import Plan, sliced

__all__ = ["Precision", "computed_in_float64"]


@dataclass(frozen=True)
class Precision:
    """How networks are run.

    Attributes:
        dtype: The precision.
        by: Whether the network has it, is copied in it, or each parameter is converted where it is
            used, which takes little memory and rounds their gradients.
    """

    dtype: torch.dtype
    by: Literal["nature", "copy", "use"] = "nature"

    def of(self, model: nn.Module) -> nn.Module:
        """Return a copy to be run."""
        if self.by == "nature":
            return lean_copy(model)
        return lean_copy(model, self.dtype, parameters=self.by == "copy")

    def without_rounding(self, small: nn.Module, large: nn.Module, plan: Plan) -> None:
        """Give a smaller network its constants as they are, before it is run."""
        if self.by != "use":
            return
        for name, amount in plan.added.items():
            bias = sliced(large.get_parameter(name).detach(), plan.kept[name])
            _set(small, name, bias.double() + amount)
        for name, amount in plan.made.items():
            _set(small, f"{name.removesuffix('weight')}bias", amount.double())

    def running(self, *networks: nn.Module) -> AbstractContextManager[None]:
        """Return the context for running networks that ``of`` gave, or that were made of them."""
        return computed_in_float64(networks) if self.by == "use" else nullcontext()


def _set(model: nn.Module, name: str, values: Tensor) -> None:
    place, _, own = name.rpartition(".")
    before = model.get_parameter(name)
    parameter = nn.Parameter(values, requires_grad=before.requires_grad)
    setattr(model.get_submodule(place), own, parameter)


@contextmanager
def computed_in_float64(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Let every operation on parameters in float32 see them in float64.

    They are converted as each operation begins and let go when it ends; what is saved for going
    backwards is the parameter in float32, which is converted again there. Gradients by parameters
    are computed in float64 and rounded to float32 at the end. Inputs and buffers have to be in
    float64.

    Args:
        networks: Those whose parameters are meant.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> with computed_in_float64([layer]):
        ...     print(layer(torch.ones(1, 3, dtype=torch.float64)).dtype)
        torch.float64
    """
    mode = _InFloat64(networks)
    with mode, torch.autograd.graph.saved_tensors_hooks(mode.pack, mode.unpack):
        yield


_DTYPE = Tensor.dtype.__get__  # type: ignore[attr-defined]
_AS_THEY_ARE = {
    *(
        "__get__",
        "__set__",
        "__len__",
        "dim",
        "is_contiguous",
        "ndimension",
        "numel",
        "size",
        "stride",
    ),
    *("backward", "grad", "register_hook", "register_post_accumulate_grad_hook", "requires_grad_"),
}
"""Functions that compute nothing from the values of a parameter."""


class _InFloat64(TorchFunctionMode):
    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        parameters = [p for network in networks for p in network.parameters()]
        narrow = [p for p in parameters if p.dtype == torch.float32]
        self._narrow = frozenset(_memory(p) for p in narrow)
        self._wide: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], _: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == _DTYPE:
            return torch.float64 if self._is_narrow(args[0]) else func(*args)
        if getattr(func, "__name__", "") not in _AS_THEY_ARE:
            args, kwargs = pytree.tree_map(self._widened, (args, kwargs))
        return func(*args, **kwargs)

    def pack(self, saved: Tensor) -> Any:
        """Remember where a tensor comes from instead of the tensor."""
        with torch._C.DisableTorchFunction():
            narrow = self._wide.get(_memory(saved))
            # What was written to, or is seen as other numbers, can't be made again.
            plain = saved.dtype == torch.float64 and saved._version == 0
            if narrow is None or not plain:
                # With its graph it would keep itself alive where nothing goes backwards.
                return saved.detach()
            return narrow, saved.size(), saved.stride(), saved.storage_offset()

    def unpack(self, packed: Any) -> Tensor:
        """Make it again."""
        if isinstance(packed, Tensor):
            return packed
        narrow, *place = packed
        with torch._C.DisableTorchFunction(), torch.no_grad():
            wide: Tensor = narrow.double().as_strided(*place)
            return wide

    def _widened(self, one: Any) -> Any:
        if not self._is_narrow(one):
            return one
        wide = one.double()
        place = _memory(wide)
        self._wide[place] = one.detach()
        # Other tensors may come to lie where it was.
        finalize(wide.untyped_storage(), self._wide.pop, place, None)
        return wide

    def _is_narrow(self, one: Any) -> bool:
        return (
            isinstance(one, Tensor)
            and one.dtype == torch.float32
            and one.numel() > 0
            and _memory(one) in self._narrow
        )


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
