"""Information flow: how strongly neighbouring layers move together."""

from __future__ import annotations

from torch import Tensor, linalg, where, zeros_like

from infcop.core.edges import Edge
from infcop.core.names import did_you_mean
from infcop.core.spread import is_constant
from infcop.errors import FlowError
from infcop.flow.moments import Channels, CoMoments, EdgeMoments

__all__ = [
    "absolute_mean",
    "alignment",
    "both_means",
    "correlation",
    "dead_channels",
    "dead_units",
    "effective_rank",
    "inverse_deviation",
    "signed_mean",
]


def correlation(moments: CoMoments, edge: Edge) -> Tensor:
    r"""Return the population correlations between the channels of an edge.

    .. math::
        R_{ij} = \frac{1}{N} \sum_n
            \frac{(a_{p,ni} - \mu_{p,i}) (a_{c,nj} - \mu_{c,j})}{s_{p,i}\, s_{c,j}}

    (reconstructed from the public code of arXiv 2501.15592, not from its text). The row or column
    of a dead channel (see :func:`dead_units`) is 0. A channel with a non-finite activation
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
    part = _part(moments, edge)
    rows = inverse_deviation(part.producer, part.n)
    columns = inverse_deviation(part.consumer, part.n)
    return (part.cxy / part.n).mul_(rows[:, None]).mul_(columns)


def signed_mean(moments: CoMoments) -> tuple[float, ...]:
    r"""Return the mean correlation of every edge, :math:`\Delta_l`, in [-1, 1].

    .. math::
        \Delta_l = \frac{1}{C_p C_c} \sum_{ij} R_{ij}
            = \frac{1}{N} \sum_n \bar z_{p,n}\, \bar z_{c,n}

    with :math:`\bar z_n` the mean over channels of the standardised activations. Dead channels
    count in the denominator. What cancels across channels can't be seen in it.

    Raises:
        FlowError: An edge was measured on fewer than two examples.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> step = torch.tensor([[1.0], [3.0]])
        >>> moments.update({"a": step, "b": torch.cat([step, torch.zeros(2, 1)], dim=1)})
        >>> signed_mean(moments)
        (0.5,)
    """
    return both_means(moments)[0]


def absolute_mean(moments: CoMoments) -> tuple[float, ...]:
    r"""Return the mean absolute correlation of every edge, in [0, 1].

    .. math:: \frac{1}{C_p C_c} \sum_{ij} |R_{ij}|

    Unlike :func:`signed_mean` it does not change with the sign of a channel. Its value for
    independent channels is not 0 but about :math:`\sqrt{2 / (\pi N)}`.

    Raises:
        FlowError: An edge was measured on fewer than two examples.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> step = torch.tensor([[1.0], [3.0]])
        >>> moments.update({"a": step, "b": torch.cat([step, -step], dim=1)})
        >>> signed_mean(moments), absolute_mean(moments)
        ((0.0,), (1.0,))
    """
    return both_means(moments)[1]


def both_means(moments: CoMoments) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the signed and the absolute means, each matrix being computed once."""
    signed, absolute = [], []
    for edge in moments.edges:
        matrix = correlation(moments, edge)
        signed.append(matrix.mean())
        absolute.append(matrix.abs_().mean())
    return tuple(map(float, signed)), tuple(map(float, absolute))


def alignment(moments: CoMoments, own: tuple[CoMoments, CoMoments]) -> tuple[float, ...]:
    r"""Return the linear CKA of the two ends of every edge, in [0, 1].

    .. math:: \frac{\|R_{pc}\|_F^2}{\|R_{pp}\|_F \|R_{cc}\|_F}

    (Kornblith et al. 2019, arXiv 1905.00414, equation for linear kernels, on standardised
    activations.) It does not change when units are permuted or change their sign, so networks
    whose units have other places can be compared by it. 0 where an end is all dead.

    Args:
        moments: Of the edges.
        own: Of every producer with itself, and of every consumer with itself.

    Raises:
        FlowError: An edge was measured on fewer than two examples.

    Example:
        >>> import torch
        >>> moments, *own = (CoMoments([("a", "b")]) for _ in range(3))
        >>> step = torch.tensor([[1.0], [3.0]])
        >>> for part in (moments, *own):
        ...     part.update({"a": step, "b": -step})
        >>> alignment(moments, tuple(own))
        (1.0,)
    """
    found = []
    for edge in moments.edges:
        across = correlation(moments, edge).square().sum()
        norms = [correlation(part, edge).square().sum().sqrt() for part in own]
        found.append(float(across / (norms[0] * norms[1])) if norms[0] * norms[1] != 0 else 0.0)
    return tuple(found)


def effective_rank(moments: CoMoments) -> tuple[float, ...]:
    r"""Return of every edge how many independent directions its correlation matrix has.

    .. math::
        \operatorname{erank}(R) = \exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad
        p_k = \sigma_k / \textstyle\sum_m \sigma_m

    with the singular values :math:`\sigma_k` of :math:`R` (Roy and Vetterli 2007). Between 1 and
    ``min(C_p, C_c)``; 0 where all is dead, NaN where an activation was not finite. Costs a
    singular value decomposition per edge, on the CPU.

    Raises:
        FlowError: An edge was measured on fewer than two examples.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> both = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> moments.update({"a": both, "b": both})
        >>> round(effective_rank(moments)[0], 6)
        2.0
    """
    return tuple(_effective_rank(correlation(moments, edge).cpu()) for edge in moments.edges)


def dead_units(moments: CoMoments) -> dict[str, int]:
    """Return per layer how many channels did not vary over the examples.

    A channel is dead if ``deviation <= 8 * eps * |mean|``, with ``eps`` the machine epsilon of its
    activations, at every edge of its layer. A non-finite channel is not dead.

    Raises:
        FlowError: An edge was measured on fewer than two examples.

    Example:
        >>> import torch
        >>> moments = CoMoments([("a", "b")])
        >>> moments.update({"a": torch.tensor([[1.0, 7.0], [2.0, 7.0]]), "b": torch.zeros(2, 3)})
        >>> dead_units(moments)
        {'a': 1, 'b': 3}
    """
    dead: dict[str, Tensor] = {}
    for edge in moments.edges:
        part = _part(moments, edge)
        for name, end in zip(edge, part.ends, strict=True):
            here = dead_channels(end, part.n)
            dead[name] = dead[name] & here if name in dead else here
    return {name: int(channels.sum()) for name, channels in dead.items()}


def dead_channels(end: Channels, n: int) -> Tensor:
    """Return which channels of one end of an edge did not vary, ``[C]`` of bool."""
    return is_constant(end.mean, (end.m2 / n).sqrt(), end.eps)


def inverse_deviation(end: Channels, n: int) -> Tensor:
    """Return one over the standard deviations, 0 for dead channels; ``[C]``."""
    deviation = (end.m2 / n).sqrt()
    return where(dead_channels(end, n), zeros_like(deviation), 1 / deviation)


def _effective_rank(matrix: Tensor) -> float:
    if not bool(matrix.isfinite().all()):
        return float("nan")
    values = linalg.svdvals(matrix)
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values / total
    shares = shares[shares > 0]
    return float((-(shares * shares.log()).sum()).exp())


def _part(moments: CoMoments, edge: Edge) -> EdgeMoments:
    if edge not in moments.edges:
        names = did_you_mean(" -> ".join(edge), (" -> ".join(known) for known in moments.edges))
        raise FlowError(f"correlation: edge {edge} was not measured; {names}")
    part = moments.parts.get(edge)
    if part is None or part.n < 2:
        raise FlowError(
            f"information flow: expected at least two examples of {edge[0]} -> {edge[1]}, got "
            f"{0 if part is None else part.n}; one example has no correlations, so give a larger "
            "probe, and leave the edge out if its layers do not run"
        )
    return part
