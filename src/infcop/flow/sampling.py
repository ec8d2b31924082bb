"""How well information flow is known from a sample of examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from infcop.core.edges import Edges
from infcop.core.float64 import to_float64
from infcop.core.names import did_you_mean
from infcop.core.records import Flow
from infcop.errors import FlowError
from infcop.flow.information import correlation, inverse_deviation
from infcop.flow.moments import CoMoments
from infcop.flow.taps import Pass

__all__ = [
    "STATISTICS",
    "Precision",
    "bias_bounds",
    "covariances",
    "distance_error",
    "standard_errors",
]

Statistic = Literal["information.signed", "information.absolute"]

STATISTICS: tuple[Statistic, ...] = ("information.signed", "information.absolute")
"""The information vectors, in the order of their readings."""


@dataclass(frozen=True)
class Precision:
    """When an adaptive reading has seen enough.

    The batches must come in random order: what is read so far stands for what is left out. The
    reference counts as exact.

    Attributes:
        reference: The vector that the reading will be compared with.
        statistic: Which flow it is.
        within: Error of the distance to the reference at which reading stops, > 0: its standard
            error, and for the absolute statistic also what the mean of the sizes may be too large
            by, having been taken from so few examples.
        at_least: Examples before the first look.

    Example:
        >>> Precision(reference=(0.1, 0.2), statistic="information.signed", within=0.01).at_least
        256
    """

    reference: tuple[float, ...]
    statistic: Statistic
    within: float
    at_least: int = 256

    def check(self, edges: Edges) -> None:
        """Make sure that this can be asked of these edges.

        Raises:
            FlowError: It can't.
        """
        if self.statistic not in STATISTICS:
            raise FlowError(
                f"Precision: unknown statistic '{self.statistic}'; "
                f"{did_you_mean(self.statistic, STATISTICS)}"
            )
        if not self.within > 0 or self.at_least < 2:
            raise FlowError(
                "Precision: expected within > 0 and at_least >= 2, got "
                f"within={self.within}, at_least={self.at_least}"
            )
        if len(self.reference) != len(edges.edges):
            raise FlowError(
                f"Precision: expected a reference of {len(edges.edges)} entries, one per edge, got "
                f"{len(self.reference)}; take the reference on the same edges"
            )


@torch.no_grad()
def covariances(moments: CoMoments, edges: Edges, kept: Iterable[Pass]) -> dict[Flow, Tensor]:
    r"""Return the sampling covariance of both information vectors, ``[E, E]`` each, float64.

    By the influence function of a correlation (Hampel 1974; Devlin, Gnanadesikan and Kettenring
    1975), :math:`\psi_n = z_p z_c - \tfrac12 R\,(z_p^2 + z_c^2)`, averaged over the pairs of
    channels of an edge, with the sign of :math:`R` for the absolute mean:

    .. math::
        \operatorname{cov}(\hat\Delta_k, \hat\Delta_l) = \sum_n
            \frac{\psi_{k,n}}{N_k} \frac{\psi_{l,n}}{N_l}.

    Exact to first order in :math:`1/N` for independent examples; of the absolute mean only where
    correlations are not close to 0, the kink of :math:`|R|`, near which it is too large. The calls
    of one example count as one draw. For the absolute mean the error about its expected value is
    meant; that this value itself is larger for few examples is not in it (see ``bias_bounds``).

    Args:
        moments: The co-moments of all the examples.
        edges: Their edges.
        kept: The same activations again, as if of a few large forward passes.
    """
    matrices = [correlation(moments, edge) for edge in edges.edges]
    influences: dict[Flow, list[Tensor]] = {
        # Nothing to begin with: a process may have no examples.
        name: [matrices[0].new_zeros(len(matrices), 0)]
        for name in STATISTICS
    }
    for chunk in kept:
        parts = [
            _influence(moments, edges, index, matrix, chunk)
            for index, matrix in enumerate(matrices)
        ]
        for name, rows in zip(STATISTICS, zip(*parts, strict=True), strict=True):
            influences[name].append(torch.stack(rows))
    gathered = {name: torch.cat(parts, dim=1) for name, parts in influences.items()}
    return {name: rows @ rows.T for name, rows in gathered.items()}


def _influence(
    moments: CoMoments, edges: Edges, index: int, matrix: Tensor, chunk: Pass
) -> tuple[Tensor, Tensor]:
    """Return each example's share in the error of an edge's two means."""
    edge = edges.edges[index]
    part = moments.parts[edge]
    count = len(next(iter(chunk.values())))
    signed, absolute = matrix.new_zeros(count), matrix.new_zeros(count)
    signs, sizes = matrix.sign(), matrix.abs()
    scale = 1 / (matrix.numel() * part.n)
    for producer, consumer in edges.calls(edge):
        if producer not in chunk or consumer not in chunk:
            continue
        x = (to_float64(chunk[producer]) - part.producer.mean) * inverse_deviation(
            part.producer, part.n
        )
        y = (to_float64(chunk[consumer]) - part.consumer.mean) * inverse_deviation(
            part.consumer, part.n
        )
        x2, y2 = x.square(), y.square()
        signed += x.sum(1) * y.sum(1) - (x2 @ matrix.sum(1) + y2 @ matrix.sum(0)) / 2
        absolute += ((x @ signs) * y).sum(1) - (x2 @ sizes.sum(1) + y2 @ sizes.sum(0)) / 2
    return signed * scale, absolute * scale


def bias_bounds(moments: CoMoments) -> Tensor:
    r"""Return of every edge how much too large the absolute mean may be, ``[E]``, float64.

    The size of a correlation that is 0 has the expected value :math:`\sqrt{2/\pi}\,\sigma`, with
    :math:`\sigma = 1/\sqrt N`. Every entry that may be 0, being smaller than three standard errors,
    is taken to be.

    Example:
        >>> moments = CoMoments([("a", "b")])
        >>> step = torch.tensor([[1.0], [3.0]])
        >>> moments.update({"a": step, "b": step})
        >>> bias_bounds(moments)
        tensor([0.5642], dtype=torch.float64)
    """
    bounds = []
    for edge in moments.edges:
        error = moments.parts[edge].n ** -0.5
        sizes = correlation(moments, edge).abs()
        # Those of dead channels are 0 by definition, however many examples there are.
        unclear = (sizes > 0) & (sizes < 3 * error)
        bounds.append(unclear.double().mean() * error * (2 / torch.pi) ** 0.5)
    return torch.stack(bounds)


def standard_errors(covariance: Tensor) -> tuple[float, ...]:
    """Return the standard error of every entry of a vector with this sampling covariance.

    Example:
        >>> standard_errors(torch.tensor([[4.0, 0.0], [0.0, 9.0]]))
        (2.0, 3.0)
    """
    return tuple(float(value) for value in covariance.diagonal().sqrt())


def distance_error(
    vector: Sequence[float], reference: Sequence[float], covariance: Tensor
) -> float:
    r"""Return the standard error of :math:`d = \lVert v - v^* \rVert_2`, the reference held fixed.

    .. math:: \sigma_d = \sqrt{u^T \Sigma u}, \quad u = (v - v^*) / d

    Close to the reference, where :math:`d^2 \le \operatorname{tr} \Sigma` and the direction is
    mostly noise, :math:`\sqrt{\operatorname{tr} \Sigma}`, which is never less.

    Example:
        >>> distance_error((3.0, 0.0), (0.0, 0.0), torch.tensor([[0.04, 0.0], [0.0, 9.0]]))
        3.0...
        >>> distance_error((8.0, 0.0), (0.0, 0.0), torch.tensor([[0.04, 0.0], [0.0, 9.0]]))
        0.2...
    """
    difference = covariance.new_tensor(vector) - covariance.new_tensor(reference)
    distance = difference.norm()
    trace = covariance.trace()
    if float(distance) ** 2 <= float(trace):
        return float(trace.sqrt())
    return float((difference @ covariance @ difference).sqrt() / distance)
