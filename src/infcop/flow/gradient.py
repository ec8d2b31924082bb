"""Gradient flow: how strongly the loss pulls on each prunable tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from infcop.core.float64 import to_float64
from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.models.gradients import loss_gradients

__all__ = [
    "FullGradient",
    "GradientStatistics",
    "PerBatchGradient",
    "batch_gradients",
    "gradient_mean",
    "gradient_norm",
]


def gradient_norm(gradient: Tensor) -> Tensor:
    r"""Return the Frobenius norm :math:`\|G\|_F` of a gradient, a float64 scalar >= 0.

    Example:
        >>> gradient_norm(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        tensor(5., dtype=torch.float64)
    """
    norm: Tensor = torch.linalg.vector_norm(_reducible(gradient), dtype=torch.float64)
    return norm


def gradient_mean(gradient: Tensor) -> Tensor:
    r"""Return the mean of :math:`|G|` over all entries, a float64 scalar >= 0.

    Example:
        >>> gradient_mean(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
        tensor(1.7500, dtype=torch.float64)
    """
    total: Tensor = torch.linalg.vector_norm(_reducible(gradient), 1, dtype=torch.float64)
    return total / gradient.numel()


def _reducible(gradient: Tensor) -> Tensor:
    """Return a gradient where it can be reduced in float64, without making a copy in float64."""
    return to_float64(gradient) if gradient.device.type == "mps" else gradient


def batch_gradients(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient of a batch's mean loss, without touching ``.grad``.

    A parameter that the loss does not use has gradient zero.

    Raises:
        FlowError: The loss is no scalar or has no gradient, or part of it is inside a reentrant
            activation checkpoint.

    Example:
        >>> weight = torch.tensor([2.0], requires_grad=True)
        >>> batch_gradients((weight**2).sum(), {"weight": weight})
        {'weight': tensor([4.])}
    """
    return loss_gradients(loss, parameters, failed=_no_gradient)


def _no_gradient(sentence: str) -> FlowError:
    return FlowError(f"gradient flow: {sentence}, or read from training")


class GradientStatistics(Protocol):
    """Takes the gradients of batches one by one; gives one number per tensor at the end."""

    count: int
    """Examples of ``full``, batches of ``per-batch``."""

    def update(self, gradients: Mapping[str, Tensor], examples: int) -> None:
        """Add the gradients of the mean loss of a batch of so many examples."""
        ...

    def sums(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums that divided by ``count`` give the statistics, to be added up.

        Where nothing was added, they are zeros shaped and placed like the parameters.
        """
        ...

    def with_sums(self, sums: Mapping[str, Tensor], count: int) -> GradientStatistics:
        """Return the statistics that such sums and such a count give."""
        ...

    def norm(self) -> tuple[float, ...]:
        """Return the norms, in the order of the tensors."""
        ...

    def mean(self) -> tuple[float, ...]:
        """Return the mean absolute entries, in the order of the tensors."""
        ...


class FullGradient:
    r"""Statistics of the gradient of the mean loss over all examples.

    .. math::
        G_k = m_k \odot \frac{1}{N} \sum_b B_b \frac{\partial L_b}{\partial W_k},
        \qquad g_k = \|G_k\|_F \text{ or } \overline{|G_k|}

    summed in float64, so it does not depend on how the examples are split into batches.

    Args:
        masks: Pruned entries count 0; ``None`` where nothing is pruned.

    Example:
        >>> full = FullGradient(None)
        >>> full.update({"w": torch.tensor([4.0])}, examples=1)
        >>> full.update({"w": torch.tensor([-2.0])}, examples=2)
        >>> full.norm()
        (0.0,)
    """

    def __init__(self, masks: Masks | None) -> None:
        self._pruned = _Pruned(masks)
        self._sums: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor], examples: int) -> None:
        """Add the gradients of the mean loss of a batch of so many examples."""
        self.count += examples
        for name, gradient in gradients.items():
            wide = to_float64(gradient)
            if name in self._sums:
                self._sums[name].add_(wide, alpha=examples)
            else:
                self._sums[name] = wide * examples

    def sums(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of the gradients; zeros where nothing was added."""
        return {
            name: self._sums[name] if name in self._sums else torch.zeros_like(to_float64(p))
            for name, p in parameters.items()
        }

    def with_sums(self, sums: Mapping[str, Tensor], count: int) -> FullGradient:
        """Return the statistics that such sums and such a count give."""
        other = FullGradient(self._pruned.masks)
        other._sums, other.count = dict(sums), count
        return other

    def norm(self) -> tuple[float, ...]:
        """Return the norms, in the order of the tensors."""
        return tuple(float(gradient_norm(total)) / self.count for total in self._kept())

    def mean(self) -> tuple[float, ...]:
        """Return the mean absolute entries, in the order of the tensors."""
        return tuple(float(gradient_mean(total)) / self.count for total in self._kept())

    def _kept(self) -> Iterator[Tensor]:
        # Divided by the count at the end: as many numbers as tensors instead of entries.
        for name, total in self._sums.items():
            yield self._pruned.taken_out(name, total)


class PerBatchGradient:
    r"""Average over batches of the statistics of each batch's gradient.

    .. math::
        g_k = \frac{1}{n_b} \sum_b \| m_k \odot \partial L_b / \partial W_k \|_F

    It depends on how the examples are split: smaller batches have noisier, longer gradients.

    Args:
        masks: Pruned entries count 0; ``None`` where nothing is pruned.

    Example:
        >>> per_batch = PerBatchGradient(None)
        >>> per_batch.update({"w": torch.tensor([4.0])}, examples=1)
        >>> per_batch.update({"w": torch.tensor([-2.0])}, examples=2)
        >>> per_batch.norm()
        (3.0,)
    """

    def __init__(self, masks: Masks | None) -> None:
        self._pruned = _Pruned(masks)
        self._totals: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor], examples: int) -> None:
        """Add the gradients of the mean loss of a batch, however many its examples."""
        self.count += 1
        for name, gradient in gradients.items():
            kept = self._pruned.taken_out(name, gradient)
            both = torch.stack([gradient_norm(kept), gradient_mean(kept)])
            self._totals[name] = self._totals[name] + both if name in self._totals else both

    def sums(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return per tensor the sums of norm and mean; zeros where nothing was added."""
        return {
            name: self._totals[name] if name in self._totals else to_float64(p.new_zeros(2))
            for name, p in parameters.items()
        }

    def with_sums(self, sums: Mapping[str, Tensor], count: int) -> PerBatchGradient:
        """Return the statistics that such sums and such a count give."""
        other = PerBatchGradient(self._pruned.masks)
        other._totals, other.count = dict(sums), count
        return other

    def norm(self) -> tuple[float, ...]:
        """Return the average norms, in the order of the tensors."""
        return tuple(float(total[0]) / self.count for total in self._totals.values())

    def mean(self) -> tuple[float, ...]:
        """Return the average mean absolute entries, in the order of the tensors."""
        return tuple(float(total[1]) / self.count for total in self._totals.values())


class _Pruned:
    """Takes the pruned entries out of gradients; keeps them where the gradients are."""

    def __init__(self, masks: Masks | None) -> None:
        self.masks = masks
        self._entries: dict[str, Tensor] = {}

    def taken_out(self, name: str, gradient: Tensor) -> Tensor:
        if self.masks is None:
            return gradient
        if name not in self._entries:
            self._entries[name] = _entries(self.masks, name, gradient)
        # Not a product: a pruned entry counts 0 even where its gradient is not finite.
        return gradient.masked_fill(self._entries[name], 0)


def _entries(masks: Masks, name: str, gradient: Tensor) -> Tensor:
    if name not in masks or masks[name].shape != gradient.shape:
        found = f"shape {tuple(masks[name].shape)}" if name in masks else "none"
        raise FlowError(
            f"gradient flow: expected a mask of shape {tuple(gradient.shape)} for '{name}', got "
            f"{found}; {did_you_mean(name, masks)}"
        )
    return ~masks[name].to(gradient.device)
