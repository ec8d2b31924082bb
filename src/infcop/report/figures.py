"""All figures of the page, in order."""

from __future__ import annotations

from infcop.core.records import RunRecord
from infcop.report.drawing import Figure, Omitted
from infcop.report.figure_accuracy import accuracy_figure
from infcop.report.figure_density import density_figure
from infcop.report.figure_distance import distance_figure
from infcop.report.figure_flow import flow_figures
from infcop.report.figure_passes import passes_figure

__all__ = ["all_figures"]


def all_figures(record: RunRecord) -> list[Figure | Omitted]:
    """Return what the record has data for, and for the rest the reason why it is left out."""
    return [
        accuracy_figure(record),
        passes_figure(record),
        *flow_figures(record),
        distance_figure(record),
        density_figure(record),
    ]
