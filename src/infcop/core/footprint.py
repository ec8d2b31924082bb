"""What networks take: parameters, multiply-adds, bytes, memory, time. Pure values, JSON on disk."""

from __future__ import annotations

from typing import Literal

from infcop.core.values import Value

__all__ = [
    "FOOTPRINT_VERSION",
    "Footprint",
    "LayerSizes",
    "NetworkFootprint",
    "NetworkKind",
    "Timing",
]

FOOTPRINT_VERSION = 1
"""Raised whenever a footprint written by older code can no longer be read as it is."""

NetworkKind = Literal["dense", "masked", "compact", "onnx"]
"""The trained dense network, the sparse one at full size, the compact one, that one as ONNX."""


class Timing(Value):
    """How long one call takes, measured in turns with the other networks.

    Example:
        >>> Timing(batch=64, threads=1, median=0.02, lower=0.02, upper=0.03, repeats=9, calls=1
        ...     ).throughput
        3200.0
    """

    batch: int
    threads: int
    median: float
    """Seconds of one call: the median over all repeats."""
    lower: float
    """The first quartile."""
    upper: float
    """The third quartile."""
    repeats: int
    calls: int
    """Calls in a row that made up each repeat."""

    @property
    def throughput(self) -> float:
        """Examples in a second."""
        return self.batch / self.median


class NetworkFootprint(Value):
    """What one network takes. What is None was not measured."""

    network: NetworkKind
    missing: str | None = None
    """Why there are no numbers, or not all of them."""
    metrics: dict[str, float] = {}
    parameters: int | None = None
    """Entries of all parameters, shared ones once, zeros included."""
    nonzero: int | None = None
    """Those of them that are not zero."""
    multiply_adds: int | None = None
    """Of matrix products and convolutions, per example; zeros count like other weights."""
    uncounted: dict[str, int] = {}
    """How often each operation is called that ``multiply_adds`` leaves out."""
    file_bytes: int | None = None
    """Size of the file that holds the network."""
    activation_bytes: int | None = None
    """The largest sum of bytes alive at once beyond parameters, buffers and inputs."""
    timings: tuple[Timing, ...] = ()

    def timing(self, batch: int, threads: int) -> Timing | None:
        """Return the timing at a batch size and a number of threads."""
        for timing in self.timings:
            if (timing.batch, timing.threads) == (batch, threads):
                return timing
        return None


class LayerSizes(Value):
    """What became of the parameters and buffers of one module."""

    name: str
    kind: str
    """The class of the module."""
    before: dict[str, tuple[int, ...]]
    """The shape of each of its parameters and buffers."""
    after: dict[str, tuple[int, ...]]
    outputs: tuple[int, int] | None = None
    """Output units before and after, of a layer with a weight matrix or kernels."""
    reason: str | None = None
    """Why nothing was removed; None if something was."""


class Footprint(Value):
    """Several forms of the network of one run, side by side."""

    schema_version: int = FOOTPRINT_VERSION
    networks: tuple[NetworkFootprint, ...]
    layers: tuple[LayerSizes, ...]
    new_biases: tuple[str, ...] = ()
    """Biases of the compact network that the original has not."""
    main_metric: str | None = None
    measured_on: Literal["test", "held-out"] | None = None
    """Where the metrics are from."""
    activation_batch: int = 1
    """Examples in the batch of ``activation_bytes``."""
    inputs: tuple[str, ...] = ()
    """Shape and type of each tensor of the example inputs."""
    versions: dict[str, str] = {}
    hardware: dict[str, str] = {}
    source_sha256: str | None = None
    """A digest of the dense and the sparse network that the others were made from."""
    timed_with: dict[str, str] = {}
    """The date, the versions and the hardware of the times, which may be of an earlier command."""

    def of(self, network: NetworkKind) -> NetworkFootprint | None:
        """Return what is known of one of the networks."""
        return next((one for one in self.networks if one.network == network), None)
