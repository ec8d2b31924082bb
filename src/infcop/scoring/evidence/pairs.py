"""Correlations of the inputs of a layer with its outputs, over a stream of examples."""

from __future__ import annotations

import torch
from torch import Tensor

from infcop.core.spread import centre, is_constant

__all__ = ["PairMoments"]


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

    @classmethod
    def unpacked(cls, flat: Tensor) -> PairMoments:
        """Return the moments that :meth:`packed` has made a vector of."""
        examples, groups, inputs, outputs = (int(value) for value in flat[:4].tolist())
        moments = cls(groups)
        moments.examples, moments._eps = examples, float(flat[4])
        widths = (inputs, outputs)
        sizes = [groups * width for width in (*widths, *widths, inputs * outputs)]
        *ends, products = flat[5:].split_with_sizes(sizes)
        shaped = [end.reshape(groups, -1) for end in ends]
        moments._means, moments._squares = shaped[:2], shaped[2:]
        moments._products = products.reshape(groups, inputs, outputs)
        return moments

    def packed(self) -> Tensor:
        """Return everything as one vector, float64."""
        groups, inputs, outputs = self._products.shape
        head = [self.examples, groups, inputs, outputs, self._eps]
        tensors = (*self._means, *self._squares, self._products)
        return torch.cat([tensors[0].new_tensor(head), *(t.flatten() for t in tensors)])

    @torch.no_grad()
    def add(self, inputs: Tensor, outputs: Tensor, eps: float) -> None:
        """Take in a batch.

        Args:
            inputs: ``[B, G * I]``, float64.
            outputs: ``[B, G * O]``, float64.
            eps: The machine epsilon of the numbers that these were averaged from.
        """
        part = PairMoments(self._groups)
        part.examples, part._eps = len(inputs), eps
        means, deviations = zip(*(self._centred(v) for v in (inputs, outputs)), strict=True)
        part._means, part._squares = list(means), [d.square().sum(dim=1) for d in deviations]
        part._products = deviations[0].mT @ deviations[1]
        self.absorb(part)

    @torch.no_grad()
    def absorb(self, other: PairMoments) -> None:
        """Take in the moments of other examples, which stay as they are.

        Entry by entry, so that the same parts give the same bits everywhere.
        """
        means, squares, products = other._means, other._squares, other._products
        if self.examples:
            total = self.examples + other.examples
            weight = self.examples * other.examples / total
            deltas = [new - old for new, old in zip(means, self._means, strict=True)]
            share = other.examples / total
            means = [m + d * share for m, d in zip(self._means, deltas, strict=True)]
            squares = [
                new + old + delta.square() * weight
                for new, old, delta in zip(squares, self._squares, deltas, strict=True)
            ]
            moved = deltas[0][:, :, None] * deltas[1][:, None] * weight
            products = products + (self._products + moved)
        self._means, self._squares, self._products = means, squares, products
        self._eps = max(self._eps, other._eps)
        self.examples += other.examples

    def correlations(self) -> Tensor:
        """Return Pearson's correlations, ``[G, I, O]`` in [-1, 1]; 0 for constant units.

        A unit with a value that is not finite has NaN.
        """
        scales = []
        for mean, squares in zip(self._means, self._squares, strict=True):
            deviation = (squares / self.examples).sqrt()
            constant = is_constant(mean, deviation, self._eps)
            scales.append(torch.where(constant, torch.zeros_like(mean), 1 / deviation))
        found = self._products / self.examples * scales[0][:, :, None] * scales[1][:, None]
        return found.clamp(-1, 1)

    def _centred(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return means ``[G, C]`` and deviations ``[G, B, C]``."""
        # A copy: centring overwrites.
        deviations = values.clone()
        means = centre(deviations).reshape(self._groups, -1)
        return means, deviations.reshape(len(values), self._groups, -1).transpose(0, 1)
