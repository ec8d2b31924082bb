"""Where the layers and edges of a graph go on a page: rows from input to output, lanes beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infcop.core.edges import Edge

__all__ = ["Arrangement", "arranged", "lanes_of", "rows_of"]

_SWEEPS = 4
"""Passes down and up that order the rows; more of them change hardly anything."""

_LOOSE_PER_ROW = 3
"""Layers without any edge share rows of their own at the end."""


@dataclass(frozen=True)
class Arrangement:
    """Rows of layers, and which edges go around them.

    Attributes:
        rows: Names from left to right, row by row from the input to the output.
        direct: Edges from one row to the next.
        around: The other edges, each with its lane beside the rows, from 0, the innermost. Two
            edges in one lane nowhere run side by side.
    """

    rows: tuple[tuple[str, ...], ...]
    direct: tuple[Edge, ...]
    around: Mapping[Edge, int]

    @property
    def row(self) -> dict[str, int]:
        """The row of every layer."""
        return {name: place for place, names in enumerate(self.rows) for name in names}

    @property
    def lanes(self) -> int:
        """The number of lanes."""
        return max(self.around.values(), default=-1) + 1


def arranged(layers: Sequence[str], edges: Sequence[Edge]) -> Arrangement:
    """Arrange a graph in rows.

    Args:
        layers: Names, in the order of execution.
        edges: Producers and consumers among them; an edge to the same or to an earlier layer, as
            of a layer called again, goes around.

    Example:
        >>> found = arranged(("a", "b", "c"), (("a", "b"), ("b", "c"), ("a", "c")))
        >>> found.rows, found.direct, found.around
        ((('a',), ('b',), ('c',)), (('a', 'b'), ('b', 'c')), {('a', 'c'): 0})
    """
    rows = _ordered(rows_of(layers, edges), layers, edges)
    row = {name: place for place, names in enumerate(rows) for name in names}
    direct = tuple(edge for edge in edges if row[edge[1]] - row[edge[0]] == 1)
    around = [edge for edge in edges if row[edge[1]] - row[edge[0]] != 1]
    spans = [(row[producer], row[consumer]) for producer, consumer in around]
    return Arrangement(rows, direct, dict(zip(around, lanes_of(spans), strict=True)))


def rows_of(layers: Sequence[str], edges: Sequence[Edge]) -> tuple[tuple[str, ...], ...]:
    """Put every layer one row below the lowest of its producers, the longest path deciding.

    Layers without an edge come last. Edges that point back in the order of execution do not
    count.

    Example:
        >>> rows_of(("a", "b", "side", "c"), (("a", "b"), ("b", "c"), ("a", "side"), ("side", "c")))
        (('a',), ('b', 'side'), ('c',))
    """
    place = {name: number for number, name in enumerate(layers)}
    forward = [(p, c) for p, c in edges if place[p] < place[c]]
    producers: dict[str, list[str]] = {name: [] for name in layers}
    for producer, consumer in forward:
        producers[consumer].append(producer)
    row: dict[str, int] = {}
    for name in layers:
        row[name] = max((row[producer] + 1 for producer in producers[name]), default=0)
    consumers: dict[str, list[str]] = {name: [] for name in layers}
    for producer, consumer in forward:
        consumers[producer].append(consumer)
    for name in reversed(layers):
        # A layer that nothing feeds, such as a second input, stands right above its consumers.
        if consumers[name] and not producers[name]:
            row[name] = min(row[consumer] for consumer in consumers[name]) - 1
    joined = {name for edge in edges for name in edge}
    loose = [name for name in layers if name not in joined]
    tied = [name for name in layers if name in joined]
    rows = [
        tuple(name for name in tied if row[name] == number)
        for number in sorted({row[name] for name in tied})
    ]
    rows += [
        tuple(loose[start : start + _LOOSE_PER_ROW])
        for start in range(0, len(loose), _LOOSE_PER_ROW)
    ]
    return tuple(rows)


def lanes_of(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return a lane for every span of rows, so that spans in one lane have no row in common.

    Short spans get the inner lanes.

    Example:
        >>> lanes_of([(0, 4), (0, 2), (3, 4)])
        [1, 0, 0]
    """
    lanes = [0] * len(spans)
    taken: list[list[tuple[int, int]]] = []
    by_length = sorted(range(len(spans)), key=lambda i: (abs(spans[i][1] - spans[i][0]), spans[i]))
    for index in by_length:
        low, high = sorted(spans[index])
        free = (
            lane
            for lane, used in enumerate(taken)
            if all(high < start or end < low for start, end in used)
        )
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        lanes[index] = lane
    return lanes


def _ordered(
    rows: Sequence[Sequence[str]], layers: Sequence[str], edges: Sequence[Edge]
) -> tuple[tuple[str, ...], ...]:
    """Order each row by where the neighbours of its layers stand, which untangles edges."""
    neighbours: dict[str, list[str]] = {name: [] for name in layers}
    for producer, consumer in edges:
        neighbours[producer].append(consumer)
        neighbours[consumer].append(producer)
    row = {name: number for number, names in enumerate(rows) for name in names}
    ordered = [list(names) for names in rows]
    # Where a layer stands, from -1/2 on the left to 1/2 on the right: rows differ in length.
    stand = {name: at for names in ordered for name, at in _stands(names)}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for number in range(len(ordered)) if down else reversed(range(len(ordered))):
            beside = number - 1 if down else number + 1
            names = ordered[number]
            middle = {
                name: _mean([stand[n] for n in neighbours[name] if row[n] == beside], stand[name])
                for name in names
            }
            names.sort(key=middle.__getitem__)
            stand.update(_stands(names))
    return tuple(tuple(names) for names in ordered)


def _stands(names: Sequence[str]) -> list[tuple[str, float]]:
    return [(name, (place + 0.5) / len(names) - 0.5) for place, name in enumerate(names)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
