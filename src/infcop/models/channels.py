"""Following the input channels of a layer back to the layers that they come from."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import nn
from torch.autograd.graph import Node

from infcop.core.edges import Edge, Tap
from infcop.models.kinds import channel_axis, input_channels
from infcop.models.operations import WHOLE, Step, picked, spans_before
from infcop.models.span import Range, Span, joined
from infcop.models.trace import Call, Source

__all__ = ["call_pairs", "producers"]

Owner = TypeVar("Owner", bound=Hashable)

Place = tuple[Node, int, Span, Span]
"""An output of a node, where the channels are in it, and which part of it matters."""


def producers(
    starts: Sequence[tuple[Source, Span]], owners: Mapping[Node, Owner]
) -> dict[Owner, tuple[Range, ...]]:
    """Return whose outputs reach a layer's inputs directly, and at which of its channels.

    Args:
        starts: Where the input tensors came from, and where the channels are in them.
        owners: Who made the tensors that the search ends at.

    Example:
        >>> import torch
        >>> one, other = torch.ones(1, 2, requires_grad=True), torch.ones(1, 3, requires_grad=True)
        >>> one, other = one.clone(), other.clone()
        >>> both = torch.cat([one, other], 1).relu()
        >>> start = (Source(both.grad_fn, 0, (1, 5)), Span((0, 5), 1, (0, 5)))
        >>> producers([start], {one.grad_fn: "one", other.grad_fn: "other"})
        {'other': ((2, 5),), 'one': ((0, 2),)}
    """
    found: dict[Owner, set[Range]] = {}
    stack: list[Place] = [(source.node, source.index, span, WHOLE) for source, span in starts]
    # Holding the nodes themselves: the identity of a released one may be used again.
    seen = set(stack)
    while stack:
        node, index, span, part = stack.pop()
        if node in owners:
            found.setdefault(owners[node], set()).add(span.channels)
            continue
        for place in _before(node, index, span, part):
            if place not in seen:
                seen.add(place)
                stack.append(place)
    return {owner: joined(ranges) for owner, ranges in found.items()}


def call_pairs(
    calls: Mapping[Tap, Call], layers: Mapping[str, nn.Module]
) -> tuple[dict[Edge, tuple[tuple[int, int], ...]], dict[Edge, tuple[Range, ...]]]:
    """Return the pairs of calls and the consumer's channels of every edge, in the edges' order.

    Args:
        calls: What was recorded, in the order of execution.
        layers: The modules that were called.
    """
    owners = {node: tap for tap, call in calls.items() for node in call.outputs}
    places = {tap: place for place, tap in enumerate(calls)}
    pairs: dict[Edge, list[tuple[int, int]]] = {}
    channels: dict[Edge, set[Range]] = {}
    for (consumer, other), call in calls.items():
        found = producers(_starts(layers[consumer], call.sources), owners)
        for producer, one in sorted(found, key=places.__getitem__):
            edge = producer, consumer
            pairs.setdefault(edge, []).append((one, other))
            channels.setdefault(edge, set()).update(found[producer, one])
    edges = sorted(pairs, key=lambda edge: (places[edge[1], 0], places[edge[0], 0]))
    return (
        {edge: tuple(pairs[edge]) for edge in edges},
        {edge: joined(channels[edge]) for edge in edges},
    )


def _starts(layer: nn.Module, sources: list[Source]) -> list[tuple[Source, Span]]:
    """Return where the channels are in each input of a layer."""
    width = input_channels(layer)
    starts = []
    for source in sources:
        axis = channel_axis(layer, len(source.shape))
        # A subclass may take further inputs, of which nothing is known.
        known = axis >= 0 and source.shape[axis] == width
        starts.append((source, Span((0, width), axis if known else None, (0, width))))
    return starts


def _before(node: Node, index: int, span: Span, part: Span) -> Iterator[Place]:
    shapes = tuple(_shape(before, nr) for before, nr in node.next_functions)
    step = Step(node, index, _shape(node, index), shapes)
    spans = spans_before(step, span)
    parts = spans_before(step, part)
    # Of what is picked along another axis, such as a class token, the rest is of no importance.
    chosen = picked(step) if part.axis is None else WHOLE
    if chosen.axis is not None and spans[0] is not None and chosen.axis != spans[0].axis:
        parts = [chosen] * len(shapes)
    for (before, nr), one, other in zip(node.next_functions, spans, parts, strict=True):
        if before is not None and one is not None and other is not None:
            yield before, nr, one, other


def _shape(node: Node | None, index: int) -> tuple[int, ...] | None:
    # What autograd knows of the tensor that this output of the node is.
    known = getattr(node, "_input_metadata", ())
    return tuple(known[index].shape) if index < len(known) else None
