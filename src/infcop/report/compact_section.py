"""The section of the page on the compact network."""

from __future__ import annotations

from dataclasses import dataclass

from infcop.core.footprint import Footprint
from infcop.core.records import RunRecord
from infcop.report.accounting import is_timed
from infcop.report.drawing import Figure, Omitted
from infcop.report.figure_removed import removed_figure
from infcop.report.footprint_tables import size_table, speed_table
from infcop.report.footprint_words import (
    NAMES,
    footprint_sentences,
    timed_sentence,
    uncounted_sentence,
)
from infcop.report.tables import Table, pairs_table

__all__ = ["CompactSection", "compact_section"]


@dataclass(frozen=True)
class CompactSection:
    """All that the section shows."""

    sentences: list[str]
    sizes: Table
    uncounted: str
    speeds: Table | None
    """None where no time was measured."""
    timed: str
    """When and on what they were measured."""
    missing: list[str]
    """Why numbers of some networks are missing."""
    new_biases: tuple[str, ...]
    figure: Figure | Omitted
    machine: Table


def compact_section(record: RunRecord, footprint: Footprint) -> CompactSection:
    """Return what the page says of the compact network."""
    return CompactSection(
        sentences=footprint_sentences(footprint),
        sizes=size_table(footprint, record.data),
        uncounted=uncounted_sentence(footprint),
        speeds=speed_table(footprint) if is_timed(footprint) else None,
        timed=timed_sentence(footprint),
        missing=[f"{NAMES[x.network]}: {x.missing}" for x in footprint.networks if x.missing],
        new_biases=footprint.new_biases,
        figure=removed_figure(footprint),
        machine=pairs_table({**footprint.versions, **footprint.hardware}, "measured with"),
    )
