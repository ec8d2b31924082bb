"""Centred co-moments of layer activations: streaming, in one pass, mergeable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from infcop.errors import FlowError
from infcop.flow.float64 import to_float64

__all__ = ["CoMoments", "Edge"]

Edge = tuple[str, str]
"""Names of a producer and of the consumer that receives its output."""


class CoMoments:
    r"""Count, means, squared deviations and co-deviations of channels over a stream of batches.

    For a layer :math:`l` with pooled activations :math:`a_l` and an edge :math:`(p, c)`:

    .. math::
        M2_{l,i} = \sum_n (a_{l,ni} - \mu_{l,i})^2, \qquad
        C_{ij} = \sum_n (a_{p,ni} - \mu_{p,i}) (a_{c,nj} - \mu_{c,j}).

    Two parts A and B, with :math:`\delta = \mu_B - \mu_A`, join as (Chan, Golub and LeVeque
    1979; Schubert and Gertz 2018 for the co-deviations)

    .. math::
        \mu = \mu_A + \delta\, n_B / n, \quad
        M2 = M2_A + M2_B + \delta^2\, n_A n_B / n, \quad
        C = C_A + C_B + \delta_p \delta_c^T\, n_A n_B / n.

    Everything is float64, on the device of the activations (on the CPU where that device has no
    float64). Nothing waits for the device: a non-finite activation makes the moments of its
    channel non-finite, which shows when they are read.

    Args:
        edges: Producer and consumer names; a layer may take part in several edges.

    Attributes:
        edges: As given.
        layers: The names in the edges, each once, in order of appearance.
        n: Number of examples so far.
        mean: Per layer, ``[C]``; empty before the first example.
        m2: Per layer, ``[C]``.
        cxy: Per edge, ``[C_producer, C_consumer]``.
        eps: Per layer, the coarsest machine epsilon of the activations (float32 at the finest
            for half types, which are pooled in float32): what counts as rounding noise.

    Raises:
        FlowError: An activation is missing, is not ``[B, C]``, or has changed its width.

    Example:
        >>> moments = CoMoments([("a", "b")])
        >>> moments.update({"a": torch.tensor([[1.0], [3.0]]), "b": torch.tensor([[2.0], [6.0]])})
        >>> moments.n, moments.mean["a"].item(), moments.m2["a"].item()
        (2, 2.0, 2.0)
        >>> moments.cxy["a", "b"].item()
        4.0
    """

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.edges: tuple[Edge, ...] = tuple((producer, consumer) for producer, consumer in edges)
        self.layers = tuple(dict.fromkeys(name for edge in self.edges for name in edge))
        self.n = 0
        self.mean: dict[str, Tensor] = {}
        self.m2: dict[str, Tensor] = {}
        self.cxy: dict[Edge, Tensor] = {}
        self.eps: dict[str, float] = {}

    @torch.no_grad()
    def update(self, activations: Mapping[str, Tensor]) -> None:
        """Add a batch: per layer a floating-point tensor ``[B, C]``; other names are ignored."""
        self._check(activations)
        if self.layers and len(activations[self.layers[0]]):
            self._absorb(_moments_of(self.edges, self.layers, activations))

    @torch.no_grad()
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
        merged._absorb(self)
        merged._absorb(other)
        return merged

    def _absorb(self, other: CoMoments) -> None:
        if other.n == 0:
            return
        if self.n == 0:
            self._copy(other)
            return
        self._check_widths({name: len(mean) for name, mean in other.mean.items()})
        n = self.n + other.n
        weight = self.n * other.n / n
        delta = {name: other.mean[name] - self.mean[name] for name in self.layers}
        for name in self.layers:
            self.mean[name] += delta[name] * (other.n / n)
            self.m2[name] += other.m2[name] + delta[name] ** 2 * weight
            self.eps[name] = max(self.eps[name], other.eps[name])
        for (producer, consumer), cxy in self.cxy.items():
            cxy += other.cxy[producer, consumer]
            cxy.addr_(delta[producer], delta[consumer], alpha=weight)
        self.n = n

    def _copy(self, other: CoMoments) -> None:
        self.n = other.n
        self.mean = {name: value.clone() for name, value in other.mean.items()}
        self.m2 = {name: value.clone() for name, value in other.m2.items()}
        self.cxy = {edge: value.clone() for edge, value in other.cxy.items()}
        self.eps = dict(other.eps)

    def _check(self, activations: Mapping[str, Tensor]) -> None:
        missing = [name for name in self.layers if name not in activations]
        if missing:
            raise FlowError(
                f"CoMoments.update: expected activations of all of {list(self.layers)}, got none "
                f"of {missing}; every layer of an edge must run for every batch"
            )
        shapes = {name: tuple(activations[name].shape) for name in self.layers}
        examples = {shape[:1] for shape in shapes.values()}
        real = all(activations[name].is_floating_point() for name in self.layers)
        if len(examples) > 1 or any(len(shape) != 2 for shape in shapes.values()) or not real:
            raise FlowError(
                "CoMoments.update: expected real floating-point activations [B, C] with one B for "
                f"all layers, got {shapes}; pool them over their spatial positions first"
            )
        self._check_widths({name: shape[1] for name, shape in shapes.items()})

    def _check_widths(self, widths: Mapping[str, int]) -> None:
        for name, mean in self.mean.items():
            if len(mean) != widths[name]:
                raise FlowError(
                    f"CoMoments: expected {len(mean)} channels of layer '{name}' as before, got "
                    f"{widths[name]}; use new moments for a changed network"
                )


def _moments_of(
    edges: Sequence[Edge], layers: Sequence[str], activations: Mapping[str, Tensor]
) -> CoMoments:
    """Return the moments of one batch, by the two-pass formula."""
    batch = CoMoments(edges)
    batch.n = len(activations[layers[0]])
    device = to_float64(activations[layers[0]]).device
    centred: dict[str, Tensor] = {}
    for name in layers:
        values = to_float64(activations[name]).to(device)
        # Measured from the first example, a constant channel has mean and deviation without any
        # rounding, and a mean far from zero costs no digits.
        first = values[0]
        shift = values - first
        offset = shift.mean(dim=0)
        centred[name] = shift - offset
        batch.mean[name] = first + offset
        batch.m2[name] = centred[name].square().sum(dim=0)
        batch.eps[name] = _epsilon(activations[name].dtype)
    for producer, consumer in batch.edges:
        batch.cxy[producer, consumer] = centred[producer].T @ centred[consumer]
    return batch


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(torch.promote_types(dtype, torch.float32)).eps
