"""The figures of flow per edge and level, one for each family of flow that was read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from infcop.core.records import Flow, LevelRecord, Reading, RunRecord
from infcop.report import words
from infcop.report.drawing import Figure, Omitted
from infcop.report.heat import Grid, heat_map
from infcop.report.tables import Table

__all__ = ["flow_figures"]

_FAMILIES: dict[str, tuple[tuple[Flow, str], ...]] = {
    "Information flow": (
        (
            "information.signed",
            "the mean correlation, between -1 and 1, of the units at either end",
        ),
        ("information.absolute", "the mean size, up to 1, of the correlations between either end"),
    ),
    "Gradient flow": (
        ("gradient.norm", "the norm of the gradient of the loss with respect to a layer's weights"),
        ("gradient.mean", "the mean size of the gradient of the loss over a layer's weights"),
    ),
}
"""For each family, what is drawn: the first of these that any reading holds."""


def flow_figures(record: RunRecord) -> list[Figure | Omitted]:
    """Draw each family of flow that was read, the dense reference as the first row."""
    figures: list[Figure | Omitted] = []
    for family, flows in _FAMILIES.items():
        for flow, meaning in flows:
            rows = _rows(record, flow)
            if rows:
                figures.append(_figure(record, family, flow, meaning, rows))
                break
    if not figures:
        figures.append(Omitted("Flow per edge and level", "this run has read no flow"))
    return figures


def _rows(record: RunRecord, flow: Flow) -> dict[str, tuple[float, ...]]:
    """Return the reference's vector and that of the last reading of each level, under row names."""
    rows = {}
    if record.reference and flow in record.reference.flows:
        rows["dense"] = record.reference.flows[flow]
    for level in record.levels:
        vector = _last(level, flow)
        if vector:
            rows[f"{level.level} · {words.percent(level.density)}"] = vector
    return {name: vector for name, vector in rows.items() if vector}


def _last(level: LevelRecord, flow: Flow) -> tuple[float, ...]:
    read: list[Reading] = [x for x in level.readings if x.phase == "level" and flow in x.flows]
    return read[-1].flows[flow] if read else ()


def _figure(
    record: RunRecord, family: str, flow: Flow, meaning: str, rows: dict[str, tuple[float, ...]]
) -> Figure:
    width = max(len(vector) for vector in rows.values())
    columns = _columns(record, flow, width)
    values = [(*vector, *[math.nan] * (width - len(vector))) for vector in rows.values()]
    grid = Grid(tuple(rows), columns, values, words.number)
    what = "edge" if flow.startswith("information") else "layer"
    plot = heat_map(
        grid,
        x=f"{what}, in the order of the model",
        y="level · density",
        diverging=flow == "information.signed" and min(grid.finite, default=0) < 0,
        ruled="dense" in rows and len(rows) > 1,
    )
    return Figure(
        key=flow.replace(".", "-"),
        heading=f"{family} per {what} and level",
        finding=_finding(grid, what, "dense" in rows),
        reading=(
            f"Each cell is {meaning}{' of an edge' if what == 'edge' else ''}. The top row is the "
            "dense reference; each row below is a level at its end. Rows that look like the top "
            f"row behave as the dense network does. The table names every {what}."
        ),
        plot=plot,
        table=_table(grid, what),
    )


def _columns(record: RunRecord, flow: Flow, width: int) -> tuple[str, ...]:
    """Return the names of the entries of a flow, or their numbers where the record has no names."""
    if flow.startswith("information"):
        names = [f"{producer} → {consumer}" for producer, consumer in record.model.edges]
    else:
        names = list(record.model.prunable)
    return tuple(names) if len(names) == width else tuple(map(str, range(1, width + 1)))


def _finding(grid: Grid, what: str, has_reference: bool) -> str:
    sentences = []
    if has_reference and len(grid.rows) > 1:
        sentences.append(_moved(grid, what))
    elif not has_reference:
        sentences.append("The record holds no reference of the dense network for this flow")
    if grid.finite:
        low, high = words.number(min(grid.finite)), words.number(max(grid.finite))
        sentences.append(f"All values lie between {low} and {high}")
    if grid.not_finite:
        cells = words.plural(grid.not_finite, "value")
        verb = "is" if grid.not_finite == 1 else "are"
        sentences.append(f"{cells} {verb} not finite and left blank")
    return ". ".join(sentences) + "."


def _moved(grid: Grid, what: str) -> str:
    """Say how far the last level lies from the reference, and where most."""
    reference, last = grid.values[0], grid.values[-1]
    gaps = [abs(now - then) for then, now in zip(reference, last, strict=True)]
    usable = [place for place, gap in enumerate(gaps) if math.isfinite(gap)]
    if not usable:
        return "The last level can't be compared with the dense network"
    mean = sum(gaps[place] for place in usable) / len(usable)
    far = max(usable, key=gaps.__getitem__)
    return (
        f"At the last level ({grid.rows[-1]}) the flow differs from the dense network's by "
        f"{words.number(mean)} per {what} on average, most at {grid.columns[far]}: "
        f"{words.number(reference[far])} became {words.number(last[far])}"
    )


def _table(grid: Grid, what: str) -> Table:
    by_column: Sequence[tuple[float, ...]] = list(zip(*grid.values, strict=True))
    return Table(
        headings=("", what, *grid.rows),
        rows=tuple(
            (str(place), name, *(words.number(value) for value in values))
            for place, (name, values) in enumerate(zip(grid.columns, by_column, strict=True), 1)
        ),
        text=frozenset({1}),
    )
