"""Information flow: how strongly neighbouring layers move together."""

from __future__ import annotations

from torch import Tensor, where, zeros_like

from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.flow.moments import CoMoments, Edge

__all__ = ["DEAD_TOLERANCE", "absolute_mean", "correlation", "dead_units", "signed_mean"]

DEAD_TOLERANCE = 8.0
"""A channel is dead if its standard deviation is at most this many machine epsilons of its mean:
what rounding alone can make of a constant."""


def correlation(moments: CoMoments, edge: Edge) -> Tensor:
    r"""Return the population correlations between the channels of an edge.

    .. math::
        R_{ij} = \frac{1}{N} \sum_n
            \frac{(a_{p,ni} - \mu_{p,i}) (a_{c,nj} - \mu_{c,j})}{s_{p,i}\, s_{c,j}}

    (reconstructed from the public code of arXiv 2501.15592, not from its text). The row or column
    of a dead channel (see :data:`DEAD_TOLERANCE`) is 0. A channel with a non-finite activation
    gives NaN.

    Returns:
        float64, ``[C_producer, C_consumer]``, in [-1, 1] up to rounding.

    Raises:
        FlowError: The edge was not measured, or on fewer than two examples.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> moments.update({"a": torch.tensor([[1.0], [3.0]]), "b": torch.tensor([[5.0], [4.0]])})
        >>> correlation(moments, ("a", "b"))
        tensor([[-1.]], dtype=torch.float64)
    """
    if edge not in moments.edges:
        names = did_you_mean(" -> ".join(edge), (" -> ".join(known) for known in moments.edges))
        raise FlowError(f"correlation: edge {edge} was not measured; {names}")
    _check_examples(moments)
    producer, consumer = edge
    covariance = moments.cxy[edge] / moments.n
    rows, columns = _inverse_deviation(moments, producer), _inverse_deviation(moments, consumer)
    return covariance * rows[:, None] * columns


def signed_mean(moments: CoMoments) -> tuple[float, ...]:
    r"""Return the mean correlation of every edge, :math:`\Delta_l`, in [-1, 1].

    .. math::
        \Delta_l = \frac{1}{C_p C_c} \sum_{ij} R_{ij}
            = \frac{1}{N} \sum_n \bar z_{p,n}\, \bar z_{c,n}

    with :math:`\bar z_n` the mean over channels of the standardised activations. Dead channels
    count in the denominator. What cancels across channels can't be seen in it.

    Raises:
        FlowError: Fewer than two examples were measured.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> step = torch.tensor([[1.0], [3.0]])
        >>> moments.update({"a": step, "b": torch.cat([step, torch.zeros(2, 1)], dim=1)})
        >>> signed_mean(moments)
        (0.5,)
    """
    return tuple(float(correlation(moments, edge).mean()) for edge in moments.edges)


def absolute_mean(moments: CoMoments) -> tuple[float, ...]:
    r"""Return the mean absolute correlation of every edge, in [0, 1].

    .. math:: \frac{1}{C_p C_c} \sum_{ij} |R_{ij}|

    Unlike :func:`signed_mean` it does not change with the sign of a channel. Its value for
    independent channels is not 0 but about :math:`\sqrt{2 / (\pi N)}`.

    Raises:
        FlowError: Fewer than two examples were measured.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> step = torch.tensor([[1.0], [3.0]])
        >>> moments.update({"a": step, "b": torch.cat([step, -step], dim=1)})
        >>> signed_mean(moments), absolute_mean(moments)
        ((0.0,), (1.0,))
    """
    return tuple(float(correlation(moments, edge).abs().mean()) for edge in moments.edges)


def dead_units(moments: CoMoments) -> dict[str, int]:
    """Return per layer how many channels did not vary over the examples.

    A channel is dead if ``deviation <= DEAD_TOLERANCE * eps * |mean|``, with ``eps`` the machine
    epsilon of its activations. A non-finite channel is not dead.

    Raises:
        FlowError: Fewer than two examples were measured.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> moments.update({"a": torch.tensor([[1.0, 7.0], [2.0, 7.0]]), "b": torch.zeros(2, 3)})
        >>> dead_units(moments)
        {'a': 1, 'b': 3}
    """
    _check_examples(moments)
    return {name: int(_dead(moments, name).sum()) for name in moments.layers}


def _dead(moments: CoMoments, layer: str) -> Tensor:
    tolerance = DEAD_TOLERANCE * moments.eps[layer] * moments.mean[layer].abs()
    # Written so that NaN compares false: a non-finite channel must stay visible as NaN.
    return _deviation(moments, layer) <= tolerance


def _deviation(moments: CoMoments, layer: str) -> Tensor:
    return (moments.m2[layer] / moments.n).sqrt()


def _inverse_deviation(moments: CoMoments, layer: str) -> Tensor:
    deviation = _deviation(moments, layer)
    return where(_dead(moments, layer), zeros_like(deviation), 1 / deviation)


def _check_examples(moments: CoMoments) -> None:
    if moments.n < 2:
        raise FlowError(
            f"information flow: expected at least two examples, got {moments.n}; one example "
            "has no correlations, so give a larger probe"
        )
