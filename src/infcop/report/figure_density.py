"""The figure of density per layer and level."""

from __future__ import annotations

import math

from infcop.core.records import RunRecord
from infcop.report import words
from infcop.report.drawing import Figure, Omitted
from infcop.report.heat import Grid, heat_map
from infcop.report.spending import kept_per_layer
from infcop.report.tables import Table

__all__ = ["density_figure"]

_HEADING = "Density per layer and level"


def density_figure(record: RunRecord) -> Figure | Omitted:
    """Draw the fraction of weights that each layer keeps at each level."""
    kept = kept_per_layer(record)
    if not record.levels or not kept:
        return Omitted(_HEADING, "no level has pruned anything")
    names = tuple(f"{x.level} · {words.percent(x.density)}" for x in record.levels)
    grid = Grid(names, tuple(kept), list(zip(*kept.values(), strict=True)), words.percent)
    return Figure(
        key="density",
        heading=_HEADING,
        finding=_finding(kept),
        reading=(
            "Each column is a prunable layer, each row a level, beside the density of all layers "
            "together. Pale cells keep few of their weights."
        ),
        plot=heat_map(
            grid,
            x="layer, in the order of the model",
            y="level · density",
            diverging=False,
            ruled=False,
        ),
        table=_table(record, kept),
    )


def _finding(kept: dict[str, tuple[float, ...]]) -> str:
    last = {name: values[-1] for name, values in kept.items() if math.isfinite(values[-1])}
    if not last:
        return "No layer can be counted at the last level."
    dense, sparse = max(last, key=last.__getitem__), min(last, key=last.__getitem__)
    if dense == sparse:
        return f"The only layer, {dense}, keeps {words.percent(last[dense])} of its weights."
    return (
        f"At the last level {dense} keeps the largest part of its weights, "
        f"{words.percent(last[dense])}, and {sparse} the smallest, {words.percent(last[sparse])}."
    )


def _table(record: RunRecord, kept: dict[str, tuple[float, ...]]) -> Table:
    levels = tuple(f"level {level.level}" for level in record.levels)
    return Table(
        headings=("", "layer", "weights", *levels),
        rows=tuple(
            (
                str(place),
                name,
                words.count(math.prod(record.model.prunable[name])),
                *map(words.percent, values),
            )
            for place, (name, values) in enumerate(kept.items(), 1)
        ),
        text=frozenset({1}),
    )
