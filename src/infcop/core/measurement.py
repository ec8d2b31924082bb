"""What is known of a model after measuring it. Pure values, JSON on request."""

from __future__ import annotations

from typing import Literal

from infcop.core.edges import Edge
from infcop.core.values import Value

__all__ = ["MEASUREMENT_VERSION", "MeasuredEdge", "MeasuredLayer", "MeasurementRecord", "Pooling"]

MEASUREMENT_VERSION = 1
"""Raised whenever a measurement written by older code can no longer be read as it is."""


class Pooling(Value):
    """How the outputs of a layer become one number per example and channel."""

    averaged: tuple[int, ...] = ()
    """The axes that were averaged over: positions, tokens, time steps."""
    examples: int = 0
    """The axis that holds the examples."""
    fold: int = 1
    """Entries of that axis that belong to one example and were averaged too: windows, patches."""

    @property
    def sentence(self) -> str:
        """The same in words.

        Example:
            >>> Pooling(averaged=(2, 3)).sentence
            'averaged over axes 2 and 3'
            >>> Pooling(averaged=(1,), fold=4).sentence
            'averaged over axis 1 and the 4 parts of each example along axis 0'
        """
        parts = []
        if self.averaged:
            axes = [str(axis) for axis in self.averaged]
            many = f"{', '.join(axes[:-1])} and {axes[-1]}" if len(axes) > 1 else axes[0]
            parts.append(f"ax{'e' if len(axes) > 1 else 'i'}s {many}")
        if self.fold > 1:
            parts.append(f"the {self.fold} parts of each example along axis {self.examples}")
        return f"averaged over {' and '.join(parts)}" if parts else "taken as it is"


class MeasuredLayer(Value):
    """A prunable layer that runs."""

    name: str
    kind: str
    """The class of the module, for instance ``"Conv2d"``."""
    parameter: str
    """The name under which its weight is pruned; another layer's where they share it."""
    shape: tuple[int, ...]
    density: float
    """Entries of the weight that are not zero, as a fraction in [0, 1]."""
    calls: int
    """How often it runs in one forward pass."""
    pooling: tuple[Pooling, ...] = ()
    """How its outputs were pooled: once for all of its calls, or once for each way."""
    units: int | None = None
    """Channels of its output; unknown where the output is not one tensor."""
    dead_units: int | None = None
    """Channels that did not vary over the examples; unknown for a layer at no measured edge."""
    gradient_norm: float | None = None
    gradient_mean: float | None = None
    """Mean absolute entry of the gradient."""


class MeasuredEdge(Value):
    """A producer whose output reaches a consumer with no other prunable layer between."""

    producer: str
    consumer: str
    calls: tuple[tuple[int, int], ...] = ((0, 0),)
    """Which call of the producer reaches which call of the consumer, from 0."""
    channels: tuple[tuple[int, int], ...] = ()
    """Input channels of the consumer that it enters at, first and one past the last."""
    samples: int | None = None
    """Examples it was measured on, each as often as there are pairs of calls."""
    widths: tuple[int, int] | None = None
    """Channels that were correlated, of the producer and of the consumer."""
    signed: float | None = None
    """Mean correlation, in [-1, 1]."""
    signed_error: float | None = None
    """Its standard error."""
    absolute: float | None = None
    """Mean absolute correlation, in [0, 1]."""
    absolute_error: float | None = None
    effective_rank: float | None = None

    @property
    def ends(self) -> Edge:
        """Names of producer and consumer."""
        return self.producer, self.consumer


class MeasurementRecord(Value):
    """Prunable layers, edges and flow of a model: the same for the same model, data and seed."""

    schema_version: int = MEASUREMENT_VERSION
    model: str
    """The name of the model, or of its class."""
    weights: str = "as given"
    """Where its weights are from."""
    data: str = "custom"
    source: Literal["probe"] = "probe"
    """Fixed examples in evaluation mode."""
    examples: int
    seed: int
    """What the examples were drawn with."""
    selection: Literal["graph", "main-path"] | tuple[str, ...] = "graph"
    """Which edges were asked for."""
    gradient: Literal["full", "per-batch"] | None = None
    """How gradient flow was taken over batches; none where it was not measured."""
    parameters: int
    """Entries of all parameters of the model."""
    prunable: int
    """Entries of the prunable weights, each once."""
    layers: tuple[MeasuredLayer, ...]
    """In the order of their first calls."""
    edges: tuple[MeasuredEdge, ...]
    excluded: dict[str, str] = {}
    """Names of the parameters that are not prunable, with the reason."""
    unused: tuple[str, ...] = ()
    """Prunable layers that did not run."""
    warnings: tuple[str, ...] = ()

    @property
    def called_more_than_once(self) -> tuple[str, ...]:
        """Layers with several calls in one forward pass."""
        return tuple(layer.name for layer in self.layers if layer.calls > 1)
