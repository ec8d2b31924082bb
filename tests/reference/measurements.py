"""Measurements made by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from infcop.core.edges import Edge
from infcop.core.measurement import MeasuredEdge, MeasuredLayer, MeasurementRecord, Pooling

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"

CHAIN: tuple[Edge, ...] = (("fc1", "fc2"), ("fc2", "fc3"))


def make_layer(name: str, *, dead: int = 0, calls: int = 1) -> MeasuredLayer:
    return MeasuredLayer(
        name=name,
        kind="Linear",
        parameter=f"{name}.weight",
        shape=(16, 8),
        density=0.5,
        calls=calls,
        pooling=(Pooling(averaged=(1,)),),
        units=16,
        dead_units=dead,
        gradient_norm=0.25,
        gradient_mean=0.001,
    )


def make_edge(edge: Edge, signed: float | None = 0.125) -> MeasuredEdge:
    producer, consumer = edge
    if signed is None:
        return MeasuredEdge(producer=producer, consumer=consumer)
    return MeasuredEdge(
        producer=producer,
        consumer=consumer,
        channels=((0, 8),),
        widths=(16, 16),
        signed=signed,
        signed_error=0.01,
        absolute=abs(signed) + 0.1,
        absolute_error=0.02,
        effective_rank=3.5,
    )


def make_measurement(
    graph: Sequence[Edge] = CHAIN, names: Sequence[str] = (), **changes: object
) -> MeasurementRecord:
    """Return a measurement of a graph, with flow that differs from edge to edge."""
    draw = random.Random(0)
    names = names or list(dict.fromkeys(name for edge in graph for name in edge))
    facts: dict[str, object] = {
        "model": "net",
        "data": "digits",
        "weights": "drawn with seed 0",
        "examples": 2048,
        "seed": 0,
        "gradient": "full",
        "parameters": 144 * len(names),
        "prunable": 128 * len(names),
        "layers": [make_layer(name) for name in names],
        "edges": [make_edge(edge, draw.uniform(-0.2, 0.2)) for edge in graph],
        "excluded": {f"{name}.bias": "bias" for name in names},
        **changes,
    }
    return MeasurementRecord.model_validate(facts)


def dense_edges(blocks: Sequence[int] = (6, 12, 24, 16)) -> list[Edge]:
    """Return the edges of a DenseNet: every layer of a block reads all before it."""
    edges: list[Edge] = []
    outputs = ["conv0"]
    for block, size in enumerate(blocks):
        for number in range(size):
            narrow, wide = (f"features.block{block}.layer{number}.conv{k}" for k in (1, 2))
            edges += [(output, narrow) for output in outputs] + [(narrow, wide)]
            outputs.append(wide)
        transition = f"features.transition{block}.conv"
        edges += [(output, transition) for output in outputs]
        outputs = [transition]
    return edges


def residual_edges(blocks: int = 9) -> list[Edge]:
    """Return the edges of a residual network: every block reads all before it."""
    edges: list[Edge] = []
    outputs = ["stem"]
    for block in range(blocks):
        first, second = f"block{block}.conv1", f"block{block}.conv2"
        edges += [(output, first) for output in outputs] + [(first, second)]
        outputs.append(second)
    return [*edges, *((output, "head") for output in outputs)]


def points_of(path: str) -> list[tuple[float, float]]:
    """Return points along an SVG path of curves and vertical lines, close to each other."""
    words = path.split()
    points: list[tuple[float, float]] = []
    at = (0.0, 0.0)
    while words:
        command = words.pop(0)
        count = {"M": 2, "C": 6, "V": 1}[command]
        numbers = [float(words.pop(0)) for _ in range(count)]
        if command == "M":
            at = (numbers[0], numbers[1])
        elif command == "V":
            steps = max(math.ceil(abs(numbers[0] - at[1])), 1)
            points += [(at[0], at[1] + (numbers[0] - at[1]) * i / steps) for i in range(steps + 1)]
            at = (at[0], numbers[0])
        else:
            one, two, end = (
                (numbers[0], numbers[1]),
                (numbers[2], numbers[3]),
                (numbers[4], numbers[5]),
            )
            for i in range(101):
                t = i / 100
                weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
                points.append(
                    (
                        sum(w * p[0] for w, p in zip(weights, (at, one, two, end), strict=True)),
                        sum(w * p[1] for w, p in zip(weights, (at, one, two, end), strict=True)),
                    )
                )
            at = end
    return points
