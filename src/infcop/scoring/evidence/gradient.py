"""The gradient of the mean loss over all examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infcop.core.float64 import to_float64
from infcop.errors import PruningError
from infcop.models.gradients import loss_gradients
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.measuring import measuring
from infcop.scoring.evidence.together import Together

__all__ = ["WeightedMean", "mean_gradient", "no_gradient"]


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
                self._sums[name].add_(to_float64(mean), alpha=examples)
            else:
                self._sums[name] = to_float64(mean) * examples

    def joined(self, parameters: Mapping[str, Tensor], together: Together) -> WeightedMean:
        """Return the mean over the examples of all processes.

        Raises:
            PruningError: There is none.
        """
        if together.group is None:
            return self
        mean = WeightedMean()
        with together.joining():
            mean.examples = together.total(self.examples)
            for name, parameter in parameters.items():
                total = together.summed(self._sums.get(name))
                mean._sums[name] = total.reshape(parameter.shape)
        return mean

    def values(self) -> dict[str, Tensor]:
        """Return the means over all examples."""
        return {name: total / self.examples for name, total in self._sums.items()}


def no_gradient(sentence: str) -> PruningError:
    """Return the error that a loss has no gradient to score by."""
    return PruningError(f"scoring: {sentence}")


def mean_gradient(
    model: nn.Module, parameters: Mapping[str, Tensor], examples: Examples, *, train: bool
) -> WeightedMean:
    r"""Return :math:`\frac{1}{N} \sum_b B_b \, \partial L_b / \partial w`, summed in float64.

    Over the examples of all processes that gather together. So it does not depend on how they are
    split into batches and processes, beyond the rounding of each batch's own gradient. With batch
    statistics it does: every batch is then normalised by itself.

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
            loss = examples.task.training_step(model, batch)
            mean.add(loss_gradients(loss, parameters, failed=no_gradient), size)
    return mean.joined(parameters, examples.together)
