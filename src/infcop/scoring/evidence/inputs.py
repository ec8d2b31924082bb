"""How large the inputs of the weights are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.edges import Tap
from infcop.core.float64 import to_float64
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.layers import (
    by_weight,
    channels_last,
    layers_of,
    observed,
    over_weight,
)

__all__ = ["input_norms"]


def input_norms(
    model: nn.Module, parameters: Mapping[str, Tensor], examples: Examples
) -> tuple[dict[str, Tensor], int]:
    r"""Return :math:`\|x_j\|_2 / \sqrt{P}` for the input that each weight multiplies.

    Over all :math:`P` positions of all examples of all processes, in evaluation mode, in float64:
    of a linear layer the features at all places of a sequence, of a convolution the channels at
    all places of an image, without padding. Where a weight is used by several layers, or several
    times in a forward pass, the squares of its uses are added up.

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
    sums: dict[Tap, Tensor] = {}
    """Of every call the number of positions, then of every channel the sum of squares."""

    def observe(tap: Tap, module: nn.Module, given: Tensor, *_: Any) -> None:
        flat = to_float64(channels_last(module, given))
        total = torch.cat([flat.new_tensor([len(flat)]), flat.square().sum(dim=0)])
        sums[tap] = sums[tap] + total if tap in sums else total

    count = observed(model, layers, examples, observe)
    together = examples.together
    with together.joining():
        count = together.total(count)
        sums = {tap: together.summed(sums.get(tap)) for tap in together.taps(sums, layers)}
    norms = {}
    for name, taps in by_weight(parameters, layers, sums).items():
        uses = [
            over_weight(layers[tap[0]], _grouped(layers[tap[0]], sums[tap][1:] / sums[tap][0]))
            for tap in taps
        ]
        norms[name] = reduce(torch.add, uses).sqrt()
    return norms, count


def _grouped(module: nn.Module, channels: Tensor) -> Tensor:
    groups = getattr(module, "groups", 1)
    return channels.reshape(groups, -1, 1)
