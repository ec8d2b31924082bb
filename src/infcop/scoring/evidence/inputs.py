"""How large the inputs of the weights are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from infcop.core.edges import Tap
from infcop.models.calling import call
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.layers import (
    by_weight,
    channels_last,
    layers_of,
    listened,
    over_weight,
)
from infcop.scoring.evidence.measuring import measuring
from infcop.scoring.evidence.wide import wide

__all__ = ["input_norms"]


def input_norms(
    model: nn.Module, parameters: Mapping[str, Tensor], examples: Examples
) -> tuple[dict[str, Tensor], int]:
    r"""Return :math:`\|x_j\|_2 / \sqrt{P}` for the input that each weight multiplies.

    Over all :math:`P` positions of all examples, in evaluation mode, in float64: of a linear layer
    the features at all places of a sequence, of a convolution the channels at all places of an
    image, without padding. Where a weight is used by several layers, or several times in a forward
    pass, the squares of its uses are added up.

    Args:
        model: The model.
        parameters: Its weights by name.
        examples: What the model is called with.

    Returns:
        The root mean squares, broadcastable to the weights, and the number of examples.

    Raises:
        PruningError: There is no example, or the layer of a weight is not called.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(2, 2)
        >>> batch = (torch.tensor([[3.0, 1.0], [-3.0, 1.0]]), torch.tensor([0, 1]))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> input_norms(model, {"weight": model.weight}, examples)
        ({'weight': tensor([[3., 1.]], dtype=torch.float64)}, 2)
    """
    layers = layers_of(model, parameters)
    squares: dict[Tap, Tensor] = {}
    positions: dict[Tap, int] = {}

    def observe(tap: Tap, module: nn.Module, given: Tensor, _output: Tensor) -> None:
        flat = channels_last(module, given)
        total = wide(flat).square().sum(dim=0)
        squares[tap] = squares[tap] + total if tap in squares else total
        positions[tap] = positions.get(tap, 0) + len(flat)

    count = 0
    with (
        measuring(model, train=False, gradients=False),
        listened(layers, observe) as begin,
    ):
        for size, batch in examples:
            begin()
            call(model, examples.task.inputs(batch))
            count += size
    norms = {}
    for name, taps in by_weight(parameters, layers, squares).items():
        uses = [
            over_weight(layers[tap[0]], _grouped(layers[tap[0]], squares[tap] / positions[tap]))
            for tap in taps
        ]
        norms[name] = reduce(torch.add, uses).sqrt()
    return norms, count


def _grouped(module: nn.Module, channels: Tensor) -> Tensor:
    groups = getattr(module, "groups", 1)
    return channels.reshape(groups, -1, 1)
