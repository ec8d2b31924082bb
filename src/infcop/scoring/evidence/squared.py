"""The mean squared gradient of single examples: the diagonal of the empirical Fisher matrix."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infcop.core.float64 import to_float64
from infcop.models.gradients import loss_gradients
from infcop.scoring.evidence.examples import Examples, single_examples
from infcop.scoring.evidence.gradient import WeightedMean, no_gradient
from infcop.scoring.evidence.measuring import measuring

__all__ = ["squared_gradient"]


def squared_gradient(
    model: nn.Module, parameters: Mapping[str, Tensor], examples: Examples
) -> WeightedMean:
    r"""Return :math:`\frac{1}{N} \sum_n (\partial L_n / \partial w)^2`, in evaluation mode.

    One backward pass for every example, so neither the order nor the batches matter, nor which
    process has which.

    Args:
        model: The model.
        parameters: Its weights by name.
        examples: What the loss is computed on.

    Raises:
        PruningError: There is no example, a batch can't be cut into examples, or no gradient can
            be had.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(2, 2)
        >>> batch = (torch.ones(3, 2), torch.tensor([0, 1, 1]))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> found = squared_gradient(model, {"weight": model.weight}, examples)
        >>> bool((found.values()["weight"] >= 0).all())
        True
    """
    mean = WeightedMean()
    task = examples.task
    with measuring(model, train=False, gradients=True):
        for size, batch in examples:
            for one in single_examples(task, batch, size):
                loss = task.training_step(model, one)
                gradients = loss_gradients(loss, parameters, failed=no_gradient)
                mean.add({name: _squared(g) for name, g in gradients.items()}, examples=1)
    return mean.joined(parameters, examples.together)


@torch.no_grad()
def _squared(gradient: Tensor) -> Tensor:
    # Squared in float64: small gradients must not vanish.
    return to_float64(gradient).square()
