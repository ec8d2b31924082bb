"""Correlation matrices of a network's edges, and how those of two states differ."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from infcop.core.comparison import Units
from infcop.core.edges import Edge
from infcop.core.records import Comparison
from infcop.errors import FlowError
from infcop.flow.information import correlation
from infcop.flow.moments import CoMoments

__all__ = ["Matrices", "compare", "matrices"]

Matrices = Mapping[Edge, Tensor]
"""Correlations of every edge, float32 on the CPU: what is kept of a state of the network."""


def matrices(moments: CoMoments) -> dict[Edge, Tensor]:
    """Return the correlation matrices of all edges, rounded to float32 to be kept.

    Rounding is relative to entries of at most 1, far below what sampling does to them, and makes
    a matrix that was written to disk and read back the same as one that was not. One example has
    no correlations: all entries are NaN, so nothing is decided from them.

    Raises:
        FlowError: An edge was not measured.
    """
    return {edge: _matrix(moments, edge).float().cpu() for edge in moments.edges}


def _matrix(moments: CoMoments, edge: Edge) -> Tensor:
    part = moments.parts.get(edge)
    if part is not None and part.n == 1:
        return torch.full_like(part.cxy, torch.nan)
    return correlation(moments, edge)


@torch.no_grad()
def compare(present: Matrices, reference: Matrices, units: Units = "all") -> Comparison:
    r"""Return the squared norms of both states' matrices and of their difference, per edge.

    Accumulated in float64. With ``"alive"``, rows and columns that are zero in either state are
    left out of all three: such a unit does not vary, and says nothing about the others.

    Raises:
        FlowError: The edges or their widths differ.

    Example:
        >>> there = {("a", "b"): torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
        >>> here = {("a", "b"): torch.tensor([[0.5, 0.0], [0.0, 0.0]])}
        >>> compare(here, there).difference, compare(here, there, "alive").difference
        ((1.25,), (0.25,))
    """
    if present.keys() != reference.keys():
        raise FlowError(
            f"compare: expected the same edges on both sides, got {list(present)} and "
            f"{list(reference)}; read both states with the same meter"
        )
    found: list[tuple[float, float, float]] = []
    for edge, there in reference.items():
        here = present[edge]
        if here.shape != there.shape:
            raise FlowError(
                f"compare: expected matrices of one shape for {edge[0]} -> {edge[1]}, got "
                f"{tuple(here.shape)} and {tuple(there.shape)}; the network has changed its width"
            )
        a, b = here.double(), there.double()
        if units == "alive":
            rows = _varies(a, 1) & _varies(b, 1)
            columns = _varies(a, 0) & _varies(b, 0)
            a, b = a[rows][:, columns], b[rows][:, columns]
        found.append((_square(a - b), _square(a), _square(b)))
    difference, here_norms, there_norms = zip(*found, strict=True) if found else ((), (), ())
    return Comparison(difference=difference, present=here_norms, reference=there_norms)


def _varies(matrix: Tensor, dim: int) -> Tensor:
    """Return which rows (``dim`` 1) or columns (0) hold anything but zeros."""
    return (matrix != 0).any(dim=dim)


def _square(matrix: Tensor) -> float:
    return float((matrix * matrix).sum())
