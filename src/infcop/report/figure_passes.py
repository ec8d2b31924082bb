"""The figure of passes per level, with the reason each level stopped."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from infcop.core.records import LevelRecord, RunRecord, StopReason
from infcop.report import drawing, words
from infcop.report.decisions import decision_line, reasons_text
from infcop.report.drawing import Figure, Omitted, canvas
from infcop.report.spending import spending
from infcop.report.tables import Table

__all__ = ["passes_figure"]

_HEADING = "Passes per level, and why each level stopped"
_LOOKS = {
    StopReason.FLOW: (drawing.BLUE, ""),
    StopReason.SHOCK: (drawing.BLUE, ""),
    StopReason.SETTLED: (drawing.BLUE, "-"),
    StopReason.MASK: (drawing.GREEN, "|"),
    StopReason.ACCURACY: (drawing.GREEN, "/"),
    StopReason.PLATEAU: (drawing.PURPLE, "x"),
    StopReason.LOSS: (drawing.PURPLE, "+"),
    StopReason.BUDGET: (drawing.ORANGE, "\\"),
    StopReason.UNTRAINED: (drawing.GREY, ""),
}
"""Colour and hatching, so that a print in grey tells reasons apart too."""
_OTHER = (drawing.GREY, ".")


def passes_figure(record: RunRecord) -> Figure | Omitted:
    """Draw the training passes of each level as bars, coloured by why the level stopped."""
    if not record.levels:
        return Omitted(_HEADING, "no level has begun")
    if record.outcome and spending(record).full_levels is None:
        return Omitted(_HEADING, "the levels of this method only prune")
    plot = canvas(300, "level", "training passes")
    reasons = dict.fromkeys(_reason(level) for level in record.levels)
    for reason in reasons:
        plot.add_trace(_bars([x for x in record.levels if _reason(x) is reason], reason))
    budget = record.config.get("levels", {}).get("max_passes")
    if budget is not None:
        plot.add_trace(_budget_line(record, budget))
    # On a small screen, labels that would overlap are left out rather than shrunk.
    plot.update_layout(bargap=0.25, barmode="overlay", uniformtext={"minsize": 10, "mode": "hide"})
    first, last = record.levels[0].level, record.levels[-1].level
    plot.update_xaxes(range=[first - 0.6, last + 0.6], dtick=-(-len(record.levels) // 12), tick0=1)
    plot.update_yaxes(rangemode="tozero")
    return Figure(
        key="passes",
        heading=_HEADING,
        finding=_finding(record),
        reading=(
            "One pass is one traversal of the training data. The colour says what ended the level; "
            "the dashed line is the full budget, which a level trains for if no rule stops it."
        ),
        plot=plot,
        table=Table(
            headings=("level", "passes", "what happened"),
            rows=tuple(
                (str(x.level), words.passes(x.passes), decision_line(x)) for x in record.levels
            ),
            text=frozenset({0, 2}),
        ),
    )


def _reason(level: LevelRecord) -> StopReason | None:
    return level.stopped_by.reason if level.stopped_by else None


def _bars(levels: list[LevelRecord], reason: StopReason | None) -> Any:
    colour, hatching = _LOOKS.get(reason, _OTHER) if reason else _OTHER
    return go.Bar(
        x=[level.level for level in levels],
        y=[level.passes for level in levels],
        name=words.SHORT_REASONS[reason] if reason else "still training",
        marker={
            "color": colour,
            "pattern": {"shape": hatching, "bgcolor": colour, "fgcolor": "white", "solidity": 0.25},
        },
        text=[words.passes(level.passes) for level in levels],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        hovertext=[_folded(decision_line(level)) for level in levels],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _budget_line(record: RunRecord, budget: float) -> Any:
    first, last = record.levels[0].level, record.levels[-1].level
    return go.Scatter(
        x=[first - 0.6, last + 0.6],
        y=[budget, budget],
        name="full budget",
        mode="lines",
        line={"color": drawing.GREY, "dash": "dash", "width": 1.5},
        hovertemplate=f"full budget: {words.plural(budget, 'pass')}<extra></extra>",
    )


def _folded(line: str) -> str:
    """Break a decision over lines that fit a small screen."""
    return line.replace(": ", ":<br>", 1).replace(", the ", ",<br>the ").replace(" (", "<br>(")


def _finding(record: RunRecord) -> str:
    took = [level.passes for level in record.levels]
    longest = max(record.levels, key=lambda level: level.passes)
    each = (
        f"Each took {words.plural(took[0], 'pass')}"
        if min(took) == max(took)
        else f"The longest was level {longest.level} with {words.plural(longest.passes, 'pass')}"
    )
    return f"{_against_budget(record)}. {each}. Why levels stopped: {reasons_text(record)}."


def _against_budget(record: RunRecord) -> str:
    spent = spending(record)
    levels = words.plural(len(record.levels), "level")
    took = f"{levels} took {words.plural(spent.levels, 'training pass')}"
    if spent.full_levels is None or spent.saved is None:
        return took
    if spent.saved < 0.0005:
        return f"{took}, all of the full budget"
    return (
        f"{took} of the {words.passes(spent.full_levels)} of the full budget, "
        f"{words.percent(spent.saved)} less"
    )
