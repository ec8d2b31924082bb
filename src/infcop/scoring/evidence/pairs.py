"""Correlations of the inputs of a layer with its outputs, over a stream of examples."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PairMoments"]

_CONSTANT = 8.0
"""A unit whose deviation is at most so many machine epsilons of its mean counts as constant: that
is what rounding alone can make of one."""


class PairMoments:
    r"""Means, squared deviations and products of deviations of inputs and outputs.

    Parts A and B of the examples, with :math:`\delta = \mu_B - \mu_A`, join as (Chan, Golub and
    LeVeque 1979)

    .. math::
        M2 = M2_A + M2_B + \delta^2 n_A n_B / n, \qquad
        C = C_A + C_B + \delta_x \delta_y^T n_A n_B / n,

    so means far from zero cost no digits, and the split into batches does not matter.

    Args:
        groups: Groups of a convolution; inputs and outputs of different groups are no pairs.

    Example:
        >>> moments = PairMoments(groups=1)
        >>> x = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
        >>> moments.add(x, -x, eps=1e-16)
        >>> moments.correlations()
        tensor([[[-1.]]], dtype=torch.float64)
    """

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self.examples = 0
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._products = torch.zeros(())
        self._eps = 0.0

    @torch.no_grad()
    def add(self, inputs: Tensor, outputs: Tensor, eps: float) -> None:
        """Take in a batch.

        Args:
            inputs: ``[B, G * I]``, float64.
            outputs: ``[B, G * O]``, float64.
            eps: The machine epsilon of the numbers that these were averaged from.
        """
        count = len(inputs)
        means, deviations = zip(*(self._centred(v) for v in (inputs, outputs)), strict=True)
        squares = [d.square().sum(dim=1) for d in deviations]
        products = deviations[0].mT @ deviations[1]
        self._eps = max(self._eps, eps)
        if self.examples:
            total = self.examples + count
            weight = self.examples * count / total
            deltas = [new - old for new, old in zip(means, self._means, strict=True)]
            means = tuple(m + d * (count / total) for m, d in zip(self._means, deltas, strict=True))
            squares = [
                one + other + delta.square() * weight
                for one, other, delta in zip(squares, self._squares, deltas, strict=True)
            ]
            products += self._products + deltas[0][:, :, None] * deltas[1][:, None] * weight
        self._means, self._squares, self._products = list(means), squares, products
        self.examples += count

    def correlations(self) -> Tensor:
        """Return Pearson's correlations, ``[G, I, O]`` in [-1, 1]; 0 for constant units.

        A unit with a value that is not finite has NaN.
        """
        scales = []
        for mean, squares in zip(self._means, self._squares, strict=True):
            deviation = (squares / self.examples).sqrt()
            # Written so that NaN compares false: it must stay visible.
            constant = deviation <= _CONSTANT * self._eps * mean.abs()
            scales.append(torch.where(constant, torch.zeros_like(mean), 1 / deviation))
        found = self._products / self.examples * scales[0][:, :, None] * scales[1][:, None]
        return found.clamp(-1, 1)

    def _centred(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return means ``[G, C]`` and deviations ``[G, B, C]``."""
        grouped = values.reshape(len(values), self._groups, -1).transpose(0, 1)
        # From the first example: a constant unit then has no deviation at all.
        first = grouped[:, :1]
        moved = grouped - first
        offset = moved.mean(dim=1, keepdim=True)
        return (first + offset)[:, 0], moved - offset
