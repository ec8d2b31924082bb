"""What a compact network takes, as tables for page and terminal."""

from __future__ import annotations

import json
from typing import Any

from infcop.core.footprint import Footprint, NetworkFootprint, Timing
from infcop.core.records import DataFacts
from infcop.report import words
from infcop.report.accounting import (
    fewer_multiply_adds,
    is_timed,
    places,
    speed_up,
    timings_at,
)
from infcop.report.footprint_words import (
    NAMES,
    data_size,
    footprint_sentences,
    latency,
    timed_sentence,
    uncounted_sentence,
)
from infcop.report.tables import Table, plain_lines

__all__ = ["footprint_dict", "footprint_lines", "layer_sizes_table", "size_table", "speed_table"]


def size_table(footprint: Footprint, data: DataFacts) -> Table:
    """Return one row for each network: accuracy and everything that was counted.

    No ratio is among it, since a ratio of counts would pass for a speed-up.
    """
    split = footprint.measured_on or "held-out"
    rows = []
    for network in footprint.networks:
        cells = (
            words.metric(data, network.metrics.get(data.main_metric)),
            _counted(network.parameters),
            _counted(network.nonzero),
            _counted(network.multiply_adds),
            data_size(network.file_bytes),
            data_size(network.activation_bytes),
        )
        rows.append((NAMES[network.network], *cells))
    examples = words.plural(footprint.activation_batch, "example")
    return Table(
        headings=(
            "network",
            f"{split} {data.main_metric.replace('_', ' ')}",
            "parameters",
            "of them not zero",
            "multiply-adds",
            "on disk",
            f"activations, {examples}",
        ),
        rows=tuple(rows),
    )


def speed_table(footprint: Footprint) -> Table:
    """Return one row for each network, batch size and number of threads: what was measured.

    The ratio of multiply-adds stands beside the measured speed-up, and nowhere else.
    """
    rows = []
    for batch, threads in places(footprint):
        for network, timing in timings_at(footprint, batch, threads):
            rows.append(_speed_cells(footprint, network, timing))
    return Table(
        headings=(
            "network",
            "batch",
            "threads",
            "latency",
            "measured speed-up",
            "times fewer multiply-adds",
            "examples in a second",
            "middle half of latencies",
        ),
        rows=tuple(rows),
    )


def _speed_cells(
    footprint: Footprint, network: NetworkFootprint, timing: Timing
) -> tuple[str, ...]:
    return (
        NAMES[network.network],
        str(timing.batch),
        str(timing.threads),
        latency(timing.median),
        _times(speed_up(footprint, network, timing)),
        _times(fewer_multiply_adds(footprint, network)),
        f"{timing.throughput:,.0f}",
        f"{latency(timing.lower)} to {latency(timing.upper)}",
    )


def layer_sizes_table(footprint: Footprint) -> Table:
    """Return one row for each layer: its shapes before and after, or why nothing was removed."""
    return Table(
        headings=("", "layer", "before", "after", "why nothing was removed"),
        rows=tuple(
            (
                str(place),
                f"{layer.name or 'the model'} ({layer.kind})",
                _shapes(layer.before),
                _shapes(layer.after),
                layer.reason or "",
            )
            for place, layer in enumerate(footprint.layers, 1)
        ),
        text=frozenset({1, 2, 3, 4}),
        cards=True,
    )


def footprint_lines(footprint: Footprint, data: DataFacts) -> list[str]:
    """Return the same for the terminal."""
    lines = [*footprint_sentences(footprint), "", *plain_lines(size_table(footprint, data))]
    lines += ["", uncounted_sentence(footprint)]
    lines += [
        f"{NAMES[network.network]}: {network.missing}"
        for network in footprint.networks
        if network.missing is not None
    ]
    if is_timed(footprint):
        lines += ["", *plain_lines(speed_table(footprint)), "", timed_sentence(footprint)]
    return lines


def footprint_dict(footprint: Footprint) -> dict[str, Any]:
    """Return the same for ``--json``: what was measured, with the ratios that follow."""
    told: dict[str, Any] = json.loads(footprint.model_dump_json())
    told["speed_ups"] = [
        {
            "network": network.network,
            "batch": batch,
            "threads": threads,
            "measured": found,
            "fewer_multiply_adds": fewer_multiply_adds(footprint, network),
        }
        for batch, threads in places(footprint)
        for network, timing in timings_at(footprint, batch, threads)
        if (found := speed_up(footprint, network, timing)) is not None
    ]
    return told


def _shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the shape of the weight, or of all that there is where there is none."""
    shown = ["weight"] if "weight" in shapes else list(shapes)
    return ", ".join("x".join(map(str, shapes[name])) or "1" for name in shown)


def _counted(value: int | None) -> str:
    return "not counted" if value is None else words.count(value)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
