"""What information flow is measured on: edges, the calls behind them, where the examples are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infcop.errors import FlowError

__all__ = ["Edge", "Edges", "Layout", "Tap"]

Edge = tuple[str, str]
"""Names of a producer and of the consumer that receives its output."""

Tap = tuple[str, int]
"""A layer's name and the number of its call within one forward pass, from 0."""


@dataclass(frozen=True)
class Layout:
    """Where the examples of a batch are in a layer's output.

    Attributes:
        axis: The axis that holds them.
        fold: Entries of this axis that belong to one example: windows, patches, crops or time
            steps that a model has folded into its batch axis.
        example_first: Whether the entries of one example follow each other (entry ``b * fold + k``
            belongs to example ``b``), or those of one part do (entry ``k * B + b``).
    """

    axis: int = 0
    fold: int = 1
    example_first: bool = True


@dataclass(frozen=True)
class Edges:
    """Edges with what a measurement has to know of them.

    Attributes:
        edges: Producer and consumer of every entry of the information flow, in its order.
        pairs: Per edge, which call of the producer reaches which call of the consumer; an edge
            that is not named here pairs the first call with the first.
        layouts: Per call, where the examples are; by default along the first axis.

    Example:
        >>> shared = Edges((("trunk", "head"),), {("trunk", "head"): ((0, 0), (1, 0))})
        >>> shared.taps
        (('trunk', 0), ('head', 0), ('trunk', 1))
    """

    edges: tuple[Edge, ...]
    pairs: Mapping[Edge, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    layouts: Mapping[Tap, Layout] = field(default_factory=dict)

    @classmethod
    def of(cls, edges: Edges | Sequence[Edge]) -> Edges:
        """Return edges as they are, or made of pairs of names.

        Raises:
            FlowError: Something else than pairs of names was given, or a pair twice.

        Example:
            >>> Edges.of([("a", "b")]).edges
            (('a', 'b'),)
        """
        if isinstance(edges, Edges):
            return edges
        pairs = tuple(edges)
        for pair in pairs:
            if not isinstance(pair, tuple | list) or [type(name) for name in pair] != [str, str]:
                raise FlowError(
                    f"edges: expected pairs of layer names such as ('conv1', 'conv2'), got {pair!r}"
                )
        named = tuple((producer, consumer) for producer, consumer in pairs)
        for edge, count in Counter(named).items():
            if count > 1:
                raise FlowError(f"edges: {edge} is given {count} times; give every edge once")
        return cls(named)

    def calls(self, edge: Edge) -> tuple[tuple[Tap, Tap], ...]:
        """Return the pairs of calls that an edge is measured on."""
        producer, consumer = edge
        pairs = self.pairs.get(edge, ((0, 0),))
        return tuple(((producer, one), (consumer, other)) for one, other in pairs)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """All calls that take part, each once, in order of appearance."""
        return tuple(
            dict.fromkeys(tap for edge in self.edges for pair in self.calls(edge) for tap in pair)
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that take part, each once, in order of appearance."""
        return tuple(dict.fromkeys(name for edge in self.edges for name in edge))
