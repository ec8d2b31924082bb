"""The gradient of the mean loss over all examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infcop.errors import PruningError
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.measuring import measuring
from infcop.scoring.evidence.nodes import nodes_behind
from infcop.scoring.evidence.wide import wide

__all__ = ["WeightedMean", "loss_gradients", "mean_gradient"]


class WeightedMean:
    """The mean over examples of what batches give as their own means, in float64.

    Example:
        >>> mean = WeightedMean()
        >>> mean.add({"w": torch.tensor([4.0])}, examples=1)
        >>> mean.add({"w": torch.tensor([-2.0])}, examples=2)
        >>> mean.examples, mean.values()
        (3, {'w': tensor([0.], dtype=torch.float64)})
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.examples = 0

    @torch.no_grad()
    def add(self, means: Mapping[str, Tensor], examples: int) -> None:
        """Take in the means of a batch of so many examples."""
        self.examples += examples
        for name, mean in means.items():
            if name in self._sums:
                self._sums[name].add_(wide(mean), alpha=examples)
            else:
                self._sums[name] = wide(mean) * examples

    def values(self) -> dict[str, Tensor]:
        """Return the means over all examples."""
        return {name: total / self.examples for name, total in self._sums.items()}


def loss_gradients(
    loss: Tensor, parameters: Mapping[str, Tensor], *, create_graph: bool = False
) -> dict[str, Tensor]:
    """Return the gradient of a batch's mean loss, without touching ``.grad``.

    A parameter that the loss does not use has gradient zero.

    Raises:
        PruningError: The loss is no scalar or has no gradient, or part of it is inside a reentrant
            activation checkpoint.

    Example:
        >>> weight = torch.tensor([2.0], requires_grad=True)
        >>> loss_gradients((weight**2).sum(), {"weight": weight})
        {'weight': tensor([4.])}
    """
    if loss.ndim != 0 or not loss.requires_grad:
        raise PruningError(
            "scoring: expected task.training_step to return a scalar loss with a gradient, got "
            f"shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}; return the mean loss "
            "undetached, computed from trainable parameters"
        )
    _refuse_reentrant_checkpoints(loss)
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(parameters, gradients, strict=True))


def mean_gradient(
    model: nn.Module, parameters: Mapping[str, Tensor], examples: Examples, *, train: bool
) -> WeightedMean:
    r"""Return :math:`\frac{1}{N} \sum_b B_b \, \partial L_b / \partial w`, summed in float64.

    So it does not depend on how the examples are split into batches, beyond the rounding of each
    batch's own gradient. With batch statistics it does: every batch is then normalised by itself.

    Args:
        model: The model.
        parameters: Its weights by name.
        examples: What the loss is computed on.
        train: Whether in training mode.

    Raises:
        PruningError: There is no example, or no gradient can be had.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(2, 2)
        >>> batch = (torch.ones(3, 2), torch.tensor([0, 1, 1]))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch, batch], seed=0)
        >>> mean_gradient(model, {"weight": model.weight}, examples, train=False).examples
        6
    """
    mean = WeightedMean()
    with measuring(model, train=train, gradients=True):
        for size, batch in examples:
            mean.add(loss_gradients(examples.task.training_step(model, batch), parameters), size)
    return mean


def _refuse_reentrant_checkpoints(loss: Tensor) -> None:
    """Such a checkpoint hides what is inside it: its parameters would seem to have no gradient."""
    if any(node.name() == "CheckpointFunctionBackward" for node in nodes_behind([loss])):
        raise PruningError(
            "scoring: expected activation checkpoints with use_reentrant=False, got a reentrant "
            "one, which hides the gradients of the layers inside; change it"
        )
