"""Gradient flow: how strongly the loss pulls on each prunable tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.flow.float64 import to_float64

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
    return to_float64(gradient).square().sum().sqrt()


def gradient_mean(gradient: Tensor) -> Tensor:
    r"""Return the mean of :math:`|G|` over all entries, a float64 scalar >= 0.

    Example:
        >>> gradient_mean(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
        tensor(1.7500, dtype=torch.float64)
    """
    return to_float64(gradient).abs().mean()


def batch_gradients(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient of a batch's mean loss, without touching ``.grad``.

    A parameter that the loss does not use has gradient zero.

    Raises:
        FlowError: The loss is no scalar or has no gradient.

    Example:
        >>> weight = torch.tensor([2.0], requires_grad=True)
        >>> batch_gradients((weight**2).sum(), {"weight": weight})
        {'weight': tensor([4.])}
    """
    if loss.ndim != 0 or not loss.requires_grad:
        raise FlowError(
            "gradient flow: expected task.training_step to return a scalar loss with a gradient, "
            f"got shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}; return the mean "
            "loss undetached, and measure outside torch.inference_mode"
        )
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, gradients, strict=True))


class GradientStatistics(Protocol):
    """Takes the gradients of batches one by one; gives one number per tensor at the end."""

    def update(self, gradients: Mapping[str, Tensor], examples: int) -> None:
        """Add the gradients of the mean loss of a batch of so many examples."""
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
        self._masks = masks
        self._sums: dict[str, Tensor] = {}
        self._examples = 0

    def update(self, gradients: Mapping[str, Tensor], examples: int) -> None:
        """Add the gradients of the mean loss of a batch of so many examples."""
        self._examples += examples
        for name, gradient in gradients.items():
            share = to_float64(gradient) * examples
            self._sums[name] = self._sums[name].add_(share) if name in self._sums else share

    def norm(self) -> tuple[float, ...]:
        """Return the norms, in the order of the tensors."""
        return tuple(float(gradient_norm(gradient)) for gradient in self._gradients())

    def mean(self) -> tuple[float, ...]:
        """Return the mean absolute entries, in the order of the tensors."""
        return tuple(float(gradient_mean(gradient)) for gradient in self._gradients())

    def _gradients(self) -> list[Tensor]:
        return [
            _masked(total / self._examples, name, self._masks) for name, total in self._sums.items()
        ]


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
        self._masks = masks
        self._norms: dict[str, Tensor] = {}
        self._means: dict[str, Tensor] = {}
        self._batches = 0

    def update(self, gradients: Mapping[str, Tensor], examples: int) -> None:
        """Add the gradients of the mean loss of a batch, however many its examples."""
        self._batches += 1
        for name, gradient in gradients.items():
            kept = _masked(gradient, name, self._masks)
            self._norms[name] = self._norms.get(name, 0) + gradient_norm(kept)
            self._means[name] = self._means.get(name, 0) + gradient_mean(kept)

    def norm(self) -> tuple[float, ...]:
        """Return the average norms, in the order of the tensors."""
        return tuple(float(total) / self._batches for total in self._norms.values())

    def mean(self) -> tuple[float, ...]:
        """Return the average mean absolute entries, in the order of the tensors."""
        return tuple(float(total) / self._batches for total in self._means.values())


def _masked(gradient: Tensor, name: str, masks: Masks | None) -> Tensor:
    if masks is None:
        return gradient
    if name not in masks or masks[name].shape != gradient.shape:
        found = f"shape {tuple(masks[name].shape)}" if name in masks else "none"
        raise FlowError(
            f"gradient flow: expected a mask of shape {tuple(gradient.shape)} for '{name}', got "
            f"{found}; {did_you_mean(name, masks)}"
        )
    # Not a product: a pruned entry counts 0 even where its gradient is not finite.
    return gradient.masked_fill(~masks[name].to(gradient.device), 0)
