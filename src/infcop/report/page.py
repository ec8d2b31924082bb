"""The page: one run as one HTML file that needs no network."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from infcop.core.footprint import Footprint
from infcop.core.records import RunRecord
from infcop.report.answer import answer_sentences, big_numbers, subject
from infcop.report.compact_section import compact_section
from infcop.report.drawing import Figure, to_draw
from infcop.report.figures import all_figures
from infcop.report.spending import prunable_entries
from infcop.report.tables import (
    cost_table,
    excluded_table,
    level_table,
    network_table,
    pairs_table,
)
from infcop.report.writing import template, write_page

__all__ = ["render_report", "write_report"]


def render_report(record: RunRecord, title: str, footprint: Footprint | None = None) -> str:
    """Return the page of a run, finished or not.

    Everything is inside: styles, figures and the library that draws them. The page forbids itself
    any request by a content security policy, and every text of the record is escaped.

    Args:
        record: All that the page shows.
        title: Heading of the page, for instance the name of the run folder.
        footprint: What was measured of the compact network, where there is one.

    Returns:
        A complete HTML document of about 5 MB, nearly all of it the plotting library.

    Example:
        >>> from infcop.core.records import DataFacts, ModelFacts
        >>> record = RunRecord(
        ...     config={}, versions={}, hardware={},
        ...     model=ModelFacts(name="m", parameters=6, prunable={"fc.weight": (2, 3)}),
        ...     data=DataFacts(name="d", train=10, probe=2, held_out=2, test=0,
        ...                    main_metric="accuracy", higher_is_better=True),
        ... )
        >>> "<h1>first &lt;run&gt;</h1>" in render_report(record, "first <run>")
        True
    """
    figures = all_figures(record)
    compact = None if footprint is None else compact_section(record, footprint)
    drawn = [*figures, *([] if compact is None else [compact.figure])]
    page: str = template("report.html.j2").render(
        title=title,
        record=record,
        subject=subject(record),
        finished=record.outcome is not None,
        answer=answer_sentences(record),
        numbers=big_numbers(record),
        figures=figures,
        plots=[to_draw(figure.key, figure.plot) for figure in drawn if isinstance(figure, Figure)],
        compact=compact,
        cost=cost_table(record),
        levels=level_table(record),
        networks=network_table(record),
        excluded=excluded_table(record),
        versions=pairs_table(record.versions, "package"),
        hardware=pairs_table(record.hardware, "hardware"),
        prunable=prunable_entries(record),
        config=yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True),
        # The library's own text, which holds no closing script tag.
        plotly=Markup(get_plotlyjs()),
    )
    return page


def write_report(
    record: RunRecord,
    path: str | os.PathLike[str],
    title: str | None = None,
    footprint: Footprint | None = None,
) -> Path:
    """Write the page of a run; a reader sees the old page or the new one, never half of one.

    Args:
        record: All that the page shows.
        path: The HTML file; its folder must exist.
        title: Heading of the page; by default the name of the file's folder.
        footprint: What was measured of the compact network, where there is one.

    Returns:
        The path written.

    Raises:
        RunFolderError: The file can't be written; what was there before is left as it was.
    """
    target = Path(path)
    name = title or target.resolve().parent.name or record.model.name
    page = render_report(record, name, footprint)
    write_page(target, page)
    return target
