"""The synaptic flow, found by one process for all: it does not depend on the examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infcop.core.records import Cost
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.synaptic import synaptic_flow

__all__ = ["synaptic_flow_once"]


def synaptic_flow_once(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    examples: Examples,
    *,
    any_activation: bool,
) -> tuple[dict[str, Tensor], Cost]:
    """Return the synaptic flow by every weight, and what it took.

    Of several processes the first with a batch runs the network and tells the others. They could
    not all: one without a batch does not know the shape of the inputs, and other threads give
    other last digits.

    Args:
        model: Any model; nothing in it changes.
        parameters: Its weights by name.
        examples: Only shapes and types of the inputs matter.
        any_activation: Whether to accept a network in which the flow is not conserved.

    Raises:
        PruningError: There is no example, or the flow can't be had.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(2, 1, bias=False)
        >>> batch = (torch.zeros(9, 2), torch.zeros(9))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> weights = {"weight": model.weight}
        >>> synaptic_flow_once(model, weights, examples, any_activation=False)[0]
        {'weight': tensor([[1., 1.]])}
    """
    together = examples.together
    size, batch = next(iter(examples), (0, None))
    with together.joining():
        rank, _ = together.first(size)
    found: dict[str, Tensor] = {}
    cost = Cost()
    if together.rank == rank:
        inputs = examples.task.inputs(batch)
        found, cost = synaptic_flow(model, tuple(parameters), inputs, any_activation=any_activation)
    if together.group is None:
        return found, cost
    taken = torch.tensor([cost.measuring, cost.measuring_gradient])
    with together.joining():
        passes = together.summed(taken if together.rank == rank else None)
        values = {
            name: together.summed(found.get(name)).reshape(parameter.shape)
            for name, parameter in parameters.items()
        }
    forward, backward = (int(count) for count in passes.tolist())
    return values, Cost(measuring=forward, measuring_gradient=backward)
