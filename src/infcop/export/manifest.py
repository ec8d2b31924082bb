"""Where an exported network comes from: a value that travels with it."""

from __future__ import annotations

from typing import Any, Literal

from infcop.core.values import Value
from infcop.export.sizes import SizeTable

__all__ = [
    "FORMATS",
    "DataOrigin",
    "Densities",
    "FileFacts",
    "Format",
    "InputFacts",
    "Manifest",
    "MeasuredMetrics",
    "Network",
]

Format = Literal["onnx", "safetensors", "sparse", "torch-export", "state-dict"]
Network = Literal["masked", "compact"]
"""The network of full size with zeros, or the smaller dense one."""

FORMATS: tuple[Format, ...] = ("onnx", "safetensors", "sparse", "torch-export", "state-dict")


class Densities(Value):
    """Which part of the weights is kept."""

    asked: float
    """As the settings of the search say."""
    asked_in: str
    """What that is a part of: the prunable entries, or as ``density_in`` says."""
    prunable: float
    """Of the prunable entries, as it came out."""
    all: float
    """Of all parameters, the others counting as kept."""


class DataOrigin(Value):
    """What the network was trained on."""

    name: str
    sha256: str | None
    """Of all images and labels of the data set; null where it isn't known, as for loaders of the
    user's. It is taken when the network is exported; that the data is that of the search is known
    of the counts and the split."""
    train: int
    held_out: int
    test: int
    split: dict[str, Any]
    """The recipe of the split, and a hash of the indices it gave."""


class MeasuredMetrics(Value):
    """Metrics of the dense and of the sparse network."""

    measured_on: Literal["test", "held-out"]
    dense: dict[str, float]
    sparse: dict[str, float]


class InputFacts(Value):
    """One tensor that the network is called with."""

    name: str
    """The keyword, or the position."""
    dtype: str
    shape: tuple[int, ...]
    """Of the example that was used."""


class FileFacts(Value):
    """One file, and how it was checked."""

    name: str
    format: Format
    bytes: int
    sha256: str
    batch: int | Literal["any"] | None = None
    """The batch size that a program runs with; null for files of weights."""
    checked_on: tuple[int, ...] = ()
    """Batch sizes on which the program was compared with the network."""
    difference: float | None = None
    """The largest difference found there, over the largest entry of that output."""
    opset: int | None = None
    """Version of the operators of ONNX."""


class Manifest(Value):
    """Method, densities, data, accuracy, versions and licence of an exported network.

    It holds no time and no path: the same run exported twice gives the same manifest.
    """

    schema_version: int = 1
    network: Network
    model: str
    parameters: int
    """Of the exported network; tied ones count once."""
    method: str
    settings_sha256: str
    """Of the settings as JSON with sorted keys, but for places and speed: ``data.dir``, and the
    device, threads and checkpoint interval of ``execution``."""
    seed: int
    density: Densities
    data: DataOrigin
    metrics: MeasuredMetrics
    licence: str | None
    """As whoever exported it says."""
    versions: dict[str, str]
    inputs: tuple[InputFacts, ...] = ()
    sizes: SizeTable
    """Of the network's tensors in other formats."""
    tied: dict[str, str]
    """Other names of tensors, with the name under which a file of weights holds them."""
    file: FileFacts | None = None
    """In the JSON beside a file; null inside of the file itself."""
