"""Taps: collect the outputs of layers during forward passes, pooled to one value per channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.edges import Edges, Layout, Tap
from infcop.core.float64 import to_float64
from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.models.kinds import channel_axis, layer_kind
from infcop.models.unwrap import uncompiled

__all__ = ["Pass", "Taps", "pooled", "tapped", "tapped_layers"]

Pass = dict[Tap, Tensor]
"""The pooled activations ``[B, C]`` of one forward pass, by call."""


class Taps:
    """What the tapped layers gave in the latest forward passes; made by :func:`tapped`."""

    def __init__(self, edges: Edges) -> None:
        self._layouts = {tap: edges.layouts.get(tap, Layout()) for tap in edges.taps}
        self._traced = {name for edge in edges.pairs for name in edge}
        self._shifts: dict[Tap, Tensor | None] = {}
        self._passes: list[Pass] = []
        self._calls: Counter[str] = Counter()
        self._begun: Pass = {}

    def begin(self) -> None:
        """Start a forward pass; one that was given up in the middle is forgotten."""
        self._begun = {}
        self._calls.clear()

    def end(self) -> None:
        """Close a forward pass."""
        if self._begun:
            self._passes.append(self._begun)
        self.begin()

    def put(self, name: str, module: nn.Module, output: object) -> None:
        """Keep the pooled output of a call.

        Raises:
            FlowError: The output is no tensor, or the call is one that no edge tells apart.
        """
        tap = (name, self._calls[name])
        self._calls[name] += 1
        layout = self._layouts.get(tap)
        if layout is None:
            if name in self._traced:
                return
            raise FlowError(
                f"tapped: expected layer '{name}' to run once per forward pass, but it ran again; "
                "its output would be ambiguous, so give traced edges, which say which calls belong "
                "together, or leave its edges out"
            )
        if not isinstance(output, Tensor):
            raise FlowError(
                f"tapped: expected layer '{name}' to return a tensor, got "
                f"{type(output).__name__}; leave its edges out"
            )
        self._begun[tap] = self._pooled(tap, module, output, layout)

    def _pooled(self, tap: Tap, module: nn.Module, output: Tensor, layout: Layout) -> Tensor:
        if tap not in self._shifts:
            first = pooled(module, output, layout)
            self._shifts[tap] = _shift(first) if first.numel() < output.numel() else None
            if self._shifts[tap] is None:
                return first
        shift = self._shifts[tap]
        if shift is None:
            return pooled(module, output, layout)
        wide = output.detach().to(shift.dtype)
        across = [1] * output.ndim
        across[channel_axis(module, output.ndim)] = -1
        deviations = pooled(module, wide - shift.reshape(across), layout)
        return to_float64(deviations) + to_float64(shift)

    def take(self) -> list[Pass]:
        """Hand over the forward passes since the last call."""
        if self._begun:
            # The layers ran, but not by a call of the model itself.
            self.end()
        taken, self._passes = self._passes, []
        return taken


_FAR = 256.0
"""Means of more than so many deviations are taken off before pooling in float32."""


def _shift(values: Tensor) -> Tensor | None:
    """Return what to take off each channel where means would drown deviations in rounding.

    Looked at once per reading, which is the only time that an accelerator is waited for.
    """
    if values.dtype == torch.float64:
        return None
    if len(values) < 2:
        # One example shows no deviation; taking its own values off is never wrong.
        return values[0].clone()
    deviation = (values - values[0]).std(dim=0, correction=0)
    far = (deviation > 0) & (values[0].abs() > _FAR * deviation)
    return values[0].clone() if bool(far.any()) else None


@contextmanager
def tapped(model: nn.Module, edges: Edges, *, training_only: bool = False) -> Iterator[Taps]:
    """Collect the pooled outputs of layers while the context lasts.

    The pooling runs inside the hook, so later in-place operations (``ReLU(inplace=True)``) do not
    change what was collected. Averages are taken in float32; where a layer's means are hundreds of
    times its deviations, in float64 around the means of its first example. What a checkpoint
    computes again during the backward pass is not collected twice, and what was compiled runs as
    it was written. All hooks are removed at the end, also after an exception.

    Args:
        model: The model that owns the layers.
        edges: Names of its convolution or linear modules, and which of their calls are wanted.
        training_only: Ignore forward passes of the model in evaluation mode.

    Yields:
        The taps; call :meth:`Taps.take` after every forward pass.

    Raises:
        FlowError: A name is unknown.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1))
        >>> with tapped(model, Edges.of([("0", "2")])) as taps:
        ...     _ = model(torch.zeros(5, 1, 4, 4))
        ...     taps.take()[0]["0", 0].shape
        torch.Size([5, 3])
    """
    modules = tapped_layers(model, edges)
    taps = Taps(edges)

    def listening() -> bool:
        in_backward = torch._C._current_graph_task_id() != -1
        return not in_backward and (model.training or not training_only)

    def begin(_inputs: Any) -> None:
        if listening():
            taps.begin()

    def end(_inputs: Any, _output: Any) -> None:
        if listening():
            taps.end()

    def collecting(name: str, module: nn.Module) -> _Hook:
        def collect(_inputs: Any, output: object) -> None:
            if listening():
                taps.put(name, module, output)

        return _Hook(module, collect)

    with uncompiled(), ExitStack() as hooks:
        if modules:
            hooks.callback(model.register_forward_pre_hook(_Hook(model, begin)).remove)
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(collecting(name, module)).remove)
        if modules:
            # After the layers' own, since the model itself may be one of them.
            hooks.callback(model.register_forward_hook(_Hook(model, end)).remove)
        yield taps


class _Hook:
    """A hook that does nothing in copies of its module, which inherit it, or once it is pickled."""

    def __init__(self, module: nn.Module | None, function: Callable[..., None]) -> None:
        self._module, self._function = module, function

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        if module is self._module:
            self._function(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, _nothing)


def _nothing(*_arguments: Any) -> None:
    pass


def pooled(module: nn.Module, output: Tensor, layout: Layout | None = None) -> Tensor:
    """Return a layer's output averaged over everything but examples and channels.

    The channels are axis 1 of a convolution's output and the last axis of a linear layer's; the
    examples are where ``layout`` says. A convolution's ``[B, C, *]`` is averaged over its spatial
    positions, a linear layer's ``[B, *, C]`` over its middle axes, such as tokens. The result is a
    detached copy ``[B, C]``, in float32 for half types and in the output's own type otherwise.

    Raises:
        FlowError: The output has no axis of examples, or its channel axis is not known.

    Example:
        >>> pooled(nn.Linear(2, 3), torch.ones(4, 7, 3, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    layout = layout or Layout()
    channels = _channel_axis(module, output)
    if layout.axis == channels or output.shape[layout.axis] % layout.fold:
        raise FlowError(
            f"tapped: expected the examples along axis {layout.axis}, {layout.fold} entries each, "
            f"got {tuple(output.shape)} from {type(module).__name__}; trace the edges on a batch "
            "like those that are measured"
        )
    output = output.detach()
    dtype = torch.promote_types(output.dtype, torch.float32)
    rest = tuple(axis for axis in range(output.ndim) if axis not in (layout.axis, channels))
    if layout.axis == 0 and layout.fold == 1:
        if not rest:
            return output.to(dtype, copy=True)
        # One long axis is reduced faster than two short ones.
        flat = output.flatten(2) if channels == 1 else output.flatten(1, -2)
        return flat.mean(dim=2 if channels == 1 else 1, dtype=dtype)
    values = output.movedim((layout.axis, channels), (0, 1)).to(dtype, copy=not rest)
    if rest:
        values = values.flatten(2).mean(dim=2)
    if layout.example_first:
        return values.reshape(-1, layout.fold, values.shape[1]).mean(dim=1)
    return values.reshape(layout.fold, -1, values.shape[1]).mean(dim=0)


def _channel_axis(module: nn.Module, output: Tensor) -> int:
    channels = channel_axis(module, output.ndim)
    fits = channels >= 1 if layer_kind(module) == "linear" else channels == 1
    if not fits or not output.is_floating_point():
        raise FlowError(
            f"tapped: expected a real batch [B, C, *] from a convolution, [B, *, C] from a linear "
            f"layer or [B, C] from another module, got {tuple(output.shape)} of {output.dtype} "
            f"from {type(module).__name__}; call the model with a batch, or leave the layer out"
        )
    return channels


def tapped_layers(model: nn.Module, edges: Edges) -> dict[str, nn.Module]:
    """Return the layers of edges by name.

    Raises:
        FlowError: The model has no layer of such a name.

    Example:
        >>> list(tapped_layers(nn.Sequential(nn.Linear(1, 1)), Edges.of([("0", "0")])))
        ['0']
    """
    known = dict(model.named_modules(remove_duplicate=False))
    for name in edges.layers:
        if name not in known:
            nearest = did_you_mean(name, filter(None, known))
            raise FlowError(f"flow: the model has no layer '{name}' of an edge; {nearest}")
    return {name: known[name] for name in edges.layers}
