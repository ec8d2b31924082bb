"""Information flow the straightforward way: two passes over the whole set, host copies, float32.

Written from the description of the published procedure, to compare with. It measures the same
edges as infcop, so that the numbers can be compared; otherwise it does what is described: hooks
keep the output of every layer, batch by batch the activations are averaged over positions and
moved to the host. A first pass gives means and variances as ``E[x^2] - E[x]^2``, a second one the
correlations. All is float32, and the matrices of all readings are kept.

:func:`accuracy` and :func:`sampling` hold this and infcop's way against ``numpy.corrcoef``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infcop.core.edges import Edge, Edges
from infcop.flow.information import correlation
from infcop.flow.meter import FlowMeter
from infcop.tasks.base import Task

__all__ = ["TwoPass", "accuracy", "sampling"]

_Values = NDArray[np.float32]
_Matrices = list[NDArray[np.float64]]


class TwoPass:
    """Reads the flow of a model in evaluation mode; each layer of an edge must run once.

    Args:
        model: The model.
        edges: Pairs of layer names.

    Attributes:
        readings: Of every reading the correlation matrices, in the order of the edges.
    """

    def __init__(self, model: nn.Module, edges: Sequence[Edge]) -> None:
        self.readings: list[list[_Values]] = []
        self._model, self._edges = model, tuple(edges)
        names = {name for edge in edges for name in edge}
        # Definition order, as the layers are found there.
        self._layers = {n: m for n, m in model.named_modules() if n in names}
        self._outputs: dict[str, Tensor] = {}

    def read(self, batches: Iterable[Tensor]) -> tuple[float, ...]:
        """Return the mean correlation of every edge over all batches of inputs."""
        means, deviations = self._first_pass(batches)
        matrices = self._second_pass(batches, means, deviations)
        self.readings.append(matrices)
        return tuple(float(matrix.mean()) for matrix in matrices)

    def activations(self, batches: Iterable[Tensor]) -> Iterator[dict[str, _Values]]:
        """Yield per batch what the layers gave, on the host; the model is left in evaluation."""
        hooks = [
            layer.register_forward_hook(self._keep(name)) for name, layer in self._layers.items()
        ]
        self._model.eval()
        try:
            for batch in batches:
                with torch.no_grad():
                    self._model(batch)
                yield {name: _on_host(self._outputs.pop(name)) for name in self._layers}
        finally:
            for hook in hooks:
                hook.remove()

    def _first_pass(
        self, batches: Iterable[Tensor]
    ) -> tuple[dict[str, _Values], dict[str, _Values]]:
        sums: dict[str, _Values] = {}
        squares: dict[str, _Values] = {}
        count = 0
        for activations in self.activations(batches):
            count += len(next(iter(activations.values())))
            for name, values in activations.items():
                sums[name] = sums.get(name, np.float32(0)) + values.sum(axis=0)
                squares[name] = squares.get(name, np.float32(0)) + (values**2).sum(axis=0)
        means = {name: total / np.float32(count) for name, total in sums.items()}
        # The difference of two large numbers: where rounding makes it negative, NaN results.
        with np.errstate(invalid="ignore"):
            deviations = {
                name: np.sqrt(squares[name] / np.float32(count) - mean**2)
                for name, mean in means.items()
            }
        return means, deviations

    def _second_pass(
        self,
        batches: Iterable[Tensor],
        means: dict[str, _Values],
        deviations: dict[str, _Values],
    ) -> list[_Values]:
        matrices: list[_Values | None] = [None] * len(self._edges)
        count = 0
        for activations in self.activations(batches):
            count += len(next(iter(activations.values())))
            with np.errstate(invalid="ignore", divide="ignore"):
                standard = {
                    name: (values - means[name]) / deviations[name]
                    for name, values in activations.items()
                }
                for place, (producer, consumer) in enumerate(self._edges):
                    product = standard[producer].T @ standard[consumer]
                    before = matrices[place]
                    matrices[place] = product if before is None else before + product
        return [matrix / np.float32(count) for matrix in matrices if matrix is not None]

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._outputs[name] = output

        return hook


def _on_host(output: Tensor) -> _Values:
    pooled = output.mean(dim=(2, 3)) if output.ndim == 4 else output
    values: _Values = pooled.detach().float().cpu().numpy()
    return values


def accuracy(model: nn.Module, task: Task, edges: Edges, batches: list[Any]) -> dict[str, float]:
    """Return the largest errors of the correlations, held against NumPy all in float64.

    The outputs of the layers are the same for all; NumPy's are averaged over positions in float64
    too. The twin's NaN are counted apart.
    """
    inputs = [task.inputs(batch)[0] for batch in batches]
    twin = TwoPass(model, edges.edges)
    twin.read(inputs)
    exact = _reference(_in_float64(model, inputs, edges), edges)
    errors = [a - b for a, b in zip(twin.readings[-1], exact, strict=True)]
    finite = [error[np.isfinite(error)] for error in errors]
    ours = _matrices(model, task, edges, batches)
    return {
        "two_pass_max": max((float(abs(e).max()) for e in finite if e.size), default=math.nan),
        "two_pass_share_nan": 1 - sum(e.size for e in finite) / sum(e.size for e in errors),
        "infcop_max": max(float(abs(a - b).max()) for a, b in zip(ours, exact, strict=True)),
    }


def sampling(
    model: nn.Module, task: Task, edges: Edges, batches: list[Any], probe: list[Any]
) -> dict[str, float]:
    """Return how far infcop's correlations on a probe lie from those on all batches."""
    apart = [
        a - b
        for a, b in zip(
            _matrices(model, task, edges, probe),
            _matrices(model, task, edges, batches),
            strict=True,
        )
    ]
    return {
        "sampling_max": max(float(abs(part).max()) for part in apart),
        "sampling_mean": float(np.mean([abs(part).mean() for part in apart])),
        "sampling_distance": math.hypot(*(float(part.mean()) for part in apart)),
    }


def _matrices(model: nn.Module, task: Task, edges: Edges, batches: list[Any]) -> _Matrices:
    meter = FlowMeter(model, edges=edges, kinds=["information"], keep_moments=True)
    moments = meter.read(task, batches).moments
    assert moments is not None
    return [correlation(moments, edge).cpu().numpy() for edge in edges.edges]


def _in_float64(
    model: nn.Module, inputs: Iterable[Tensor], edges: Edges
) -> Iterator[dict[str, NDArray[Any]]]:
    outputs: dict[str, Tensor] = {}

    def keeping(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            # Copied before an activation in place can change it.
            outputs[name] = output.double() if output.dtype != torch.float64 else output.clone()

        return keep

    hooks = [
        model.get_submodule(name).register_forward_hook(keeping(name)) for name in edges.layers
    ]
    model.eval()
    with torch.no_grad():
        for images in inputs:
            model(images)
            yield {
                name: (values.mean(dim=(2, 3)) if values.ndim == 4 else values).cpu().numpy()
                for name, values in outputs.items()
            }
    for hook in hooks:
        hook.remove()


def _reference(batches: Iterable[Mapping[str, NDArray[Any]]], edges: Edges) -> _Matrices:
    """Return correlations by ``numpy.corrcoef``, in float64 and with all examples at once."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in edges.layers}
    for batch in batches:
        for name, rows in batch.items():
            parts[name].append(rows)
    joined = {name: np.concatenate(part).astype(np.float64) for name, part in parts.items()}
    found = []
    for producer, consumer in edges.edges:
        with np.errstate(invalid="ignore", divide="ignore"):
            both = np.corrcoef(joined[producer], joined[consumer], rowvar=False)
        width = joined[producer].shape[1]
        # A dead channel counts 0.
        found.append(np.nan_to_num(both[:width, width:]))
    return found
