"""The page of a replay: one HTML file that needs no network."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import fmean

import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from infcop.core.replay import Replay
from infcop.errors import RunFolderError
from infcop.report import words
from infcop.report.compare_figure import Panel
from infcop.report.drawing import Figure, to_draw
from infcop.report.replay_curves import curve_legend, curve_panels
from infcop.report.replay_figures import loss_figure, stop_figure, stop_panels
from infcop.report.replay_tables import correlation_table, course_table
from infcop.report.replay_words import CLOCK, findings, metric_name, notices, number, scope
from infcop.report.tables import Table
from infcop.report.writing import template, write_page

__all__ = ["render_replay", "write_replay"]


def render_replay(replay: Replay, title: str) -> str:
    """Return the page of a replay.

    As with the page of a run, everything is inside, the page forbids itself any request, and every
    text is escaped.
    """
    figures = [loss_figure(replay), stop_figure(replay)]
    stops, curves = stop_panels(replay), curve_panels(replay)
    drawn: list[Figure | Panel] = [*figures, *stops, *curves]
    rules = {
        rule.label: rule.rule.model_dump(mode="json", exclude_none=True) for rule in replay.rules
    }
    page: str = template("replay.html.j2").render(
        title=title,
        scope=scope(replay),
        findings=findings(replay),
        notices=notices(replay),
        numbers=_numbers(replay),
        metric=metric_name(replay),
        figures=figures,
        stops=stops,
        asked=len(replay.rules),
        legend=curve_legend(replay),
        curves=curves,
        correlations=correlation_table(replay),
        courses=course_table(replay),
        records=_record_table(replay),
        skipped=Table(
            headings=("rule", "why"), rows=tuple(replay.skipped.items()), text=frozenset({0, 1})
        ),
        rules=yaml.safe_dump(rules, sort_keys=False, allow_unicode=True),
        plots=[to_draw(one.key, one.plot) for one in drawn],
        # The library's own text, which holds no closing script tag.
        plotly=Markup(get_plotlyjs()),
    )
    return page


def write_replay(replay: Replay, path: str | os.PathLike[str]) -> Path:
    """Write the page of a replay, titled like its folder, which is made where it is missing.

    Raises:
        RunFolderError: The file can't be written; what was there before is left as it was.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"can't make the folder '{target.parent}': {error.strerror or error}; choose another "
            "with --out"
        ) from error
    write_page(target, render_replay(replay, target.resolve().parent.name))
    return target


def _numbers(replay: Replay) -> list[tuple[str, str, str]]:
    levels = sum(record.levels for record in replay.records)
    told = [("levels replayed", words.count(levels), f"with {len(replay.rules)} rules each")]
    recovered = [c.recovered for c in replay.courses if c.recovered is not None]
    if recovered:
        budget = fmean(record.budget for record in replay.records)
        beside = f"of {words.passes(budget)} on average"
        told.append(("passes to recovery", words.passes(fmean(recovered)), beside))
    known = [one for one in replay.correlations if one.mean is not None]
    told += [
        ("best rank correlation", number(one.mean), one.name)
        for one in [one for one in known if one.name != CLOCK][:1]
    ]
    told += [
        ("rank correlation of time alone", number(one.mean), "nothing measured")
        for one in known
        if one.name == CLOCK
    ]
    return told


def _record_table(replay: Replay) -> Table:
    return Table(
        headings=("record", "model", "data", "levels", "readings", "budget (passes)"),
        rows=tuple(
            (
                record.name,
                record.model,
                record.data,
                str(record.levels),
                words.count(record.readings),
                words.passes(record.budget),
            )
            for record in replay.records
        ),
        text=frozenset({0, 1, 2}),
    )
