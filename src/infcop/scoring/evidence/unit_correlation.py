"""How strongly the units that each weight connects move together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from infcop.core.edges import Layout, Tap
from infcop.core.float64 import to_float64
from infcop.core.spread import epsilon
from infcop.errors import PruningError
from infcop.models.kinds import channel_axis
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.layers import by_weight, layers_of, observed, over_weight
from infcop.scoring.evidence.layouts import layouts_of
from infcop.scoring.evidence.pairs import PairMoments
from infcop.scoring.evidence.together import Together

__all__ = ["unit_correlations"]


def unit_correlations(
    model: nn.Module, parameters: Mapping[str, Tensor], examples: Examples
) -> tuple[dict[str, Tensor], int]:
    r"""Return :math:`|\operatorname{corr}(x_j, y_i)|` for the units that each weight connects.

    Inputs and outputs of the layer are averaged over the positions of an example first, so it
    does not matter that a convolution may have fewer positions after it than before it. In
    evaluation mode, in float64. A unit that does not vary has correlation 0. Where a weight is used
    by several layers, or several times in a forward pass, the correlations of its uses are added
    up. Where a model has the examples is found on the first batch that holds several. Of several
    processes, the correlations are those of all their examples together, not averages.

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
    layouts, traced = layouts_of(model, layers, examples)
    moments: dict[Tap, PairMoments] = {}

    def observe(tap: Tap, module: nn.Module, given: Tensor, output: Tensor, size: int) -> None:
        layout = _layout(tap, layouts)
        if tap not in moments:
            moments[tap] = PairMoments(_groups(module))
        moments[tap].add(
            _pooled(tap[0], module, given, layout, size),
            _pooled(tap[0], module, output, layout, size),
            eps=max(epsilon(given.dtype), epsilon(output.dtype)),
        )

    count = observed(model, layers, examples, observe)
    together = examples.together
    with together.joining():
        count = together.total(count)
        moments = {
            tap: _joined(PairMoments(_groups(layers[tap[0]])), moments.get(tap), together)
            for tap in together.taps(moments, layers)
        }
    found = {}
    for name, taps in by_weight(parameters, layers, moments).items():
        uses = [_correlations(tap, moments[tap], layers[tap[0]]) for tap in taps]
        found[name] = reduce(torch.add, uses)
    return found, count + traced


def _joined(empty: PairMoments, mine: PairMoments | None, together: Together) -> PairMoments:
    """Return the moments of a call over the examples of all processes."""
    for part in together.parts(None if mine is None else mine.packed()):
        empty.absorb(PairMoments.unpacked(part))
    return empty


def _groups(layer: nn.Module) -> int:
    return int(getattr(layer, "groups", 1))


def _layout(tap: Tap, layouts: Mapping[Tap, Layout | None]) -> Layout:
    layout = layouts.get(tap, Layout())
    if layout is None:
        raise PruningError(
            f"score 'correlation': expected the examples to have a place of their own in the "
            f"output of layer '{tap[0]}', but they have none; exclude its weight "
            "(method.exclude), or use another score"
        )
    return layout


def _correlations(tap: Tap, moments: PairMoments, layer: nn.Module) -> Tensor:
    if moments.examples < 2:
        raise PruningError(
            f"score 'correlation': expected at least two examples at layer '{tap[0]}', got "
            f"{moments.examples}; one example has no correlations, so give more data"
        )
    return over_weight(layer, moments.correlations().abs())


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
    moved = to_float64(value.detach().movedim((layout.axis, channels), (0, 1)))
    rows = moved.flatten(2).mean(dim=2) if moved.ndim > 2 else moved
    if layout.example_first:
        return rows.reshape(size, layout.fold, -1).mean(dim=1)
    return rows.reshape(layout.fold, size, -1).mean(dim=0)
