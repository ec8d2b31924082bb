"""Taps: collect the outputs of layers during a forward pass, pooled to one value per channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.names import did_you_mean
from infcop.errors import FlowError

__all__ = ["Taps", "pooled", "tapped"]

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Taps:
    """What the tapped layers gave in the last forward pass; made by :func:`tapped`."""

    def __init__(self, layers: Iterable[str]) -> None:
        self._layers = tuple(dict.fromkeys(layers))
        self._activations: dict[str, Tensor] = {}

    def put(self, name: str, activations: Tensor) -> None:
        """Keep the pooled output of a layer.

        Raises:
            FlowError: The layer has run before in this forward pass.
        """
        if name in self._activations:
            raise FlowError(
                f"tapped: expected layer '{name}' to run once per batch, but it ran again; its "
                "output would be ambiguous, so leave its edges out"
            )
        self._activations[name] = activations

    def take(self) -> dict[str, Tensor]:
        """Hand over the activations ``[B, C]`` of all layers and make room for the next batch.

        Raises:
            FlowError: A layer has not run.
        """
        missing = [name for name in self._layers if name not in self._activations]
        if missing:
            raise FlowError(
                f"tapped: expected layers {missing} to run in the forward pass, but they did not; "
                "leave their edges out, or call the modules rather than use their weights"
            )
        taken, self._activations = self._activations, {}
        return taken


@contextmanager
def tapped(model: nn.Module, layers: Iterable[str]) -> Iterator[Taps]:
    """Collect the pooled outputs of layers while the context lasts.

    The pooling runs inside the hook, so later in-place operations (``ReLU(inplace=True)``) do not
    change what was collected. All hooks are removed at the end, also after an exception.

    Args:
        model: The model that owns the layers.
        layers: Names of its convolution or linear modules.

    Yields:
        The taps; call :meth:`Taps.take` after every forward pass.

    Raises:
        FlowError: A name is unknown.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(inplace=True))
        >>> with tapped(model, ["0"]) as taps:
        ...     _ = model(torch.zeros(5, 1, 4, 4))
        ...     taps.take()["0"].shape
        torch.Size([5, 3])
    """
    modules = _modules(model, layers)
    taps = Taps(modules)
    with ExitStack() as hooks:
        for name, module in modules.items():
            handle = module.register_forward_hook(_hook(taps, name))
            hooks.callback(handle.remove)
        yield taps


def pooled(module: nn.Module, output: Tensor) -> Tensor:
    """Return a layer's output averaged over everything but examples and channels.

    A convolution's ``[B, C, *]`` is averaged over its spatial positions, a linear layer's
    ``[B, *, C]`` over its middle axes. The result is a detached copy ``[B, C]``, in float32 for
    half types and in the output's own type otherwise.

    Raises:
        FlowError: The output has no axis of examples, or its channel axis is not known.

    Example:
        >>> pooled(nn.Linear(2, 3), torch.ones(4, 7, 3, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    kernel = len(module.kernel_size) if isinstance(module, _CONVOLUTIONS) else None
    expected = {2 + kernel} if kernel is not None else {2}
    if isinstance(module, nn.Linear):
        expected = set(range(2, output.ndim + 1))
    if output.ndim not in expected or not output.is_floating_point():
        raise FlowError(
            f"tapped: expected a real batch [B, C, *] from a convolution, [B, *, C] from a linear "
            f"layer or [B, C] from another module, got {tuple(output.shape)} of {output.dtype} "
            f"from {type(module).__name__}; call the model with a batch, or leave the layer out"
        )
    middle = tuple(range(1, output.ndim - 1) if kernel is None else range(2, output.ndim))
    values = output.detach().to(torch.promote_types(output.dtype, torch.float32))
    return values.mean(dim=middle) if middle else values.clone()


def _modules(model: nn.Module, layers: Iterable[str]) -> dict[str, nn.Module]:
    known = dict(model.named_modules(remove_duplicate=False))
    modules: dict[str, nn.Module] = {}
    for name in layers:
        if name not in known:
            nearest = did_you_mean(name, filter(None, known))
            raise FlowError(f"tapped: the model has no layer '{name}'; {nearest}")
        modules[name] = known[name]
    return modules


def _hook(taps: Taps, name: str) -> Any:
    def collect(module: nn.Module, _inputs: Any, output: object) -> None:
        if not isinstance(output, Tensor):
            raise FlowError(
                f"tapped: expected layer '{name}' to return a tensor, got "
                f"{type(output).__name__}; leave its edges out"
            )
        taps.put(name, pooled(module, output))

    return collect
