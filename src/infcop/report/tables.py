"""The tables of the page, as strings that are ready to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infcop.core.records import LevelRecord, RunRecord
from infcop.report import words
from infcop.report.decisions import evidence_text
from infcop.report.spending import (
    CostRow,
    cost_rows,
    dense_main,
    dense_trainings,
    main_after_pruning,
    main_at_end,
    prunable_entries,
)

__all__ = [
    "Table",
    "cost_table",
    "excluded_table",
    "level_table",
    "network_table",
    "pairs_table",
    "plain_lines",
]


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; columns hold numbers unless named as text."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: frozenset[int] = frozenset({0})
    """Columns of words, which are aligned to the left."""
    emphasised: int | None = None
    """The row that sums the others up."""
    cards: bool = False
    """Whether each row becomes a card on a small screen, its last cell below the others."""


def plain_lines(table: Table) -> Iterator[str]:
    """Yield a table as lines of plain text for the terminal, the headings first.

    Example:
        >>> for line in plain_lines(Table(("level", "passes"), (("1", "12"), ("10", "3")))):
        ...     print(line)
        level  passes
        1          12
        10          3
    """
    rows = [table.headings, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.headings))]
    for row in rows:
        cells = (
            f"{cell:<{width}}" if place in table.text else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def cost_table(record: RunRecord) -> Table:
    """Return what each part of the run cost, without the columns that are empty throughout."""
    rows = cost_rows(record)
    fields = [
        ("training", "training passes"),
        ("measuring", "measuring passes"),
        ("measuring_gradient", "gradient-measuring passes"),
        ("evaluating", "evaluating passes"),
    ]
    used = [field for field in fields if any(getattr(row, field[0]) for row in rows)]
    headings = ["", *(title for _, title in used), "forward equivalents (passes)"]
    return Table(
        headings=(*headings, "times dense training", "time"),
        rows=tuple(_cost_cells(row, [name for name, _ in used]) for row in rows),
        emphasised=len(rows) - 1,
    )


def _cost_cells(row: CostRow, used: list[str]) -> tuple[str, ...]:
    spent = [words.passes(getattr(row, name)) for name in used]
    time = words.duration(row.seconds) if row.seconds is not None else ""
    total = f"{row.forward_equivalents:,.1f}"
    return (row.label, *spent, total, f"{row.dense_trainings:.2f}", time)


def level_table(record: RunRecord) -> Table:
    """Return one row for the dense network and one for each level, with why it stopped.

    What is trained is shown where levels have trained smaller networks.
    """
    smaller = any(level.trained_parameters is not None for level in record.levels)
    dense = (
        "dense",
        words.percent(1.0),
        words.count(prunable_entries(record)),
        *([words.count(record.model.parameters)] if smaller else ()),
        words.passes(record.passes(record.dense.cost.training)),
        "",
        words.metric(record.data, dense_main(record)),
        record.dense.stopped_by.reason.sentence if record.dense.stopped_by else "",
    )
    return Table(
        headings=(
            "level",
            "density",
            "weights kept",
            *(["parameters trained"] if smaller else ()),
            "passes",
            "after pruning",
            "at the end",
            "why it stopped",
        ),
        rows=(dense, *(_level_cells(record, level, smaller) for level in record.levels)),
        text=frozenset({0, 7 if smaller else 6}),
        cards=True,
    )


def _level_cells(record: RunRecord, level: LevelRecord, smaller: bool) -> tuple[str, ...]:
    trained = level.trained_parameters or record.model.parameters
    return (
        str(level.level),
        words.percent(level.density),
        words.count(level.kept),
        *([words.count(trained)] if smaller else ()),
        words.passes(level.passes),
        words.metric(record.data, main_after_pruning(level)),
        words.metric(record.data, main_at_end(level)),
        _why(level),
    )


def _why(level: LevelRecord) -> str:
    if level.stopped_by is None:
        return "Still training."
    sentence = level.stopped_by.reason.sentence
    evidence = evidence_text(level.stopped_by)
    return f"{sentence[0].upper()}{sentence[1:]}{f' ({evidence})' if evidence else ''}."


def network_table(record: RunRecord) -> Table:
    """Return one row for each network that the search gave: its milestones and its end."""
    data, outcome = record.data, record.outcome
    split = outcome.measured_on if outcome else "test" if data.test else "held-out"
    networks = [(m.density, m.kept, m.metrics, m.cost) for m in record.milestones]
    if outcome:
        networks.append((outcome.density, outcome.kept, outcome.sparse, outcome.cost))
    return Table(
        headings=(
            "density",
            "weights kept",
            f"{split} {data.main_metric.replace('_', ' ')}",
            "times dense training",
        ),
        rows=tuple(
            (
                words.percent(density),
                words.count(kept),
                words.metric(data, metrics.get(data.main_metric)),
                _multiple(dense_trainings(record, cost)) if metrics else "",
            )
            for density, kept, metrics, cost in networks
        ),
        text=frozenset(),
    )


def _multiple(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def excluded_table(record: RunRecord) -> Table:
    """Return the parameters that were left alone, with the reason."""
    rows = tuple(record.model.excluded.items())
    return Table(headings=("parameter", "why it is not pruned"), rows=rows, text=frozenset({0, 1}))


def pairs_table(pairs: dict[str, str], what: str) -> Table:
    """Return a mapping as a table of two columns."""
    return Table(headings=(what, ""), rows=tuple(pairs.items()), text=frozenset({0, 1}))
