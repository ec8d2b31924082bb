"""Centred co-moments of layer activations: streaming, in one pass, mergeable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infcop.core.edges import Edge, Edges
from infcop.core.float64 import to_float64
from infcop.core.spread import centre, epsilon
from infcop.errors import FlowError

__all__ = ["Centred", "Channels", "CoMoments", "EdgeMoments", "centred"]


@dataclass
class Channels:
    """Means and squared deviations of the channels of one end of an edge.

    Attributes:
        mean: ``[C]``, float64.
        m2: Sum of squared deviations from the mean, ``[C]``, float64.
        eps: The coarsest machine epsilon of the activations (float32 at the finest for half types,
            which are pooled in float32): what counts as rounding noise.
    """

    mean: Tensor
    m2: Tensor
    eps: float

    def copy(self) -> Channels:
        """Return channels that share no memory with these."""
        return Channels(self.mean.clone(), self.m2.clone(), self.eps)


@dataclass
class EdgeMoments:
    """What an edge's correlations are made of.

    Attributes:
        n: Number of samples: examples times pairs of calls.
        producer: Channels of the producer.
        consumer: Channels of the consumer.
        cxy: Sums of the products of both deviations, ``[C_producer, C_consumer]``, float64.
    """

    n: int
    producer: Channels
    consumer: Channels
    cxy: Tensor

    @property
    def ends(self) -> tuple[Channels, Channels]:
        """Producer and consumer."""
        return self.producer, self.consumer

    def copy(self) -> EdgeMoments:
        """Return moments that share no memory with these."""
        return EdgeMoments(self.n, self.producer.copy(), self.consumer.copy(), self.cxy.clone())


@dataclass(frozen=True)
class Centred:
    """One layer's activations over some examples, less their mean.

    Attributes:
        channels: Their moments.
        values: The deviations, ``[N, C]``, float64.
    """

    channels: Channels
    values: Tensor


@torch.no_grad()
def centred(values: Tensor, eps: float) -> Centred:
    """Return the moments and deviations of float64 values ``[N, C]``, which are overwritten.

    Around the first example, see :func:`~infcop.core.spread.centre`.
    """
    mean = centre(values)
    return Centred(Channels(mean, (values * values).sum(dim=0), eps), values)


class CoMoments:
    r"""Count, means, squared deviations and co-deviations of channels over a stream of samples.

    For an edge :math:`(p, c)` with pooled activations :math:`a_p, a_c`:

    .. math::
        M2_{i} = \sum_n (a_{ni} - \mu_{i})^2, \qquad
        C_{ij} = \sum_n (a_{p,ni} - \mu_{p,i}) (a_{c,nj} - \mu_{c,j}).

    Two parts A and B, with :math:`\delta = \mu_B - \mu_A`, join as (Chan, Golub and LeVeque
    1979; Schubert and Gertz 2018 for the co-deviations)

    .. math::
        \mu = \mu_A + \delta\, n_B / n, \quad
        M2 = M2_A + M2_B + \delta^2\, n_A n_B / n, \quad
        C = C_A + C_B + \delta_p \delta_c^T\, n_A n_B / n.

    Everything is float64, on the device of the activations (on the CPU where that device has no
    float64). Nothing waits for the device: a non-finite activation makes the moments of its
    channel non-finite, which shows when they are read. Edges keep their moments apart, so an edge
    that a batch does not reach simply has fewer samples.

    Args:
        edges: Producers and consumers; a layer may take part in several edges.

    Attributes:
        edges: The pairs of names.
        parts: The moments of every edge that has any.

    Raises:
        FlowError: An activation is missing, is not ``[B, C]``, or has changed its width.

    Example:
        >>> moments = CoMoments([("a", "b")])
        >>> moments.update({"a": torch.tensor([[1.0], [3.0]]), "b": torch.tensor([[2.0], [6.0]])})
        >>> part = moments.parts["a", "b"]
        >>> part.n, part.producer.mean.item(), part.producer.m2.item(), part.cxy.item()
        (2, 2.0, 2.0, 4.0)
    """

    def __init__(self, edges: Edges | Sequence[Edge]) -> None:
        self.edges = Edges.of(edges).edges
        self.parts: dict[Edge, EdgeMoments] = {}

    @torch.no_grad()
    def update(self, activations: Mapping[str, Tensor]) -> None:
        """Add a batch: per layer a floating-point tensor ``[B, C]``; other names are ignored."""
        layers = dict.fromkeys(name for edge in self.edges for name in edge)
        _check(activations, tuple(layers))
        if not layers or not all(len(activations[name]) for name in layers):
            return
        taken = {
            # A copy: centring overwrites.
            name: centred(to_float64(activations[name]).clone(), epsilon(activations[name].dtype))
            for name in layers
        }
        for edge in self.edges:
            self.add(edge, taken[edge[0]], taken[edge[1]])

    @torch.no_grad()
    def add(self, edge: Edge, producer: Centred, consumer: Centred) -> None:
        """Add samples of one edge: the same examples at both ends."""
        n = len(producer.values)
        part = self.parts.get(edge)
        if part is None:
            cxy = producer.values.T @ consumer.values
            self.parts[edge] = EdgeMoments(
                n, producer.channels.copy(), consumer.channels.copy(), cxy
            )
            return
        self._shift(edge, part, n, producer.channels, consumer.channels)
        part.cxy.addmm_(producer.values.T, consumer.values)

    @torch.no_grad()
    def absorb(self, edge: Edge, other: EdgeMoments) -> None:
        """Add the moments of other samples of one edge, which stay as they are."""
        part = self.parts.get(edge)
        if part is None:
            self.parts[edge] = other.copy()
            return
        self._shift(edge, part, other.n, other.producer, other.consumer)
        part.cxy += other.cxy

    def merge(self, other: CoMoments) -> CoMoments:
        """Return the moments of both streams together; neither part is changed.

        Raises:
            FlowError: The other part was taken over other edges or other widths.
        """
        if self.edges != other.edges:
            raise FlowError(
                f"CoMoments.merge: expected moments of the same edges, got {list(self.edges)} and "
                f"{list(other.edges)}; measure both parts with the same list"
            )
        merged = CoMoments(self.edges)
        for side in (self, other):
            for edge, part in side.parts.items():
                merged.absorb(edge, part)
        return merged

    def _shift(
        self, edge: Edge, part: EdgeMoments, n: int, producer: Channels, consumer: Channels
    ) -> None:
        """Take in all of the other samples' moments but the products of their deviations."""
        total = part.n + n
        weight = part.n * n / total
        deltas = []
        for name, old, new in zip(edge, part.ends, (producer, consumer), strict=True):
            _check_width(name, len(old.mean), len(new.mean))
            delta = new.mean - old.mean
            old.mean += delta * (n / total)
            old.m2 += new.m2 + delta**2 * weight
            old.eps = max(old.eps, new.eps)
            deltas.append(delta)
        part.cxy.addr_(*deltas, alpha=weight)
        part.n = total


def _check(activations: Mapping[str, Tensor], layers: Sequence[str]) -> None:
    missing = [name for name in layers if name not in activations]
    if missing:
        raise FlowError(
            f"CoMoments.update: expected activations of all of {list(layers)}, got none of "
            f"{missing}; every layer of an edge must run for every batch"
        )
    shapes = {name: tuple(activations[name].shape) for name in layers}
    examples = {shape[:1] for shape in shapes.values()}
    real = all(activations[name].is_floating_point() for name in layers)
    if len(examples) > 1 or any(len(shape) != 2 for shape in shapes.values()) or not real:
        raise FlowError(
            "CoMoments.update: expected real floating-point activations [B, C] with one B for "
            f"all layers, got {shapes}; pool them over their spatial positions first"
        )


def _check_width(name: str, before: int, now: int) -> None:
    if before != now:
        raise FlowError(
            f"CoMoments: expected {before} channels of layer '{name}' as before, got {now}; use "
            "new moments for a changed network"
        )
