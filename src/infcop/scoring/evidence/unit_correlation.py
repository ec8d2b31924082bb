"""How strongly the units that each weight connects move together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from infcop.core.edges import Layout, Tap
from infcop.errors import PruningError
from infcop.models.calling import Inputs, call
from infcop.models.kinds import channel_axis
from infcop.models.layout import find_layouts, fingerprint
from infcop.models.trace import record_calls
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.layers import by_weight, layers_of, listened, over_weight
from infcop.scoring.evidence.measuring import measuring
from infcop.scoring.evidence.pairs import PairMoments
from infcop.scoring.evidence.wide import wide

__all__ = ["unit_correlations"]

_PASSES_OF_TRACE = 3
"""Forward passes of one batch that tell where the examples are."""


def unit_correlations(
    model: nn.Module, parameters: Mapping[str, Tensor], examples: Examples
) -> tuple[dict[str, Tensor], int]:
    r"""Return :math:`|\operatorname{corr}(x_j, y_i)|` for the units that each weight connects.

    Inputs and outputs of the layer are averaged over the positions of an example first, so it
    does not matter that a convolution may have fewer positions after it than before it. In
    evaluation mode, in float64. A unit that does not vary has correlation 0. Where a weight is used
    by several layers, or several times in a forward pass, the correlations of its uses are added
    up. Where a model has the examples is found on the first batch that holds several.

    Args:
        model: The model.
        parameters: Its weights by name.
        examples: What the model is called with.

    Returns:
        The correlations, broadcastable to the weights, and how many examples' forward passes they
        took.

    Raises:
        PruningError: There are fewer than two examples, the layer of a weight is not called, or
            the examples have no place in its output.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(1, 1)
        >>> batch = (torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([0, 0, 0]))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> found, _ = unit_correlations(model, {"weight": model.weight}, examples)
        >>> round(found["weight"].item(), 6)
        1.0
    """
    layers = layers_of(model, parameters)
    layout_of, traced = _layouts(model, layers, examples)
    moments: dict[Tap, PairMoments] = {}
    count = size = 0

    def observe(tap: Tap, module: nn.Module, given: Tensor, output: Tensor) -> None:
        layout = layout_of(tap)
        if tap not in moments:
            moments[tap] = PairMoments(getattr(module, "groups", 1))
        moments[tap].add(
            _pooled(tap[0], module, given, layout, size),
            _pooled(tap[0], module, output, layout, size),
            eps=max(_epsilon(given), _epsilon(output)),
        )

    with (
        measuring(model, train=False, gradients=False),
        listened(layers, observe) as begin,
    ):
        for size, batch in examples:
            begin()
            call(model, examples.task.inputs(batch))
            count += size
    found = {}
    for name, taps in by_weight(parameters, layers, moments).items():
        uses = [_correlations(tap, moments[tap], layers[tap[0]]) for tap in taps]
        found[name] = reduce(torch.add, uses)
    return found, count + traced


def _correlations(tap: Tap, moments: PairMoments, layer: nn.Module) -> Tensor:
    if moments.examples < 2:
        raise PruningError(
            f"score 'correlation': expected at least two examples at layer '{tap[0]}', got "
            f"{moments.examples}; one example has no correlations, so give more data"
        )
    return over_weight(layer, moments.correlations().abs())


def _layouts(
    model: nn.Module, layers: Mapping[str, nn.Module], examples: Examples
) -> tuple[Callable[[Tap], Layout], int]:
    """Return where the examples are in the outputs, and how many examples it took to find out."""
    # The first batch with several: with one example it can't be seen where it is.
    size = 0
    inputs: Inputs = ()
    for size, batch in examples:
        inputs = examples.task.inputs(batch)
        if size > 1:
            break
    calls = record_calls(model, inputs, layers, fingerprint)
    prints = {tap: one.observed for tap, one in calls.items()}
    # The autograd graph holds all activations; it goes before others are made.
    del calls
    layouts = find_layouts(model, inputs, layers, prints, size)

    def layout_of(tap: Tap) -> Layout:
        if tap in prints and tap not in layouts:
            raise PruningError(
                f"score 'correlation': expected the examples to have a place of their own in the "
                f"output of layer '{tap[0]}', but they have none; exclude its weight "
                "(method.exclude), or use another score"
            )
        return layouts.get(tap, Layout())

    return layout_of, _PASSES_OF_TRACE * size


def _pooled(name: str, module: nn.Module, value: Tensor, layout: Layout, size: int) -> Tensor:
    """Return an input or output ``[B, C]`` in float64, averaged over the positions of examples.

    A layer leaves all axes but the channels and a convolution's positions where they are, so what
    holds for its output holds for its input.
    """
    channels = channel_axis(module, value.ndim)
    if channels == layout.axis or value.shape[layout.axis] != size * layout.fold:
        raise PruningError(
            f"score 'correlation': expected {size} examples of {layout.fold} entries along axis "
            f"{layout.axis} at layer '{name}', got shape {tuple(value.shape)}; give batches with "
            "inputs of one size"
        )
    moved = wide(value.detach().movedim((layout.axis, channels), (0, 1)))
    rows = moved.flatten(2).mean(dim=2) if moved.ndim > 2 else moved
    if layout.example_first:
        return rows.reshape(size, layout.fold, -1).mean(dim=1)
    return rows.reshape(layout.fold, size, -1).mean(dim=0)


def _epsilon(value: Tensor) -> float:
    return torch.finfo(torch.promote_types(value.dtype, torch.float32)).eps
